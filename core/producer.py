"""Writing to Kafka: activities in frames, and single records for every other topic.

kafka-python's producer is thread-based and retries by itself with idempotence on, so order within a
partition holds; every send resolves within `timeout_ms`, acknowledged by all replicas or failed.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Protocol

from kafka import KafkaProducer
from kafka.errors import KafkaError

from core.errors import BrokerUnavailable, ContractError, TooLarge
from core.frames import MAX_FRAME_BYTES, encode_frame
from core.partition import partition_of
from core.settings import Kafka
from core.topics import ACTIVITY
from protos.events.v1.activity_pb2 import Activity

FRAME_ACTIVITIES: Final = 100  # per-record cost is shared well enough; a rejected frame stays small
_FRAME_BYTES: Final = MAX_FRAME_BYTES // 4  # a full frame; also the largest activity, so none outgrows MAX_FRAME_BYTES


class Acknowledged(NamedTuple):
    """Where a record stands after acks=all."""

    partition: int
    offset: int
    monotonic_s: float  # when the broker's acknowledgement arrived


class ActivitySink(Protocol):
    """Takes activities for activity.v1; `ActivityProducer` is the real one."""

    def send(self, activity: Activity, user_id: str, timestamp_ms: int) -> "Future[Acknowledged]":
        """Hand over one activity; the future resolves after acks=all or fails with BrokerUnavailable."""


def make_producer(kafka: Kafka, *, timeout_ms: int, linger_ms: int = 0) -> KafkaProducer:
    """A connected producer that acknowledges by all replicas, within `timeout_ms`.

    Raises:
        BrokerUnavailable: no broker answered; the message names the address.
    """
    try:
        producer = KafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers.split(","),
            acks="all",
            linger_ms=linger_ms,
            batch_size=_FRAME_BYTES,
            max_request_size=2 * MAX_FRAME_BYTES,
            request_timeout_ms=min(kafka.request_timeout_ms, timeout_ms),
            delivery_timeout_ms=timeout_ms + linger_ms,
            max_block_ms=timeout_ms,
            bootstrap_timeout_ms=kafka.request_timeout_ms,
            reconnect_backoff_max_ms=1000,
            allow_auto_create_topics=False,
        )
    except KafkaError as error:
        raise BrokerUnavailable(
            f"no Kafka broker answered at {kafka.bootstrap_servers} ({type(error).__name__}); "
            "start it (`nearfeed up`) or set NEARFEED_KAFKA__BOOTSTRAP_SERVERS"
        ) from None
    return producer


def send_record(
    producer: KafkaProducer,
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    partition: int | None = None,
    timestamp_ms: int | None = None,
) -> "Future[Acknowledged]":
    """Send one record; the future resolves after acks=all or fails with BrokerUnavailable."""
    acknowledged: Future[Acknowledged] = Future()
    acknowledged.set_running_or_notify_cancel()
    try:
        sent = producer.send(topic, value=value, key=key, partition=partition, timestamp_ms=timestamp_ms)
    except KafkaError as error:
        acknowledged.set_exception(_unavailable(topic, error))
        return acknowledged
    except ValueError as error:  # kafka-python's word for a partition that the topic does not have
        acknowledged.set_exception(
            ContractError(f"{topic}: {error}; make kafka.activity_partitions what the topic has")
        )
        return acknowledged
    sent.add_callback(lambda meta: acknowledged.set_result(Acknowledged(meta.partition, meta.offset, time.monotonic())))
    sent.add_errback(lambda error: acknowledged.set_exception(_unavailable(topic, error)))
    return acknowledged


class ActivityProducer:
    """Packs activities of one partition into frames and sends them.

    A frame leaves when it holds FRAME_ACTIVITIES, when it is large, or `linger_ms` after its first
    entry. Entries of one user keep their order. The record's timestamp is the latest of its entries.
    """

    def __init__(self, kafka: Kafka, *, linger_ms: int, timeout_ms: int) -> None:
        self._producer = make_producer(kafka, timeout_ms=timeout_ms)
        self._partitions = kafka.activity_partitions
        self._linger_s = linger_ms / 1000.0
        self._frames: dict[int, _Frame] = {}
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._closed = False
        self._flusher = threading.Thread(target=self._flush_when_due, name="frame-flusher", daemon=True)
        self._flusher.start()

    def send(self, activity: Activity, user_id: str, timestamp_ms: int) -> "Future[Acknowledged]":
        """Hand over one activity; the future resolves after acks=all or fails with BrokerUnavailable."""
        size = activity.ByteSize()
        if size > _FRAME_BYTES:
            raise TooLarge(f"found an activity of {size} bytes, expected at most {_FRAME_BYTES}")
        partition = partition_of(user_id, self._partitions)
        waiting: Future[Acknowledged] = Future()
        waiting.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise BrokerUnavailable("the producer is closed; make a new one")
            frame = self._frames.get(partition)
            if frame is None:
                frame = self._frames[partition] = _Frame(time.monotonic() + self._linger_s)
                self._wake.notify()
            frame.add(activity, size, timestamp_ms, waiting)
            if len(frame.activities) >= FRAME_ACTIVITIES or frame.size >= _FRAME_BYTES:
                self._send(partition, self._frames.pop(partition))
        return waiting

    def close(self, timeout_s: float) -> None:
        """Send what waits, let acknowledgements arrive for at most `timeout_s`, and stop."""
        with self._lock:
            self._closed = True
            for partition in list(self._frames):
                self._send(partition, self._frames.pop(partition))
            self._wake.notify()
        self._flusher.join(timeout_s)
        self._producer.close(timeout=timeout_s)

    def _flush_when_due(self) -> None:
        with self._lock:
            while not self._closed:
                now = time.monotonic()
                for partition in [p for p, frame in self._frames.items() if frame.due <= now]:
                    self._send(partition, self._frames.pop(partition))
                next_due = min((frame.due for frame in self._frames.values()), default=None)
                self._wake.wait(None if next_due is None else max(0.0, next_due - time.monotonic()))

    def _send(self, partition: int, frame: "_Frame") -> None:
        # Called with the lock held: two threads must not swap the order of two frames of a partition.
        sent = send_record(
            self._producer,
            ACTIVITY,
            encode_frame(frame.activities),
            partition=partition,
            timestamp_ms=frame.timestamp_ms,
        )
        sent.add_done_callback(lambda done: _settle(frame.waiting, done))


class _Frame:
    """A frame being filled."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.activities: list[Activity] = []
        self.waiting: list[Future[Acknowledged]] = []
        self.size = 0
        self.timestamp_ms = 0

    def add(self, activity: Activity, size: int, timestamp_ms: int, waiting: "Future[Acknowledged]") -> None:
        self.activities.append(activity)
        self.waiting.append(waiting)
        self.size += size
        self.timestamp_ms = max(self.timestamp_ms, timestamp_ms)


def _settle(waiting: "Sequence[Future[Acknowledged]]", done: "Future[Acknowledged]") -> None:
    error = done.exception()
    for future in waiting:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())


def _unavailable(topic: str, error: Any) -> BrokerUnavailable:
    return BrokerUnavailable(f"{topic}: the broker did not acknowledge ({error!r}); send again, event ids make it safe")
