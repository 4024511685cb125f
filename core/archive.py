"""The log on disk, beyond the topic's retention: Parquet segments by topic id, day and partition.

    <home>/<topic id>/day=2026-11-21/partition=3/1200-1899.parquet

A segment holds every record of a partition between its first and its last offset. Its day is the newest of its
records' timestamps (UTC): a record that was stamped earlier than its neighbours stays with them. Offsets below
zero are prehistory: what was brought in from an older log, before the topic's first record.

A segment is written aside, synced and renamed, so a reader sees all of it or nothing, and a crash leaves no trace.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.clock import as_datetime
from core.errors import ContractError, InputError

COLUMNS: Final = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("value", pa.binary()),  # the record's value as it is; null where it had none
    ]
)
GROUP_RECORDS: Final = 1_000  # of one row group: what a reader holds at once
GROUP_BYTES: Final = 4 << 20

_NAME: Final = re.compile(r"(-?\d+)-(-?\d+)\.parquet")
_SCRUBBED: Final = b"nearfeed.scrubbed"
_UNFINISHED: Final = "unfinished.parquet"
_WRITE_LOCK: Final = "write.lock"
_LAST_DAY_MS: Final = 4_102_444_800_000  # 2100: a broken clock must not name a folder


class ArchivedRecord(NamedTuple):
    """One record of the log. The fields are the columns of a segment."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None


class Segment(NamedTuple):
    """One file of the archive. Sorted, segments are in the order in which a partition is read."""

    partition: int
    first: int  # offset of its first record
    last: int
    day: str  # e.g. "2026-11-21"
    path: Path


def day_of(timestamp_ms: int) -> str:
    """The UTC day of a record timestamp; what lies outside 1970 .. 2100 counts as the nearer end."""
    return as_datetime(min(max(timestamp_ms, 0), _LAST_DAY_MS)).date().isoformat()


def topic_ids(home: Path) -> list[str]:
    """The topics that the archive holds, one id for each time that a topic was made."""
    return sorted(folder.name for folder in home.iterdir() if folder.is_dir()) if home.is_dir() else []


def segments(home: Path, topic_id: str, *, partition: int | None = None) -> list[Segment]:
    """The segments of one partition, or of all, by partition and first offset. Empty where nothing is archived."""
    chosen = "*" if partition is None else str(partition)
    found = []
    for path in (home / topic_id).glob(f"day=*/partition={chosen}/*.parquet"):
        name = _NAME.fullmatch(path.name)
        if name is not None:
            number, day = (folder.name.partition("=")[2] for folder in (path.parent, path.parent.parent))
            found.append(Segment(int(number), int(name[1]), int(name[2]), day, path))
    return sorted(found)


def days(home: Path, topic_id: str) -> list[str]:
    """The days that have a segment, ascending."""
    return sorted({segment.day for segment in segments(home, topic_id)})


def archived_from(home: Path, topic_id: str, partition: int) -> int | None:
    """The first archived offset of the partition, below zero where there is prehistory; None without a segment."""
    return min((segment.first for segment in segments(home, topic_id, partition=partition)), default=None)


def archived_until(home: Path, topic_id: str, partition: int) -> int:
    """The first offset that the archive does not hold yet; 0 where it holds nothing of the topic."""
    return max((segment.last + 1 for segment in segments(home, topic_id, partition=partition)), default=0)


def read_archive(
    home: Path, topic_id: str, *, partition: int, from_offset: int | None = None, until_ms: int | None = None
) -> Iterator[ArchivedRecord]:
    """The archived records of a partition, ascending by offset, each once however segments overlap.

    From `from_offset` on, else from the very first, prehistory included; those stamped later than `until_ms` are
    left out. Holds one row group in memory.

    Raises:
        ContractError: a file is not a segment.
    """
    next_offset = from_offset
    for segment in segments(home, topic_id, partition=partition):
        yield from read_segment(segment, from_offset=next_offset, until_ms=until_ms)
        next_offset = segment.last + 1 if next_offset is None else max(next_offset, segment.last + 1)


