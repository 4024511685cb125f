"""The rules of reading activity.v1, written a second time in the plainest way, for the checker alone.

Nothing here is shared with the reader of the platform: not the partitioner, the hashes, the frame or the
judgement of an entry. Only the messages themselves (protos) are the same.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos.events.v1.activity_pb2 import Activity, ActivityFrame
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction, Location

YEAR_2000_MS = 946_684_800_000
YEAR_2100_MS = 4_102_444_800_000
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
WHOLE = -1


class Logged(NamedTuple):
    """One record as Kafka holds it."""

    offset: int
    timestamp_ms: int
    value: bytes | None


class Refused(NamedTuple):
    """An entry, or a whole record (index -1), that must be in rejected.v1 and nowhere else."""

    index: int
    field: str
    payload: bytes


class Step(NamedTuple):
    """What one record brings."""

    offset: int
    recorded_ms: int
    log_time_ms: int  # of the partition, this record included
    entries: list[tuple[str, Activity]]  # user id and entry, in order
    refused: list[Refused]


def steps(records: Sequence[Logged], partition: int, partitions: int) -> Iterator[Step]:
    """Each record of a partition in order, judged."""
    log_time_ms = 0
    for record in records:
        activities = activities_of(record)
        if activities is None:
            refused = [Refused(WHOLE, "", record.value or b"")]
            yield Step(record.offset, record.timestamp_ms, log_time_ms, [], refused)
            continue
        log_time_ms = max(log_time_ms, record.timestamp_ms)
        step = Step(record.offset, record.timestamp_ms, log_time_ms, [], [])
        for index, activity in enumerate(activities):
            field = fault(activity, record.timestamp_ms)
            if field is None and partition_of(user_of(activity), partitions) != partition:
                field = "user_id"
            if field is None:
                step.entries.append((user_of(activity), activity))
            else:
                step.refused.append(Refused(index, field, activity.SerializeToString()))
        yield step


def activities_of(record: Logged) -> list[Activity] | None:
    """The entries of a record; None when it cannot be read as a whole."""
    if record.value is None or len(record.value) > 1024 * 1024:
        return None
    if not YEAR_2000_MS <= record.timestamp_ms < YEAR_2100_MS:
        return None
    try:
        frame = ActivityFrame.FromString(record.value)
    except DecodeError:
        return None
    if frame.schema_version != 1 or len(frame.activities) > 500:
        return None
    return list(frame.activities)


def user_of(activity: Activity) -> str:
    kind = activity.WhichOneof("kind")
    return str(getattr(activity, kind).user_id)


def fault(activity: Activity, recorded_ms: int) -> str | None:
    """The first field at fault; None when the entry is good."""
    kind = activity.WhichOneof("kind")
    if kind == "interaction":
        return interaction_fault(activity.interaction, recorded_ms)
    if kind == "impression":
        return impression_fault(activity.impression, recorded_ms)
    if kind == "forget":
        forget = activity.forget
        return first(
            id_fault("user_id", forget.user_id),
            time_fault("requested_at", forget.HasField("requested_at"), forget.requested_at, recorded_ms),
        )
    return "kind"


def interaction_fault(event: Interaction, recorded_ms: int) -> str | None:
    return first(
        id_fault("event_id", event.event_id),
        id_fault("user_id", event.user_id),
        id_fault("item_id", event.item_id),
        None if 1 <= event.action <= 11 else "action",
        time_fault("occurred_at", event.HasField("occurred_at"), event.occurred_at, recorded_ms),
        "play_ms" if event.HasField("play_ms") and not 0 <= event.play_ms <= DAY_MS else None,
        "duration_ms" if event.HasField("duration_ms") and not 0 <= event.duration_ms <= DAY_MS else None,
        "value_micros" if event.HasField("value_micros") and not 0 <= event.value_micros <= 10**16 else None,
        "currency"
        if event.HasField("value_micros") and re.fullmatch("[A-Z][A-Z][A-Z]", event.currency) is None
        else None,
        location_fault(event.location) if event.HasField("location") else None,
        text_fault("request_id", event.request_id),
        text_fault("surface", event.surface),
        text_fault("session_id", event.session_id),
    )


def impression_fault(shown: Impression, recorded_ms: int) -> str | None:
    slots = []
    for slot in shown.slots:
        slots.append(id_fault("slots.item_id", slot.item_id))
        slots.append(None if -1 <= slot.candidate_index < len(shown.candidates) else "slots.candidate_index")
    return first(
        id_fault("request_id", shown.request_id),
        id_fault("user_id", shown.user_id),
        time_fault("served_at", shown.HasField("served_at"), shown.served_at, recorded_ms),
        location_fault(shown.location) if shown.HasField("location") else None,
        *slots,
        text_fault("surface", shown.surface),
        text_fault("session_id", shown.session_id),
    )


def first(*faults: str | None) -> str | None:
    for one in faults:
        if one is not None:
            return one
    return None


def id_fault(field: str, value: str) -> str | None:
    return field if value == "" else text_fault(field, value)


def text_fault(field: str, value: str) -> str | None:
    return field if len(value.encode()) > 256 or "\x00" in value else None


def time_fault(field: str, present: bool, at: object, recorded_ms: int) -> str | None:
    nanos = at.nanos  # type: ignore[attr-defined]
    if not present or not 0 <= nanos < 1_000_000_000:
        return field
    return field if not YEAR_2000_MS <= milliseconds(at) <= recorded_ms + 5 * MINUTE_MS else None


def location_fault(place: Location) -> str | None:
    if not -90.0 <= place.latitude <= 90.0:
        return "location.latitude"
    if not -180.0 <= place.longitude <= 180.0:
        return "location.longitude"
    return None if 0.0 <= place.accuracy_m < 1e7 else "location.accuracy_m"


def milliseconds(at: object) -> int:
    """Of a protobuf Timestamp."""
    return int(at.seconds) * 1000 + int(at.nanos) // 1_000_000  # type: ignore[attr-defined]


def hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def id_hash(activity: Activity) -> int:
    """The hash that a user's memory of ids keeps of an entry."""
    if activity.HasField("impression"):
        return hash64("impression\x00" + activity.impression.request_id) or 1
    return hash64(activity.interaction.event_id) or 1


def item_number(item_id: str) -> int:
    """The number that rows hold for an item's name."""
    if re.fullmatch("0|[1-9][0-9]{0,18}", item_id) and int(item_id) < 2**62:
        return int(item_id)
    return 2**62 + hash64(item_id) % 2**62


def partition_of(user_id: str, partitions: int) -> int:
    """Kafka's default: murmur2 (Austin Appleby's 32-bit variant, seed 0x9747b28c), sign bit dropped."""
    data = user_id.encode()
    mix, most = 0x5BD1E995, 0xFFFFFFFF
    state = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * mix & most
        word = (word ^ word >> 24) * mix & most
        state = state * mix & most ^ word
    rest = data[whole:]
    if rest:
        state = (state ^ int.from_bytes(rest, "little")) * mix & most
    state = (state ^ state >> 13) * mix & most
    state ^= state >> 15
    return (state & 0x7FFFFFFF) % partitions
