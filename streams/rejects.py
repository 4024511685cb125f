"""What could not be applied: into rejected.v1 whole, listed from there, and back into activity.v1.

nearfeed rejects list --limit 20
nearfeed rejects replay 17 18
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from core.clock import Clock
from core.errors import BrokerUnavailable, FrameError, InputError
from core.frames import decode_frame
from core.producer import ActivityProducer, ActivitySink
from core.settings import Settings
from core.topics import REJECTED
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.rejected_pb2 import Rejected
from streams.cursor import Partition
from streams.reading import WHOLE_RECORD, Rejection

MAX_PAYLOAD_BYTES: Final = 3 << 19  # what one produced record can carry beside the rest of the message
_PARTITION: Final = 0  # rejected.v1 has one
_REPLAY_LINGER_MS: Final = 5


class Listed(NamedTuple):
    """One record of rejected.v1."""

    offset: int
    rejected: Rejected


class Replayed(NamedTuple):
    """What became of one chosen reject."""

    offset: int  # in rejected.v1
    activities: int  # sent back to activity.v1 and acknowledged
    refused: str  # why nothing was sent; empty = sent


def rejected_message(rejection: Rejection, partition: Partition) -> Rejected:
    """The value of rejected.v1. A payload too large to travel is cut, and the reason then says where it is whole."""
    reason, payload = rejection.fault.reason, rejection.payload
    if len(payload) > MAX_PAYLOAD_BYTES:
        reason += f" (first {MAX_PAYLOAD_BYTES} of {len(payload)} bytes kept here; the record itself is whole)"
        payload = payload[:MAX_PAYLOAD_BYTES]
    message = Rejected(
        topic=partition.topic,
        partition=partition.number,
        offset=rejection.offset,
        index=rejection.entry,
        field=rejection.fault.field,
        reason=reason,
        payload=payload,
    )
    message.recorded_at.FromMilliseconds(min(max(rejection.recorded_ms, 0), _LAST_TIMESTAMP_MS))
    return message


def list_rejects(settings: Settings, *, start: int | None = None, limit: int = 100) -> list[Listed]:
    """At most `limit` records of rejected.v1 in order: from offset `start`, or the newest ones.

    Raises:
        BrokerUnavailable: no broker answered in time.
    """
    at = TopicPartition(REJECTED, _PARTITION)
    timeout_ms = settings.kafka.request_timeout_ms
    try:
        with _consumer(settings) as consumer:
            consumer.assign([at])
            first = consumer.beginning_offsets([at], timeout_ms=timeout_ms)[at]
            end = consumer.end_offsets([at], timeout_ms=timeout_ms)[at]
            position = max(first, end - limit if start is None else start)
            consumer.seek(at, position)
            return _read(consumer, min(end, position + limit), timeout_ms)
    except KafkaError as error:
        raise _unavailable(settings, error) from None


def replay_rejects(settings: Settings, offsets: Iterable[int], *, clock: Clock) -> list[Replayed]:
    """The activities of the rejects at `offsets` stand in activity.v1 again, stamped with the clock's present.

    Event ids make a second replay harmless. What is still not readable is refused, not sent.

    Raises:
        InputError: there is no reject at an offset.
        BrokerUnavailable: no broker answered in time.
    """
    chosen = [_one(settings, offset) for offset in sorted(set(offsets))]
    timeout_s = settings.kafka.request_timeout_ms / 1000.0
    producer = ActivityProducer(
        settings.kafka, linger_ms=_REPLAY_LINGER_MS, timeout_ms=settings.kafka.request_timeout_ms
    )
    try:
        return [replay(listed, producer, clock, timeout_s) for listed in chosen]
    finally:
        producer.close(timeout_s)


def readable(rejected: Rejected) -> Sequence[Activity]:
    """The activities inside a reject.

    Raises:
        FrameError: the payload is still not what this version can read.
    """
    if rejected.index == WHOLE_RECORD:
        return decode_frame(rejected.payload)
    try:
        return [Activity.FromString(rejected.payload)]
    except DecodeError as error:
        raise FrameError(f"found {len(rejected.payload)} bytes that are not an Activity ({error})") from None


def replay(listed: Listed, sink: ActivitySink, clock: Clock, timeout_s: float) -> Replayed:
    """One reject's activities are acknowledged by `sink`, or the reason why none was sent."""
    try:
        activities = readable(listed.rejected)
    except FrameError as error:
        return Replayed(listed.offset, 0, str(error))
    users = [_user_of(activity) for activity in activities]
    if not all(users):
        return Replayed(listed.offset, 0, "found an activity without user_id, expected one; nothing can partition it")
    waiting = [sink.send(activity, user, clock.now_ms()) for activity, user in zip(activities, users, strict=True)]
    for future in waiting:
        future.result(timeout_s)
    return Replayed(listed.offset, len(waiting), "")


def _user_of(activity: Activity) -> str:
    kind = activity.WhichOneof("kind")
    return str(getattr(activity, kind).user_id) if kind else ""


def _one(settings: Settings, offset: int) -> Listed:
    found = list_rejects(settings, start=offset, limit=1)
    if not found or found[0].offset != offset:
        raise InputError(f"found no reject at offset {offset} of {REJECTED}; `nearfeed rejects list` shows them")
    return found[0]


def _read(consumer: KafkaConsumer, end: int, timeout_ms: int) -> list[Listed]:
    listed: list[Listed] = []
    at = TopicPartition(REJECTED, _PARTITION)
    while consumer.position(at, timeout_ms=timeout_ms) < end:
        polled = consumer.poll(timeout_ms=timeout_ms)
        if not polled:
            break
        for record in polled[at]:
            if record.offset < end:
                listed.append(Listed(record.offset, _decoded(record.value)))
    return listed


def _decoded(value: bytes | None) -> Rejected:
    """The message of a record; of one that is none, a reject that says so: a listing must not stop at it."""
    try:
        return Rejected.FromString(value or b"")
    except DecodeError:
        return Rejected(index=WHOLE_RECORD, reason=f"found {len(value or b'')} bytes that are not a Rejected message")


def _consumer(settings: Settings) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers.split(","),
        enable_auto_commit=False,
        bootstrap_timeout_ms=settings.kafka.request_timeout_ms,
    )


def _unavailable(settings: Settings, error: KafkaError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{REJECTED}: no Kafka broker answered at {settings.kafka.bootstrap_servers} ({type(error).__name__}); "
        "start it (`nearfeed up`) or set NEARFEED_KAFKA__BOOTSTRAP_SERVERS"
    )


_LAST_TIMESTAMP_MS: Final = 253_402_300_799_999  # protobuf's Timestamp ends with the year 9999
