"""A team's existing log becomes the log's prehistory: records below offset zero in the archive.

    nearfeed backfill events-2026-10.parquet events-2026-11.parquet
    nearfeed replay --switch

The rows of all files are sorted by time and packed into frames, which are numbered backwards from -1 in each
partition and archived. Nothing of it goes through Kafka; a replay folds prehistory and log alike. Memory is bounded:
sorted runs on disk, merged from their ends.
"""

import fcntl
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.archive import ArchivedRecord, archived_from, day_of, segments, write_segment
from core.errors import ContractError, InputError, NotReady
from core.frames import SCHEMA_VERSION
from core.partition import partition_of
from core.producer import FRAME_ACTIVITIES
from core.settings import Archive
from core.validation import Fault
from protos.events.v1.activity_pb2 import ActivityFrame
from streams.backfill_rows import Entry, entry_of, read_rows, unused_columns

FRAME_SPAN_MS: Final = 3_600_000  # a frame's time is its newest entry's: its oldest must not count as late
RUN_ROWS: Final = 500_000  # sorted in memory at once
LISTED: Final = 1_000  # invalid rows that a report names; all are counted

_TOLD_ROWS: Final = 10_000
_MARK: Final = "backfill.unfinished"
_LOCK: Final = "backfill.lock"
_SCRATCH: Final = "backfill-"
_RUN: Final = pa.schema(
    [("at_ms", pa.int64()), ("place", pa.int64()), ("user_id", pa.string()), ("activity", pa.binary())]
)


class Invalid(NamedTuple):
    """A row that is not fit for the log."""

    file: Path
    row: int  # from 1
    fault: Fault


class Backfilled(NamedTuple):
    """What became of the files."""

    rows: int
    entries: int  # in the archive now; 0 when nothing was written
    frames: int
    first_ms: int  # times of the first and the last entry; 0 without entries
    last_ms: int
    invalid: int
    by_field: dict[str, int]  # invalid rows by the field at fault
    listed: list[Invalid]  # the first of them
    unused_columns: list[str]


def backfill(
    files: Sequence[Path],
    archive: Archive,
    topic_id: str,
    partitions: int,
    *,
    now_ms: int,
    replace: bool,
    skip_invalid: bool,
    read: Callable[[int], None],
) -> Backfilled:
    """The rows of `files` are the topic's prehistory in the archive; `read` is told of every so many rows.

    Nothing is written when a row is invalid, unless `skip_invalid` leaves those out.

    Raises:
        InputError: a file is not as documented, the archive cannot be written, or there is prehistory already and it
            is not to be replaced.
        NotReady: another backfill runs.
    """
    home = archive.home
    unused = sorted({name for path in files for name in unused_columns(path)})
    with _one_backfill(home / topic_id) as topic_home:
        there = [number for number in range(partitions) if (archived_from(home, topic_id, number) or 0) < 0]
        if (there or (topic_home / _MARK).exists()) and not replace:
            raise InputError(
                f"{topic_home}: found prehistory already, expected none; one backfill makes all of it: name all files, "
                "with --replace"
            )
        for left in topic_home.glob(f"{_SCRATCH}*"):  # of a backfill that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=topic_home) as scratch:
            rows = _Rows(now_ms)
            runs = _sorted_runs(rows.entries(files, read), Path(scratch))
            entries = rows.count - rows.invalid
            done = Backfilled(rows.count, entries, 0, 0, 0, rows.invalid, dict(rows.by_field), rows.listed, unused)
            if rows.invalid and not skip_invalid:
                return done._replace(entries=0)
            (topic_home / _MARK).touch()
            _remove_prehistory(home, topic_id)
            writer = _Writer(archive, topic_id)
            for record in frames_backwards(_merged(runs), partitions):
                writer.add(record)
            writer.write_all()
            (topic_home / _MARK).unlink()
    return done._replace(frames=writer.frames, first_ms=rows.first_ms if entries else 0, last_ms=rows.last_ms)


def refuse_half(home: Path, topic_id: str) -> None:
    """Raise ContractError when the topic's prehistory is being written, or was left half written."""
    if (home / topic_id / _MARK).exists():
        raise ContractError(
            f"{home / topic_id}: found half a backfill, expected all of it; wait for the one that runs, or run "
            "`nearfeed backfill --replace` again"
        )


