"""A crash at one exact place, against real Kafka and PostgreSQL: between commit and send, between send and delete."""

import time
from collections.abc import Iterator, Sequence

import pytest
from kafka import KafkaProducer

from core.errors import StoreUnavailable
from core.frames import encode_frame
from core.producer import make_producer
from core.settings import Settings
from core.topics import ACTIVITY, OUTCOMES, REJECTED
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.outcome_pb2 import Outcome
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.outbox import OutboxRow, Relay
from streams.postgres_state import PostgresStateStore
from tests.faults.stored import read_topic

pytestmark = pytest.mark.live

HORIZON_MS = 1_000
ANSWERS = 1_200  # more than the relay sends at once
CONTEXT = FoldContext(NoItems(), 0, HORIZON_MS, 9)


class DiesBeforeDeleting:
    """The outbox of a process that is gone once its records have left."""

    def __init__(self, store: PostgresStateStore) -> None:
        self._store = store

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        return self._store.waiting(partition, limit)

    def delete(self, ids: Sequence[int]) -> None:
        raise StoreUnavailable("the process has died")


@pytest.fixture
def store(settings: Settings, request: pytest.FixtureRequest) -> Iterator[PostgresStateStore]:
    """Of a group of its own, so that tests do not meet."""
    store = PostgresStateStore(settings.postgres, request.node.name, connections=4)
    store.open()
    yield store
    store.close()


@pytest.fixture
def producer(settings: Settings) -> Iterator[KafkaProducer]:
    producer = make_producer(settings.kafka, timeout_ms=10_000)
    yield producer
    producer.close(timeout=5.0)


def partition_of_group(group: str) -> Partition:
    return Partition(group, ACTIVITY, "topic-id", 0, 1)


def closed_answers(group: str, count: int, store: PostgresStateStore) -> set[str]:
    """Request ids whose outcomes a worker has committed, and not sent: it died."""
    now_ms = time.time_ns() // 1_000_000
    requests = [f"{group}-{number}" for number in range(count)]
    frames = []
    for request_id in requests:
        shown = Impression(request_id=request_id, user_id="user-1")
        shown.served_at.FromMilliseconds(now_ms)
        shown.slots.add(item_id="7", source="popular", candidate_index=-1)
        frames.append(encode_frame([Activity(impression=shown)]))
    records = [Record(offset, now_ms, frame) for offset, frame in enumerate(frames)]
    records.append(Record(count, now_ms, b"\xff poison"))
    records.append(Record(count + 1, now_ms + HORIZON_MS, encode_frame(())))
    driver = Driver(partition_of_group(group), store, lambda: CONTEXT, cache_users=10)
    assert driver.apply(records) == len(records)
    assert driver.cursor.outcomes == count
    return set(requests)


def requests_sent(settings: Settings, group: str) -> list[str]:
    """The requests of the outcomes in the topic, repeats included, in order."""
    records = read_topic(settings, OUTCOMES, settings.kafka.activity_partitions)[0]
    requests = [Outcome.FromString(record.value or b"").request_id for record in records]
    return [request for request in requests if request.startswith(f"{group}-")]


def test_outcomes_of_a_commit_without_a_sender_leave_with_the_next_one(
    settings: Settings, store: PostgresStateStore, producer: KafkaProducer, request: pytest.FixtureRequest
) -> None:
    group = request.node.name
    committed = closed_answers(group, ANSWERS, store)
    assert requests_sent(settings, group) == []
    rejects = len(read_topic(settings, REJECTED, 1)[0])

    relay = Relay(store, producer, lambda: [0], ack_timeout_s=10.0)
    while relay.send_waiting():
        pass

    sent = requests_sent(settings, group)
    assert len(sent) == ANSWERS
    assert set(sent) == committed
    assert len(read_topic(settings, REJECTED, 1)[0]) == rejects + 1
    assert store.waiting(0, 1) == []


def test_outcomes_sent_and_not_deleted_are_sent_again_and_recognised(
    settings: Settings, store: PostgresStateStore, producer: KafkaProducer, request: pytest.FixtureRequest
) -> None:
    group = request.node.name
    committed = closed_answers(group, 20, store)
    with pytest.raises(StoreUnavailable):
        Relay(DiesBeforeDeleting(store), producer, lambda: [0], ack_timeout_s=10.0).send_waiting()
    once = requests_sent(settings, group)
    assert set(once) == committed

    Relay(store, producer, lambda: [0], ack_timeout_s=10.0).send_waiting()
    twice = requests_sent(settings, group)
    assert twice == once + once  # in the same order, by the same outcome ids
    assert store.waiting(0, 1) == []
