"""Laws of the archiver: all of the log, once, in segments of a size and a day, and nothing of the forgotten."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.archive import archived_until, read_archive, segments, was_scrubbed
from core.clock import FixedClock
from core.errors import ContractError, NotReady
from core.frames import decode_frame
from core.settings import Archive
from streams.archiver import Archiver, one_archiver
from streams.cursor import Record
from streams.forget_archive import entries_of
from tests.streams.log_maker import PARTITION, PARTITIONS, START_MS, USERS, frame, make_log
from tests.streams.test_forget_archive import act, forget

NUMBER, TOPIC = PARTITION.number, PARTITION.topic_id
ALICE, BOB = USERS[:2]
DAY_MS = 86_400_000
CLOCK = FixedClock(START_MS)


def archiver_into(home: Path, clock: FixedClock = CLOCK, *, records: int = 1_000, size: int = 1 << 20) -> Archiver:
    limits = Archive(home=home, segment_records=records, segment_bytes=size, segment_s=60.0)
    return Archiver(TOPIC, PARTITIONS, limits, clock, confirm=lambda: None)


def archived(home: Path) -> list[Record]:
    return [Record(*record[1:]) for record in read_archive(home, TOPIC, partition=NUMBER)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(1, 9), min_size=1), limit=st.integers(1, 12))
def test_all_of_the_log_stands_in_the_archive_once(
    seed: int, sizes: list[int], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also when the archiver dies between any two batches: it begins again where the archive ends."""
    home, log = tmp_path_factory.mktemp("archive"), make_log(seed, 30)
    at = lives = 0
    while at < len(log):
        archiver = archiver_into(home, records=limit)
        at = archived_until(home, TOPIC, NUMBER)
        lives += 1
        for size in sizes * lives:
            archiver.add(NUMBER, log[at : at + size])
            at += size
        if at >= len(log):
            archiver.write_all()
    assert archived(home) == log
    assert all(segment.last - segment.first < limit for segment in segments(home, TOPIC))


def test_a_segment_is_written_when_it_is_full_old_or_of_another_day(tmp_path: Path) -> None:
    clock = FixedClock(START_MS)
    archiver = archiver_into(tmp_path, clock, records=2, size=2_000)
    archiver.add(NUMBER, [Record(0, START_MS, b"a"), Record(1, START_MS, b"b"), Record(2, START_MS, b"c")])
    assert archived_until(tmp_path, TOPIC, NUMBER) == 2
    clock.advance(59_000)
    archiver.write_due()
    assert archived_until(tmp_path, TOPIC, NUMBER) == 2
    clock.advance(1_000)
    archiver.write_due()
    assert archived_until(tmp_path, TOPIC, NUMBER) == 3
    archiver.add(NUMBER, [Record(3, START_MS, bytes(2_000))])
    assert archived_until(tmp_path, TOPIC, NUMBER) == 4
    archiver.add(NUMBER, [Record(4, START_MS, b""), Record(5, START_MS + DAY_MS, b"")])
    assert archived_until(tmp_path, TOPIC, NUMBER) == 5


def test_days_that_alternate_do_not_make_a_segment_each(tmp_path: Path) -> None:
    archiver = archiver_into(tmp_path)
    archiver.add(NUMBER, [Record(at, START_MS + at % 2 * DAY_MS, b"") for at in range(100)])
    archiver.write_all()
    assert [(segment.first, segment.last) for segment in segments(tmp_path, TOPIC)] == [(0, 0), (1, 99)]


def test_a_tombstone_in_the_archive_means_that_nothing_before_it_is(tmp_path: Path) -> None:
    archiver = archiver_into(tmp_path, records=3)
    log = [frame(at, START_MS, act(at, ALICE), act(at + 50, BOB)) for at in range(5)]
    log.append(frame(5, START_MS, act(5, ALICE), forget(ALICE), act(6, ALICE)))
    log.append(frame(6, START_MS, act(7, ALICE)))
    archiver.add(NUMBER, log[:5])
    assert entries_of(tmp_path, TOPIC, NUMBER, ALICE) == 3, "one segment of three records stands"
    archiver.add(NUMBER, log[5:])
    assert archived_until(tmp_path, TOPIC, NUMBER) == 7
    assert entries_of(tmp_path, TOPIC, NUMBER, ALICE) == 2
    after = archived(tmp_path)
    assert list(decode_frame(after[5].value)) == [forget(ALICE), act(6, ALICE)]
    assert [len(decode_frame(record.value)) for record in after[:5]] == [1, 1, 1, 1, 1]
    assert after[6] == log[6]
    assert [was_scrubbed(segment) for segment in segments(tmp_path, TOPIC)] == [True, True, False]


def test_a_crash_while_forgetting_leaves_no_tombstone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the next archiver meets the Forget again and finishes."""
    log = [frame(0, START_MS, act(0, ALICE)), frame(1, START_MS), frame(2, START_MS, forget(ALICE)), frame(3, START_MS)]

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("streams.archiver.scrub", crash)
        archiver_into(tmp_path, records=1).add(NUMBER, log[:2])
        archiver_into(tmp_path, records=1).add(NUMBER, log[2:])
    assert (archived_until(tmp_path, TOPIC, NUMBER), entries_of(tmp_path, TOPIC, NUMBER, ALICE)) == (2, 1)
    archiver_into(tmp_path, records=1).add(NUMBER, log[2:])
    assert (archived_until(tmp_path, TOPIC, NUMBER), entries_of(tmp_path, TOPIC, NUMBER, ALICE)) == (4, 0)


def test_a_topic_that_was_made_again_is_not_mixed_in(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ContractError("made again")

    archiver = Archiver(TOPIC, PARTITIONS, Archive(home=tmp_path), CLOCK, confirm=refuse)
    archiver.add(NUMBER, make_log(1, 3))
    with pytest.raises(ContractError):
        archiver.write_all()
    assert archived(tmp_path) == []


def test_one_archiver_at_a_time(tmp_path: Path) -> None:
    with one_archiver(tmp_path), pytest.raises(NotReady, match="another archiver"), one_archiver(tmp_path):
        pass
    with one_archiver(tmp_path):
        pass