def frames_backwards(entries: Iterable[Entry], partitions: int) -> Iterator[ArchivedRecord]:
    """The entries (newest first) in frames, each partition's numbered -1, -2, … from its newest frame."""
    filling: dict[int, list[Entry]] = {}
    offsets = dict.fromkeys(range(partitions), 0)

    def full(partition: int) -> ArchivedRecord:
        held = filling.pop(partition)
        offsets[partition] -= 1
        frame = ActivityFrame(schema_version=SCHEMA_VERSION)
        for entry in reversed(held):
            frame.activities.add().ParseFromString(entry.activity)
        return ArchivedRecord(partition, offsets[partition], held[0].at_ms, frame.SerializeToString())

    for entry in entries:
        partition = partition_of(entry.user_id, partitions)
        held = filling.get(partition)
        if held and (len(held) >= FRAME_ACTIVITIES or held[0].at_ms - entry.at_ms > FRAME_SPAN_MS):
            yield full(partition)
        filling.setdefault(partition, []).append(entry)
    for partition in sorted(filling):
        yield full(partition)


class _Rows:
    """Reads files, and keeps what is wrong with their rows."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self.count = 0
        self.invalid = 0
        self.by_field: Counter[str] = Counter()
        self.listed: list[Invalid] = []
        self.first_ms = 0
        self.last_ms = 0

    def entries(self, files: Sequence[Path], read: Callable[[int], None]) -> Iterator[Entry]:
        for path in files:
            rows = enumerate(read_rows(path), start=1)
            while batch := list(islice(rows, _TOLD_ROWS)):
                for number, row in batch:
                    entry = entry_of(row, self._now_ms)
                    if isinstance(entry, Fault):
                        self._set_aside(Invalid(path, number, entry))
                    else:
                        self.first_ms = min(self.first_ms or entry.at_ms, entry.at_ms)
                        self.last_ms = max(self.last_ms, entry.at_ms)
                        yield entry
                self.count += len(batch)
                read(len(batch))

    def _set_aside(self, invalid: Invalid) -> None:
        self.invalid += 1
        self.by_field[invalid.fault.field] += 1
        if len(self.listed) < LISTED:
            self.listed.append(invalid)


class _Writer:
    """Gathers records that come newest first, and writes them as segments."""

    def __init__(self, archive: Archive, topic_id: str) -> None:
        self._archive = archive
        self._topic_id = topic_id
        self._filling: dict[int, list[ArchivedRecord]] = {}
        self._sizes: Counter[int] = Counter()
        self.frames = 0

    def add(self, record: ArchivedRecord) -> None:
        """Take the record before the ones taken so far of its partition."""
        partition = record.partition
        filling = self._filling.setdefault(partition, [])
        if filling and day_of(record.timestamp_ms) != day_of(filling[0].timestamp_ms):
            self._write(partition)
        self._filling.setdefault(partition, []).append(record)
        self._sizes[partition] += len(record.value or b"")
        self.frames += 1
        if (
            len(self._filling[partition]) >= self._archive.segment_records
            or self._sizes[partition] >= self._archive.segment_bytes
        ):
            self._write(partition)

    def write_all(self) -> None:
        """Everything that was taken stands in the archive."""
        for partition in list(self._filling):
            self._write(partition)

    def _write(self, partition: int) -> None:
        write_segment(self._archive.home, self._topic_id, self._filling.pop(partition)[::-1])
        del self._sizes[partition]


def _sorted_runs(entries: Iterator[Entry], scratch: Path) -> list[Path]:
    """The entries in files, each from its newest to its oldest; entries of one time in reverse order of arrival."""
    runs: list[Path] = []
    place = 0
    while held := list(islice(entries, RUN_ROWS)):
        numbered = [(entry.at_ms, place + at, entry.user_id, entry.activity) for at, entry in enumerate(held)]
        place += len(held)
        numbered.sort(reverse=True)
        runs.append(scratch / f"{len(runs)}.parquet")
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*numbered, strict=True), _RUN, strict=True)
        ]
        pq.write_table(pa.Table.from_arrays(columns, schema=_RUN), runs[-1], row_group_size=_TOLD_ROWS)
    return runs


def _merged(runs: Sequence[Path]) -> Iterator[Entry]:
    for at_ms, _, user_id, activity in merge(*map(_run, runs), reverse=True):
        yield Entry(at_ms, user_id, activity)


def _run(path: Path) -> Iterator[tuple[int, int, str, bytes]]:
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            columns = file.read_row_group(number).to_pydict()
            yield from zip(*(columns[name] for name in _RUN.names), strict=True)


def _remove_prehistory(home: Path, topic_id: str) -> None:
    for segment in segments(home, topic_id):
        if segment.first < 0:
            segment.path.unlink()


@contextmanager
def _one_backfill(topic_home: Path) -> Iterator[Path]:
    topic_home.mkdir(parents=True, exist_ok=True)
    with (topic_home / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the process, however it ends
        except BlockingIOError:
            raise NotReady(f"{topic_home}: found another backfill, expected none; wait for its end") from None
        yield topic_home
