"""Records in, chunks of admitted activities out: what the cursor covers is dropped, what is not fit is set aside.

Pure: where a batch ends leaves no trace in the concatenation of its chunks.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from core.errors import FrameError
from core.frames import decode_frame
from core.partition import partition_of
from core.validation import Fault, impression_fault, interaction_fault
from protos.events.v1.activity_pb2 import Activity
from streams.cursor import Cursor, Partition, Record

WHOLE_RECORD: Final = -1
_TIMES_MS: Final = range(946_684_800_000, 4_102_444_800_000)  # 2000 .. 2100: the log's time never turns back, so a
# producer with a broken clock must not move it out of reach


class Admitted(NamedTuple):
    """What one record brings: the activities that may be applied, by user."""

    offset: int
    log_time_ms: int  # the partition's time when the record is applied: the latest record timestamp up to its own
    by_user: dict[str, list[Activity]]  # users in order of their first activity, each one's in order of the log


class Rejection(NamedTuple):
    """One entry, or one whole record, that may not be applied."""

    offset: int
    entry: int  # its place within the frame, or WHOLE_RECORD
    recorded_ms: int
    fault: Fault
    payload: bytes  # the record's value, or the serialized Activity


class Chunk(NamedTuple):
    """What one transaction applies: whole records, because states are rounded once per record."""

    admitted: list[Admitted]
    rejections: list[Rejection]
    recorded_ms: list[int]  # timestamp of every record, heartbeats and rejected ones included
    next_offset: int
    log_time_ms: int

    @property
    def users(self) -> list[str]:
        """Every user of the chunk once, in order of the log."""
        return list(dict.fromkeys(user_id for record in self.admitted for user_id in record.by_user))


def gapless(records: Sequence[Record], next_offset: int) -> int:
    """How many leading records follow `next_offset` without a hole; those before it count as covered."""
    for place, record in enumerate(records):
        if record.offset > next_offset:
            return place
        next_offset = max(next_offset, record.offset + 1)
    return len(records)


def chunks(records: Sequence[Record], cursor: Cursor, partition: Partition, *, limit: int) -> Iterator[Chunk]:
    """What `cursor` does not cover yet of `records` (offsets ascending), about `limit` activities at a time."""
    admitted: list[Admitted] = []
    rejections: list[Rejection] = []
    recorded_ms: list[int] = []
    activities_read = 0
    next_offset, log_time_ms = cursor.next_offset, cursor.log_time_ms
    for record in records:
        if record.offset < next_offset:
            continue
        try:
            activities = _activities(record)
        except FrameError as error:
            activities = ()
            fault = Fault("", str(error))
            rejections.append(Rejection(record.offset, WHOLE_RECORD, record.timestamp_ms, fault, record.value or b""))
        else:
            log_time_ms = max(log_time_ms, record.timestamp_ms)
        by_user: dict[str, list[Activity]] = {}
        for index, activity in enumerate(activities):
            user_id, rejected = _judge(activity, record.timestamp_ms, partition)
            if rejected is None:
                by_user.setdefault(user_id, []).append(activity)
            else:
                payload = activity.SerializeToString()
                rejections.append(Rejection(record.offset, index, record.timestamp_ms, rejected, payload))
        if by_user:
            admitted.append(Admitted(record.offset, log_time_ms, by_user))
        recorded_ms.append(record.timestamp_ms)
        activities_read += len(activities)
        next_offset = record.offset + 1
        if activities_read >= limit:
            yield Chunk(admitted, rejections, recorded_ms, next_offset, log_time_ms)
            admitted, rejections, recorded_ms, activities_read = [], [], [], 0
    if recorded_ms:
        yield Chunk(admitted, rejections, recorded_ms, next_offset, log_time_ms)


def _activities(record: Record) -> Sequence[Activity]:
    if record.timestamp_ms not in _TIMES_MS:
        raise FrameError(
            f"found record timestamp {record.timestamp_ms}, expected milliseconds since 1970 between 2000 and 2100; "
            "set the producer's clock"
        )
    return decode_frame(record.value)


def _judge(activity: Activity, recorded_ms: int, partition: Partition) -> tuple[str, Fault | None]:
    """The user that an activity belongs to, and why it may not be applied (None: it may)."""
    kind = activity.WhichOneof("kind")
    if kind == "interaction":
        user_id = activity.interaction.user_id
        fault = interaction_fault(activity.interaction, recorded_ms)
    elif kind == "impression":
        user_id = activity.impression.user_id
        fault = impression_fault(activity.impression, recorded_ms)
    else:
        return "", Fault("kind", "found neither interaction nor impression, expected one; update the reader")
    if fault is None and partition_of(user_id, partition.partitions) != partition.number:
        fault = Fault(
            "user_id",
            f"found in partition {partition.number}, expected in {partition_of(user_id, partition.partitions)}; "
            "the producer must partition by murmur2 of user_id",
        )
    return user_id, fault
