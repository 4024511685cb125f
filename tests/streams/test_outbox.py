"""Laws of the relay: in order, deleted only behind an acknowledgement, sent again after a failure."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from kafka.errors import KafkaTimeoutError

from core.errors import BrokerUnavailable
from streams.outbox import Produced, Relay
from streams.state_store import MemoryStateStore


class Sent(NamedTuple):
    topic: str
    value: bytes
    partition: int
    timestamp_ms: int


class Meta(NamedTuple):
    partition: int
    offset: int


class Delivery:
    """kafka-python's future, done at once."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def add_callback(self, call: Callable[[Meta], None]) -> None:
        if self._error is None:
            call(Meta(0, 0))

    def add_errback(self, call: Callable[[Exception], None]) -> None:
        if self._error is not None:
            call(self._error)


class Producer:
    """Takes everything but what `refuses` names."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.refuses: set[bytes] = set()

    def send(self, topic: str, *, value: bytes, key: bytes | None, partition: int, timestamp_ms: int) -> Delivery:
        if value in self.refuses:
            return Delivery(KafkaTimeoutError("no answer"))
        self.sent.append(Sent(topic, value, partition, timestamp_ms))
        return Delivery(None)


def relay_of(store: MemoryStateStore, producer: Any, *owned: int) -> Relay:
    return Relay(store, producer, lambda: owned, ack_timeout_s=1.0)


def store_with(*rows: tuple[int, bytes]) -> MemoryStateStore:
    store = MemoryStateStore()
    for number, (partition, value) in enumerate(rows, start=1):
        store.outbox[number] = (partition, Produced("outcomes.v1", b"user", value, partition, 1_000 + number))
    return store


def test_only_what_owned_partitions_produced_leaves_in_order() -> None:
    store, producer = store_with((0, b"a"), (1, b"b"), (0, b"c")), Producer()
    assert relay_of(store, producer, 0).send_waiting() == 2
    assert producer.sent == [Sent("outcomes.v1", b"a", 0, 1_001), Sent("outcomes.v1", b"c", 0, 1_003)]
    assert list(store.outbox) == [2]


def test_a_refused_record_and_all_behind_it_are_sent_again() -> None:
    store, producer = store_with((0, b"a"), (0, b"b"), (0, b"c")), Producer()
    producer.refuses.add(b"b")
    relay = relay_of(store, producer, 0)
    with pytest.raises(BrokerUnavailable):
        relay.send_waiting()
    assert list(store.outbox) == [2, 3]
    producer.refuses.clear()
    assert relay.send_waiting() == 2
    assert [one.value for one in producer.sent] == [b"a", b"c", b"b", b"c"]
    assert not store.outbox


def test_a_stopped_relay_has_sent_what_waited() -> None:
    store, producer = store_with((0, b"a")), Producer()
    relay = relay_of(store, producer, 0)
    relay.start()
    relay.stop()
    assert not relay.is_alive() and not store.outbox


def test_a_relay_that_cannot_go_on_says_what_ended_it() -> None:
    """Nobody would send outcomes any more: the worker ends with it."""
    store, producer = store_with((0, b"a")), Producer()
    producer.send = None  # type: ignore[assignment,method-assign]
    relay = relay_of(store, producer, 0)
    relay.start()
    relay.join(5.0)
    assert isinstance(relay.failure, TypeError)
    assert list(store.outbox) == [1]
