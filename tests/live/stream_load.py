"""Stream workers as processes, a steady load for them, and what must be true afterwards."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psycopg
from kafka import KafkaConsumer, TopicPartition

from core.frames import encode_frame
from core.partition import partition_of
from core.producer import ActivityProducer, make_producer, send_record
from core.settings import Settings, as_environment
from core.topics import ACTIVITY, OUTCOMES, REJECTED
from core.topics_admin import apply_topics, topic_states
from feature_repo import schema
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from feature_repo.store import PackedStore
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction
from protos.events.v1.outcome_pb2 import Outcome
from streams.cursor import Cursor, Partition, Record
from streams.driver import Driver
from streams.state_store import MemoryStateStore

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
USERS = [f"user-{number}" for number in range(400)]
HORIZON_S = 3
PATIENCE_S = 40.0


class Sent(NamedTuple):
    """What the load put into the log, as the workers must account for it."""

    interactions: int  # kept at the door, retries included
    retries: int
    rejected: int  # of the interactions
    poison: int  # records that are no frames
    impressions: int
    slots: int


class Worker:
    """`nearfeed stream` as a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        environment = {**os.environ, **as_environment(settings), "OMP_NUM_THREADS": "1"}
        self.log = log
        with log.open("wb") as out:
            command = [sys.executable, "-m", "streams.worker"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while "worker.ready" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self, sent: signal.Signals) -> int:
        self.process.send_signal(sent)
        return self.process.wait(PATIENCE_S)


