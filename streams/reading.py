"""Records in, chunks of admitted activities out: what the cursor covers is dropped, what is not fit is set aside.

Pure: where a batch ends leaves no trace in the concatenation of its chunks.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Final, NamedTuple

from core.errors import FrameError
from core.validation import Fault
from feature_repo.admission import UNKNOWN_KIND, activities_of, fault_of
from feature_repo.folds import context as folds
from feature_repo.folds.entries import LogEntry, message_of
from protos.events.v1.activity_pb2 import Activity
from streams.cursor import Cursor, Partition, Record

WHOLE_RECORD: Final = -1


class Rejection(NamedTuple):
    """One entry, or one whole record, that may not be applied."""

    offset: int
    entry: int  # its place within the frame, or WHOLE_RECORD
    recorded_ms: int
    fault: Fault
    payload: bytes  # the record's value, or the serialized Activity


class Chunk(NamedTuple):
    """What one transaction applies: whole records, so that a cursor is an offset."""

    entries: list[LogEntry]  # those that may be applied, in order of the log
    rejections: list[Rejection]
    recorded_ms: list[int]  # timestamp of every record, heartbeats and rejected ones included
    next_offset: int
    log_time_ms: int


def gapless(records: Sequence[Record], next_offset: int) -> int:
    """How many leading records follow `next_offset` without a hole; those before it count as covered."""
    for place, record in enumerate(records):
        if record.offset > next_offset:
            return place
        next_offset = max(next_offset, record.offset + 1)
    return len(records)


def chunks(
    records: Sequence[Record], cursor: Cursor, partition: Partition, *, limit: int, known: Container[str] = ()
) -> Iterator[Chunk]:
    """What `cursor` does not cover yet of `records` (offsets ascending), about `limit` activities at a time.

    `known` holds users who are sure to belong to the partition.
    """
    entries: list[LogEntry] = []
    rejections: list[Rejection] = []
    recorded_ms: list[int] = []
    activities_read = 0
    next_offset, log_time_ms = cursor.next_offset, cursor.log_time_ms
    for record in records:
        if record.offset < next_offset:
            continue
        try:
            activities: Sequence[Activity] = activities_of(record.value, record.timestamp_ms)
        except FrameError as error:
            activities = ()
            fault = Fault("", str(error))
            rejections.append(Rejection(record.offset, WHOLE_RECORD, record.timestamp_ms, fault, record.value or b""))
        else:
            log_time_ms = max(log_time_ms, record.timestamp_ms)
        where = folds.Record(partition.number, record.offset, log_time_ms, record.timestamp_ms)
        for index, activity in enumerate(activities):
            message = message_of(activity)
            rejected: Fault | None = UNKNOWN_KIND
            if message is not None:
                rejected = fault_of(message, record.timestamp_ms, partition.number, partition.partitions, known)
            if message is not None and rejected is None:
                entries.append(LogEntry(where, message.user_id, message))
            elif rejected is not None:
                payload = activity.SerializeToString()
                rejections.append(Rejection(record.offset, index, record.timestamp_ms, rejected, payload))
        recorded_ms.append(record.timestamp_ms)
        activities_read += len(activities)
        next_offset = record.offset + 1
        if activities_read >= limit:
            yield Chunk(entries, rejections, recorded_ms, next_offset, log_time_ms)
            entries, rejections, recorded_ms, activities_read = [], [], [], 0
    if recorded_ms:
        yield Chunk(entries, rejections, recorded_ms, next_offset, log_time_ms)
