"""Laws of gaps: only the log itself tells whether records are missing there."""

from streams.cursor import Record
from streams.holes import AGAIN_S, Holes, Step, runs


def offsets_of(*offsets: int) -> list[list[int]]:
    records = [Record(offset, 0, b"") for offset in offsets]
    return [[record.offset for record in records[run]] for run in runs(records)]


def test_a_batch_is_cut_where_its_offsets_turn_back() -> None:
    assert offsets_of() == []
    assert offsets_of(3, 4, 9) == [[3, 4, 9]]
    assert offsets_of(8, 9, 1, 2, 2, 3) == [[8, 9], [1, 2], [2, 3]]


def test_a_gap_is_in_the_log_when_the_same_record_comes_first_after_going_back() -> None:
    holes = Holes()
    assert holes.met(0, 5, 8, 0.0) is Step.GO_BACK
    assert holes.met(0, 5, 8, 0.0) is Step.STEP_OVER


def test_what_was_fetched_before_going_back_proves_nothing_however_late_it_comes() -> None:
    holes = Holes()
    assert holes.met(0, 5, 8, 0.0) is Step.GO_BACK
    assert holes.met(0, 5, 12, AGAIN_S / 2) is Step.WAIT
    assert holes.met(0, 5, 16, 100 * AGAIN_S) is Step.GO_BACK
    assert holes.met(0, 5, 7, 100 * AGAIN_S) is Step.GO_BACK, "an earlier record: the fetch began too far ahead"
    assert holes.met(0, 5, 7, 100 * AGAIN_S) is Step.STEP_OVER


def test_another_gap_and_another_assignment_begin_anew() -> None:
    holes = Holes()
    holes.met(0, 5, 8, 0.0)
    assert holes.met(1, 5, 8, 0.0) is Step.GO_BACK
    assert holes.met(0, 6, 8, 0.0) is Step.GO_BACK
    holes.closed(0)
    assert holes.met(0, 6, 8, 0.0) is Step.GO_BACK
    holes.forget()
    assert holes.met(0, 6, 8, 0.0) is Step.GO_BACK
