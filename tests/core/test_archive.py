"""Laws of the archive on disk: what was written is read once and in order, and half a segment is none."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import archive
from core.archive import (
    ArchivedRecord,
    archived_from,
    archived_until,
    day_of,
    days,
    read_archive,
    read_segment,
    rewrite_segment,
    segments,
    topic_ids,
    was_scrubbed,
    write_segment,
)
from core.errors import ContractError, InputError

TOPIC = "topic-id"
NOON_MS = 1_700_049_600_000  # 2023-11-15 12:00 UTC
DAY_MS = 86_400_000

VALUES = st.none() | st.binary(max_size=20)
LOGS = st.lists(st.tuples(st.integers(1, 3), st.integers(-DAY_MS, DAY_MS), VALUES), min_size=1, max_size=40).map(
    lambda steps: [
        ArchivedRecord(2, -5 + sum(step for step, _, _ in steps[: at + 1]), NOON_MS + drift, value)
        for at, (_, drift, value) in enumerate(steps)
    ]
)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "GROUP_RECORDS", 4)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def log(*offsets: int, partition: int = 0, at_ms: int = NOON_MS) -> list[ArchivedRecord]:
    return [ArchivedRecord(partition, offset, at_ms + offset, b"value %d" % offset) for offset in offsets]


@given(log=LOGS, data=st.data())
def test_what_was_written_is_read_once_and_in_order(log: list[ArchivedRecord], data: st.DataObject) -> None:
    """Also when segments overlap: each holds the whole log of its range."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        covered = 0
        while covered < len(log):
            start = data.draw(st.integers(0, covered))
            end = data.draw(st.integers(covered + 1, len(log)))
            write_segment(home, TOPIC, log[start:end])
            covered = end
        assert list(read_archive(home, TOPIC, partition=2)) == log
        assert archived_from(home, TOPIC, 2) == log[0].offset
        assert archived_until(home, TOPIC, 2) == log[-1].offset + 1
        start_at = data.draw(st.integers(-6, log[-1].offset + 1))
        until_ms = NOON_MS + data.draw(st.integers(-DAY_MS, DAY_MS))
        expected = [record for record in log if record.offset >= start_at and record.timestamp_ms <= until_ms]
        assert list(read_archive(home, TOPIC, partition=2, from_offset=start_at, until_ms=until_ms)) == expected


def test_partitions_and_topics_stand_apart(home: Path) -> None:
    write_segment(home, TOPIC, log(0, 1, partition=1))
    write_segment(home, TOPIC, log(0, 1, 2, partition=10))
    write_segment(home, "another", log(0, partition=1))
    assert [record.offset for record in read_archive(home, TOPIC, partition=1)] == [0, 1]
    assert list(read_archive(home, TOPIC, partition=0)) == []
    assert (archived_until(home, TOPIC, 10), archived_until(home, TOPIC, 0)) == (3, 0)
    assert topic_ids(home) == ["another", TOPIC]


def test_nothing_archived_is_empty_and_no_error(home: Path) -> None:
    assert (topic_ids(home), segments(home, TOPIC), days(home, TOPIC)) == ([], [], [])
    assert (archived_from(home, TOPIC, 0), archived_until(home, TOPIC, 0)) == (None, 0)
    assert list(read_archive(home, TOPIC, partition=0)) == []


def test_prehistory_comes_before_the_first_offset(home: Path) -> None:
    write_segment(home, TOPIC, log(0, 1))
    write_segment(home, TOPIC, log(-3, -2, -1))
    assert [record.offset for record in read_archive(home, TOPIC, partition=0)] == [-3, -2, -1, 0, 1]
    assert archived_from(home, TOPIC, 0) == -3
    write_segment(home, "other", log(-3, -2, -1))
    assert archived_until(home, "other", 0) == 0


def test_the_day_is_that_of_the_newest_record(home: Path) -> None:
    written = write_segment(home, TOPIC, [*log(0), *log(1, at_ms=NOON_MS + DAY_MS), *log(2)])
    assert written.day == "2023-11-16"
    assert written.path == home / TOPIC / "day=2023-11-16" / "partition=0" / "0-2.parquet"
    assert segments(home, TOPIC) == [written]
    assert days(home, TOPIC) == ["2023-11-16"]


@pytest.mark.parametrize(("at_ms", "day"), [(-1, "1970-01-01"), (2**62, "2100-01-01"), (NOON_MS, "2023-11-15")])
def test_a_broken_clock_names_a_day_all_the_same(at_ms: int, day: str) -> None:
    assert day_of(at_ms) == day


def test_a_write_that_breaks_off_leaves_nothing_to_read(home: Path) -> None:
    def broken() -> Iterator[ArchivedRecord]:
        yield from log(*range(10))
        raise KeyboardInterrupt

    first = write_segment(home, TOPIC, log(0, 1))
    with pytest.raises(KeyboardInterrupt):
        rewrite_segment(home, TOPIC, first, broken())
    assert list(home.rglob("unfinished.parquet")) != []
    assert list(read_archive(home, TOPIC, partition=0)) == log(0, 1)
    write_segment(home, TOPIC, log(2))
    assert list(read_archive(home, TOPIC, partition=0)) == log(0, 1, 2)


def test_a_scrubbed_segment_says_so_and_keeps_its_place(home: Path) -> None:
    first, second = write_segment(home, TOPIC, log(0, 1)), write_segment(home, TOPIC, log(2))
    emptied = [record._replace(value=b"") for record in log(0, 1)]
    rewrite_segment(home, TOPIC, first, emptied)
    assert segments(home, TOPIC) == [first, second]
    assert (was_scrubbed(first), was_scrubbed(second)) == (True, False)
    assert was_scrubbed(write_segment(home, TOPIC, log(3), scrubbed=True))
    assert list(read_archive(home, TOPIC, partition=0)) == emptied + log(2, 3)


def test_a_damaged_file_is_named(home: Path) -> None:
    segment = write_segment(home, TOPIC, log(0))
    segment.path.write_bytes(segment.path.read_bytes()[:-9])
    with pytest.raises(ContractError, match=r"0-0\.parquet: expected a segment"):
        list(read_archive(home, TOPIC, partition=0))


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"archive\.home"):
        write_segment(tmp_path / "file", TOPIC, log(0))


def test_other_tools_read_the_files(home: Path) -> None:
    for segment in (write_segment(home, TOPIC, log(*range(9))), write_segment(home, TOPIC, log(1, partition=1))):
        assert list(read_segment(segment)) != []
    table = ds.dataset(home / TOPIC, format="parquet", exclude_invalid_files=True).to_table()
    assert table.num_rows == 10
    assert table.schema.equals(archive.COLUMNS)