class Crew:
    """Two workers, replaced as they end."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self._settings = settings
        self._logs = logs
        self._started = 0
        self.fenced = 0
        self.workers = [self._start(), self._start()]
        for worker in self.workers:
            worker.wait_ready()

    def end(self, place: int, sent: signal.Signals) -> int:
        """The worker's exit code; a new one has its place."""
        code = self.workers[place].end(sent)
        self.workers[place] = self._start()
        return code

    def replace_the_fallen(self) -> None:
        """A worker may end itself with one line when it was fenced, or when a server was away for long."""
        for place, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                text = worker.log.read_text()
                assert "worker.failed" in text and "reason=unexpected" not in text, text
                self.fenced += "another owner" in text
                self.workers[place] = self._start()

    def stop(self) -> None:
        """Both end in order, also one that has only just been started."""
        for worker in self.workers:
            worker.wait_ready()
            assert worker.end(signal.SIGTERM) == 0, worker.log.read_text()

    def kill(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.end(signal.SIGKILL)

    def _start(self) -> Worker:
        self._started += 1
        return Worker(self._settings, self._logs / f"worker-{self._started}.log")


def prepared(platform_settings: Settings) -> Settings:
    """Settings for workers that close answers within seconds; topics and tables exist."""
    chosen = platform_settings.model_copy(
        update={
            "kafka": platform_settings.kafka.model_copy(update={"activity_partitions": PARTITIONS}),
            "streams": platform_settings.streams.model_copy(update={"horizon_s": HORIZON_S, "heartbeat_s": 0.5}),
        }
    )
    apply_topics(chosen.kafka)
    with psycopg.connect(chosen.postgres.dsn.get_secret_value()) as connection:
        schema.create(connection)
    return chosen


class Load(threading.Thread):
    """A steady mixture: acts, impressions and acts on them, clients' retries, poison."""

    def __init__(self, settings: Settings, for_s: float) -> None:
        super().__init__(name="load")
        self._settings = settings
        self._for_s = for_s
        self.sent = Sent(0, 0, 0, 0, 0, 0)

    def run(self) -> None:
        rng = random.Random(20)
        producer = ActivityProducer(self._settings.kafka, linger_ms=20, timeout_ms=10_000)
        raw = make_producer(self._settings.kafka, timeout_ms=10_000)
        until = time.monotonic() + self._for_s
        interactions = retries = rejected = poison = impressions = slots = 0
        last: Activity | None = None
        number = 0
        try:
            while time.monotonic() < until:
                for _ in range(15):
                    number += 1
                    user_id = rng.choice(USERS)
                    now_ms = time.time_ns() // 1_000_000
                    if number % 10 == 0:
                        shown = _impression(f"r{number}", user_id, now_ms)
                        producer.send(shown, user_id, now_ms)
                        act = _act(f"a{number}", user_id, now_ms, item="1", request_id=f"r{number}")
                        producer.send(act, user_id, now_ms)
                        impressions, slots, interactions = impressions + 1, slots + 3, interactions + 1
                    elif number % 37 == 0 and last is not None:
                        producer.send(last, last.interaction.user_id, now_ms)
                        interactions, retries = interactions + 1, retries + 1
                    elif number % 211 == 0:
                        ahead = _act(f"e{number}", user_id, now_ms + 3_600_000, item="1")
                        producer.send(ahead, user_id, now_ms)
                        interactions, rejected = interactions + 1, rejected + 1
                    else:
                        last = _act(f"e{number}", user_id, now_ms - rng.randrange(1_000), item=str(rng.randrange(50)))
                        producer.send(last, user_id, now_ms)
                        interactions += 1
                if number % 3 == 0:
                    stray = rng.choice(USERS)
                    wrong = (partition_of(stray, PARTITIONS) + 1) % PARTITIONS
                    frame = encode_frame([_act(f"s{number}", stray, now_ms, item="1")])
                    send_record(raw, ACTIVITY, frame, partition=wrong, timestamp_ms=now_ms)
                    send_record(raw, ACTIVITY, b"\xffpoison", partition=wrong, timestamp_ms=now_ms)
                    interactions, rejected, poison = interactions + 1, rejected + 1, poison + 1
                time.sleep(0.012)
        finally:
            producer.close(10.0)
            raw.flush(10.0)
            raw.close()
        self.sent = Sent(interactions, retries, rejected, poison, impressions, slots)


def _act(event_id: str, user_id: str, at_ms: int, *, item: str, request_id: str = "") -> Activity:
    event = Interaction(event_id=event_id, user_id=user_id, item_id=item, request_id=request_id)
    event.action, event.play_ms, event.duration_ms = Action.ACTION_PLAY, 5_000, 20_000
    event.occurred_at.FromMilliseconds(at_ms)
    event.location.latitude, event.location.longitude = 30.2, 120.1 + int(item) / 100
    return Activity(interaction=event)


def _impression(request_id: str, user_id: str, at_ms: int) -> Activity:
    shown = Impression(request_id=request_id, user_id=user_id)
    shown.served_at.FromMilliseconds(at_ms)
    for position in range(3):
        shown.slots.add(item_id=str(position), position=position, source="popular", candidate_index=-1)
    return Activity(impression=shown)


def read_topic(settings: Settings, topic: str, partitions: int) -> list[list[Record]]:
    """Every record of a topic, by partition."""
    found: list[list[Record]] = [[] for _ in range(partitions)]
    all_of_it = [TopicPartition(topic, number) for number in range(partitions)]
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    try:
        consumer.assign(all_of_it)
        ends = consumer.end_offsets(all_of_it)
        consumer.seek_to_beginning(*all_of_it)
        while any(consumer.position(at) < ends[at] for at in all_of_it):
            for at, records in consumer.poll(timeout_ms=1_000).items():
                found[at.partition] += [
                    Record(record.offset, record.timestamp, record.value)
                    for record in records
                    if record.offset < ends[at]
                ]
    finally:
        consumer.close()
    return found


def cursors(settings: Settings) -> list[Cursor]:
    with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
        query = f"select {', '.join(Cursor._fields)} from stream_cursor order by partition"
        return [Cursor(*row) for row in connection.execute(query.encode())]


def wait_until_quiet(settings: Settings) -> None:
    """Everything is read, nothing waits for its horizon, the outbox is empty."""
    deadline = time.monotonic() + PATIENCE_S
    waiting = "select (select count(*) from user_attribution) + (select count(*) from stream_outbox)"
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    try:
        while True:
            ends = consumer.end_offsets([TopicPartition(ACTIVITY, number) for number in range(PARTITIONS)])
            with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
                row = connection.execute(waiting.encode()).fetchone()
            read = [cursor.next_offset for cursor in cursors(settings)]
            if row == (0,) and read == [ends[at] for at in sorted(ends)]:
                return
            assert time.monotonic() < deadline, f"read {read} of {ends}, waiting {row}"
            time.sleep(0.2)
    finally:
        consumer.close()


def reference_of(settings: Settings, log: list[list[Record]]) -> tuple[MemoryStateStore, list[Cursor]]:
    """The same log, folded by owners that never fail."""
    context = FoldContext(NoItems(), 0, HORIZON_S * 1000, settings.streams.location_resolution)
    topic_id = topic_states(settings.kafka)[ACTIVITY].topic_id
    store = MemoryStateStore()
    ends = []
    for number, records in enumerate(log):
        partition = Partition(settings.streams.group, ACTIVITY, topic_id, number, PARTITIONS)
        driver = Driver(partition, store, lambda: context, cache_users=1_000)
        driver.apply(records)
        ends.append(driver.cursor)
    return store, ends


def assert_no_trace(settings: Settings, sent: Sent) -> None:
    """States, counters, outcomes and rejects are those of the same log without any fault, and account for the load."""
    log = read_topic(settings, ACTIVITY, PARTITIONS)
    reference, expected = reference_of(settings, log)
    found = cursors(settings)
    assert [cursor._replace(epoch=0) for cursor in found] == [cursor._replace(epoch=0) for cursor in expected]

    applied = sum(cursor.applied for cursor in found)
    assert applied == sent.interactions - sent.retries - sent.rejected
    assert sum(cursor.duplicates for cursor in found) == sent.retries
    assert sum(cursor.rejected for cursor in found) == sent.rejected + sent.poison
    assert sum(cursor.impressions for cursor in found) == sent.impressions
    assert sum(cursor.outcomes for cursor in found) == sent.slots

    with PackedStore(settings.postgres) as store:
        rows = store.read_users(USERS)
    assert rows.history["applied"].sum() == applied
    for kept, folded in zip(rows, reference.features.read_users(USERS), strict=True):
        assert kept.tobytes() == folded.tobytes()

    records = [record for part in read_topic(settings, OUTCOMES, PARTITIONS) for record in part]
    outcomes = _by_id(record.value or b"" for record in records)
    folded_too = (record.value for _, record in reference.outbox.values() if record.topic == OUTCOMES)
    assert outcomes == _by_id(folded_too)
    assert len(outcomes) == sent.slots
    assert sum(bool(outcome.actions) for outcome in outcomes.values()) == sent.impressions
    assert len({record.value for record in read_topic(settings, REJECTED, 1)[0]}) == sent.rejected + sent.poison


def _by_id(values: Iterable[bytes]) -> dict[str, Outcome]:
    found = map(Outcome.FromString, values)
    return {outcome.outcome_id: outcome for outcome in found}
