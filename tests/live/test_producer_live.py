"""ActivityProducer against a real broker: kept in order, where Java would look for it, and in time when it is down."""

import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from core.errors import BrokerUnavailable, ContractError
from core.frames import decode_frame, encode_frame
from core.partition import partition_of
from core.producer import Acknowledged, ActivityProducer, make_producer, send_record
from core.settings import Settings, as_environment
from core.topics import ACTIVITY
from core.topics_admin import apply_topics
from core.validation import interaction_fault
from infra.local import LocalServers
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Interaction

pytestmark = pytest.mark.live

TIMEOUT_MS = 10_000
ROOT = Path(__file__).resolve().parents[2]
LONG_AGO_MS = 1_650_000_000_000


def act(event_id: str, user_id: str) -> Activity:
    return Activity(interaction=Interaction(event_id=event_id, user_id=user_id))


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    """Settings of a broker that has the platform's topics."""
    apply_topics(platform_settings.kafka)
    return platform_settings


@pytest.fixture
def producer(settings: Settings) -> Iterator[ActivityProducer]:
    producer = ActivityProducer(settings.kafka, linger_ms=5, timeout_ms=TIMEOUT_MS)
    yield producer
    producer.close(TIMEOUT_MS / 1000)


def read(settings: Settings, partition: int, first: int, last: int) -> dict[int, tuple[int, list[Activity]]]:
    """Offset -> (timestamp, entries) of the records first .. last of a partition."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, consumer_timeout_ms=TIMEOUT_MS)
    try:
        where = TopicPartition(ACTIVITY, partition)
        consumer.assign([where])
        consumer.seek(where, first)
        found = {}
        for record in consumer:
            found[record.offset] = (record.timestamp, list(decode_frame(record.value)))
            if record.offset >= last:
                break
        return found
    finally:
        consumer.close()


def test_what_was_acknowledged_stands_in_the_log_in_each_users_order(
    settings: Settings, producer: ActivityProducer
) -> None:
    count, users = 250, [f"user-{n}" for n in range(12)]
    answers = {
        (user, n): producer.send(act(f"{user} {n}", user), user, LONG_AGO_MS + n)
        for n in range(count)
        for user in users
    }
    kept = {key: future.result(TIMEOUT_MS / 1000) for key, future in answers.items()}
    spans: dict[int, list[int]] = defaultdict(list)
    for (user, _), answer in kept.items():
        assert answer.partition == partition_of(user, settings.kafka.activity_partitions)
        spans[answer.partition].append(answer.offset)
    arrived: dict[str, list[int]] = defaultdict(list)
    for partition, offsets in spans.items():
        for offset, (_, activities) in read(settings, partition, min(offsets), max(offsets)).items():
            for activity in activities:
                user, n = activity.interaction.event_id.split()
                assert kept[user, int(n)][:2] == (partition, offset)
                arrived[user].append(int(n))
    assert arrived == {user: list(range(count)) for user in users}


def test_record_keeps_the_platforms_time_however_old(settings: Settings, producer: ActivityProducer) -> None:
    kept = producer.send(act("old", "u"), "u", LONG_AGO_MS).result(TIMEOUT_MS / 1000)
    assert read(settings, kept.partition, kept.offset, kept.offset)[kept.offset][0] == LONG_AGO_MS


def test_keyed_record_of_any_client_lands_in_the_users_partition(settings: Settings) -> None:
    """A foreign producer names the user as key and leaves the partition to Kafka's default."""
    foreign = make_producer(settings.kafka, timeout_ms=TIMEOUT_MS)
    try:
        for user in ("u", "用户", "42", "a-little-bit-long-string"):
            future = send_record(foreign, ACTIVITY, encode_frame([act("e", user)]), key=user.encode())
            answer: Acknowledged = future.result(TIMEOUT_MS / 1000)
            assert answer.partition == partition_of(user, settings.kafka.activity_partitions)
    finally:
        foreign.close(timeout=TIMEOUT_MS / 1000)


@pytest.mark.parametrize("place", range(2))
def test_the_examples_for_producers_keep_their_event(settings: Settings, place: int) -> None:
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "producing.md").read_text("utf-8"), re.DOTALL)[place]
    ran = subprocess.run(
        [sys.executable, "-c", example],
        cwd=ROOT,
        env={**os.environ, **as_environment(settings)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    at = re.fullmatch(r"kept in partition (\d+) at offset (\d+)\n", ran.stdout)
    assert at is not None, ran.stderr
    partition, offset = map(int, at.groups())
    assert partition == partition_of("user-1", settings.kafka.activity_partitions)
    recorded_ms, (activity,) = read(settings, partition, offset, offset)[offset]
    assert interaction_fault(activity.interaction, recorded_ms) is None


def test_partition_the_topic_does_not_have_is_a_disagreement(settings: Settings) -> None:
    kafka = settings.kafka.model_copy(update={"activity_partitions": 1000})
    producer = ActivityProducer(kafka, linger_ms=1, timeout_ms=TIMEOUT_MS)
    try:
        user = next(user for user in map(str, range(100)) if partition_of(user, 1000) >= 4)
        with pytest.raises(ContractError, match="activity_partitions"):
            producer.send(act("e", user), user, LONG_AGO_MS).result(TIMEOUT_MS / 1000)
    finally:
        producer.close(TIMEOUT_MS / 1000)


def test_dead_broker_fails_every_waiter_in_time_and_a_returned_one_keeps_again(
    settings: Settings, servers: LocalServers
) -> None:
    timeout_ms = 2_000
    producer = ActivityProducer(settings.kafka, linger_ms=1, timeout_ms=timeout_ms)
    try:
        producer.send(act("before", "u"), "u", LONG_AGO_MS).result(TIMEOUT_MS / 1000)
        servers.kill_kafka()
        started = time.monotonic()
        waiting = [producer.send(act(f"lost {n}", f"user-{n}"), f"user-{n}", LONG_AGO_MS) for n in range(20)]
        for future in waiting:
            with pytest.raises(BrokerUnavailable, match="send again"):
                future.result(3 * timeout_ms / 1000)
        assert time.monotonic() - started < 2 * timeout_ms / 1000
        servers.restart_kafka()
        deadline = time.monotonic() + 30
        while True:
            try:
                producer.send(act("after", "u"), "u", LONG_AGO_MS).result(TIMEOUT_MS / 1000)
                break
            except BrokerUnavailable:
                assert time.monotonic() < deadline
    finally:
        producer.close(TIMEOUT_MS / 1000)


def test_unreachable_broker_is_one_clear_line_in_time(settings: Settings) -> None:
    nobody = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9", "request_timeout_ms": 1_000})
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9 "):
        ActivityProducer(nobody, linger_ms=1, timeout_ms=1_000)
    assert time.monotonic() - started < 5


def test_closing_after_the_broker_died_tells_every_waiter(settings: Settings, servers: LocalServers) -> None:
    timeout_ms = 2_000
    producer = ActivityProducer(settings.kafka, linger_ms=1_000, timeout_ms=timeout_ms)
    producer.send(act("before", "u"), "u", LONG_AGO_MS).result(TIMEOUT_MS / 1000)
    servers.kill_kafka()
    waiting = [producer.send(act(f"lost {n}", f"user-{n}"), f"user-{n}", LONG_AGO_MS) for n in range(20)]
    producer.close(2 * timeout_ms / 1000)  # longer than a send may take: all have ended, badly
    for future in waiting:
        with pytest.raises(BrokerUnavailable, match="send again"):
            future.result(0)
    servers.restart_kafka()