def read_segment(
    segment: Segment, *, from_offset: int | None = None, until_ms: int | None = None
) -> Iterator[ArchivedRecord]:
    """The records of one segment, ascending by offset; what is outside both bounds is left out.

    Raises:
        ContractError: the file is not a segment.
    """
    if from_offset is not None and segment.last < from_offset:
        return
    with _opened(segment.path) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            offsets, timestamps = (group.column(COLUMNS.get_field_index(name)).statistics for name in _BOUNDED)
            if (from_offset is not None and offsets.max < from_offset) or (
                until_ms is not None and timestamps.min > until_ms
            ):
                continue
            columns = file.read_row_group(number).to_pydict()
            for record in map(ArchivedRecord._make, zip(*(columns[name] for name in COLUMNS.names), strict=True)):
                if (from_offset is None or record.offset >= from_offset) and (
                    until_ms is None or record.timestamp_ms <= until_ms
                ):
                    yield record


def was_scrubbed(segment: Segment) -> bool:
    """Whether entries of forgotten users were taken out of the segment, or left out when it was written.

    Raises:
        ContractError: the file is not a segment.
    """
    with _opened(segment.path) as file:
        return _SCRUBBED in (file.schema_arrow.metadata or {})


def write_segment(home: Path, topic_id: str, records: Sequence[ArchivedRecord], *, scrubbed: bool = False) -> Segment:
    """A new segment stands and is on disk; `records` are of one partition, ascending by offset, at least one.

    `scrubbed`: entries of forgotten users are left out of them, and the segment says so.

    Raises:
        InputError: the archive cannot be written.
    """
    first, last = records[0], records[-1]
    day = max(day_of(record.timestamp_ms) for record in records)
    folder = home / topic_id / f"day={day}" / f"partition={first.partition}"
    path = folder / f"{first.offset}-{last.offset}.parquet"
    _write(home / topic_id, path, records, scrubbed)
    return Segment(first.partition, first.offset, last.offset, day, path)


def rewrite_segment(home: Path, topic_id: str, segment: Segment, records: Iterable[ArchivedRecord]) -> None:
    """The segment holds `records` instead: those that it had, without entries of forgotten users. It says so.

    Raises:
        InputError: the archive cannot be written.
    """
    _write(home / topic_id, segment.path, records, True)


_BOUNDED: Final = ("offset", "timestamp_ms")  # columns with statistics, by which row groups are passed over


def _write(topic_home: Path, path: Path, records: Iterable[ArchivedRecord], scrubbed: bool) -> None:
    schema = COLUMNS.with_metadata({_SCRUBBED: b"1"}) if scrubbed else COLUMNS
    try:
        topic_home.mkdir(parents=True, exist_ok=True)
        with _one_writer(topic_home):
            aside = topic_home / _UNFINISHED
            with aside.open("wb") as file:
                with pq.ParquetWriter(
                    file, schema, compression="zstd", use_dictionary=False, write_statistics=list(_BOUNDED)
                ) as writer:
                    for group in _groups(records):
                        writer.write_table(pa.Table.from_pylist([record._asdict() for record in group], schema))
                file.flush()
                os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(path)
            for folder in (path.parent, path.parent.parent, topic_home):
                _sync(folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room or rights there, or set archive.home"
        ) from None


def _groups(records: Iterable[ArchivedRecord]) -> Iterator[list[ArchivedRecord]]:
    group: list[ArchivedRecord] = []
    size = 0
    for record in records:
        group.append(record)
        size += len(record.value or b"")
        if len(group) >= GROUP_RECORDS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _one_writer(topic_home: Path) -> Iterator[None]:
    """Writers of one topic's archive go one after another: they share the file that is written aside."""
    with (topic_home / _WRITE_LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, also by a crash
        yield


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.remove_metadata() != COLUMNS:
                raise pa.ArrowInvalid(f"columns {', '.join(file.schema_arrow.names)}")
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ContractError(f"{path}: expected a segment of the archive, found {reason}; restore the file") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
