"""Writing to Kafka: activities in frames, and single records for every other topic.

kafka-python's producer is thread-based and retries by itself with idempotence on, so order within a
partition holds; every send resolves within `timeout_ms`, acknowledged by all replicas or failed.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.transaction_manager import TransactionState

from core.backlog import Backlog
from core.errors import BrokerUnavailable, ContractError, InputError, Overloaded, TooLarge
from core.frames import MAX_FRAME_BYTES, encode_frame
from core.partition import partition_of
from core.settings import Kafka
from core.topics import ACTIVITY
from core.validation import interaction_fault
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Interaction

FRAME_ACTIVITIES: Final = 100  # per-record cost is shared well enough; a rejected frame stays small
MAX_UNSETTLED_BYTES: Final = 32 << 20  # of activities not yet acknowledged; kafka-python itself keeps no bound
_CLOSE_S: Final = 1.0
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
    _outlive_lost_batches(producer)
    return producer


def _outlive_lost_batches(producer: KafkaProducer) -> None:
    """Afterwards the producer goes on when a batch that was sent before has run out of its time.

    kafka-python 3.0.12 then gives up its producer id, as it must, but its state still says that it has one: it never
    asks for another, and every later send waits for ever. A broker that is away for longer than `timeout_ms` is enough.
    """
    ids = getattr(producer, "_transaction_manager", None)
    if ids is None:
        return
    give_up = ids.reset_producer_id

    def give_up_and_ask_anew() -> None:
        give_up()
        ids._current_state = TransactionState.UNINITIALIZED

    ids.reset_producer_id = give_up_and_ask_anew


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
    """Packs activities of one partition into frames and sends them. Thread safe; close it, or use it in a `with`.

        with ActivityProducer(load().kafka, linger_ms=20, timeout_ms=10_000) as producer:
            kept = producer.send_event(event, clock.now_ms())
            ...
        kept.result()  # where the event stands in the log

    A frame leaves when it holds FRAME_ACTIVITIES, when it is large, or `linger_ms` after its first
    entry. Entries of one user keep their order. The record's timestamp is the latest of its entries.
    Each entry has a future of its own, which ends within about `timeout_ms` of its frame leaving. Callbacks of these
    futures run on Kafka's thread: they must neither wait nor send.
    """

    def __init__(self, kafka: Kafka, *, linger_ms: int, timeout_ms: int) -> None:
        self._producer = make_producer(kafka, timeout_ms=timeout_ms)
        self._partitions = kafka.activity_partitions
        self._linger_s = linger_ms / 1000.0
        self._timeout_s = timeout_ms / 1000.0
        self._frames: dict[int, _Frame] = {}
        self._unsettled = Backlog(MAX_UNSETTLED_BYTES)
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._closed = False
        self._flusher = threading.Thread(target=self._flush_when_due, name="frame-flusher", daemon=True)
        self._flusher.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(self._timeout_s)

    def send_event(self, event: Interaction, now_ms: int) -> "Future[Acknowledged]":
        """Hand over what a person did, judged first as every reader of the log will judge it.

        Raises:
            InputError: the event would be rejected; the message names the field and the next step.
            TooLarge, Overloaded, BrokerUnavailable: as `send`.
        """
        fault = interaction_fault(event, now_ms)
        if fault is not None:
            raise InputError(f"{fault.field}: {fault.reason}")
        return self.send(Activity(interaction=event), event.user_id, now_ms)

    def send(self, activity: Activity, user_id: str, timestamp_ms: int) -> "Future[Acknowledged]":
        """Hand over one activity; the future resolves after acks=all or fails with BrokerUnavailable.

        Waits while MAX_UNSETTLED_BYTES wait for the broker.

        Raises:
            TooLarge: the activity does not fit into a frame.
            Overloaded: no room within the producer's timeout.
            BrokerUnavailable: the producer is closed.
        """
        size = activity.ByteSize()
        if size > _FRAME_BYTES:
            raise TooLarge(f"found an activity of {size} bytes, expected at most {_FRAME_BYTES}; send a smaller one")
        partition = partition_of(user_id, self._partitions)
        waiting: Future[Acknowledged] = Future()
        waiting.set_running_or_notify_cancel()
        if not self._unsettled.take(size, self._timeout_s):
            raise Overloaded(
                f"found no room among {MAX_UNSETTLED_BYTES} bytes that wait for the broker, expected some within "
                f"{self._timeout_s:g} s; send again later, event ids make it safe"
            )
        with self._lock:
            if self._closed:
                self._unsettled.give_back(1, size)
                raise BrokerUnavailable("the producer is closed; make a new one")
            frame = self._frames.get(partition)
            if frame is None:
                frame = self._frames[partition] = _Frame(time.monotonic() + self._linger_s)
                self._wake.notify()
            frame.add(activity, size, timestamp_ms, waiting)
            full = len(frame.activities) >= FRAME_ACTIVITIES or frame.size >= _FRAME_BYTES
            sent = [self._send(partition)] if full else []
        self._follow(sent)
        return waiting

    def flush(self, timeout_s: float) -> None:
        """Everything handed over before has left, and its future has ended.

        Raises:
            BrokerUnavailable: not within `timeout_s`; futures that have not ended still will.
        """
        with self._lock:
            sent = [self._send(partition) for partition in list(self._frames)]
        self._follow(sent)
        left = self._unsettled.wait(timeout_s)
        if left:
            raise BrokerUnavailable(
                f"{ACTIVITY}: {left} activities were not acknowledged within {timeout_s:g} s; "
                "send again what has no result, event ids make it safe"
            )

    def close(self, timeout_s: float) -> None:
        """Send what waits, let acknowledgements arrive for at most `timeout_s`, and stop.

        Raises:
            BrokerUnavailable: not everything was acknowledged; the futures tell what was.
        """
        with self._lock:
            self._closed = True
            self._wake.notify()
        self._flusher.join(timeout_s)
        try:
            self.flush(timeout_s)
        finally:
            with suppress(KafkaError):  # it does not close while a batch is in flight; its thread ends with the process
                self._producer.close(timeout=_CLOSE_S)

    def _flush_when_due(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                now = time.monotonic()
                sent = [self._send(partition) for partition, frame in list(self._frames.items()) if frame.due <= now]
                if not sent:
                    next_due = min((frame.due for frame in self._frames.values()), default=None)
                    self._wake.wait(None if next_due is None else max(0.0, next_due - time.monotonic()))
            self._follow(sent)

    def _send(self, partition: int) -> "_Sent":
        # With the lock held: two threads must not swap the order of two frames of a partition.
        frame = self._frames.pop(partition)
        sent = send_record(
            self._producer,
            ACTIVITY,
            encode_frame(frame.activities),
            partition=partition,
            timestamp_ms=frame.timestamp_ms,
        )
        return _Sent(frame, sent)

    def _follow(self, sent: "Sequence[_Sent]") -> None:
        # Without the lock: a frame that failed at once ends its futures here, and whoever waits may send again.
        for frame, future in sent:
            future.add_done_callback(partial(self._settle, frame))

    def _settle(self, frame: "_Frame", done: "Future[Acknowledged]") -> None:
        error = done.exception()
        for future in frame.waiting:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result())
        self._unsettled.give_back(len(frame.waiting), frame.size)


class _Sent(NamedTuple):
    frame: "_Frame"
    future: "Future[Acknowledged]"


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


def _unavailable(topic: str, error: Any) -> BrokerUnavailable:
    return BrokerUnavailable(f"{topic}: the broker did not acknowledge ({error!r}); send again, event ids make it safe")
