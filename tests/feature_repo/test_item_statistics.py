"""Laws of item_statistics."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import item_statistics
from feature_repo.folds.item_statistics import HALF_LIFE_MS, merged
from feature_repo.folds.popularity import STEP_MS
from feature_repo.layouts import ITEMS
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import START_MS, decoded, interaction

COUNTS = ("shown", "plays", "watched", "positives", "dislikes")
ACTS = st.lists(
    st.tuples(
        st.sampled_from([Action.ACTION_PLAY, Action.ACTION_LIKE, Action.ACTION_DISLIKE, Action.ACTION_VIEW]),
        st.integers(0, 90_000),
        st.integers(0, 10 * HALF_LIFE_MS),
    ),
    min_size=1,
    max_size=30,
)


def acts_of(drawn: list[tuple["Action.ValueType", int, int]]) -> list[Activity]:
    return [
        interaction(f"e{n}", action=kind, at_ms=START_MS + at, play_ms=ms if kind == Action.ACTION_PLAY else None)
        for n, (kind, ms, at) in enumerate(drawn)
    ]


def sums_of(acts: Sequence[Activity], rows: np.ndarray | None = None, shown_at: Sequence[int] = ()) -> np.ndarray:
    """The partial sum, (1,) ITEMS, of acts on one item, after it was shown at some times."""
    rows = np.zeros(1, ITEMS) if rows is None else rows.copy()
    for at_ms in shown_at:
        item_statistics.show(rows[0], at_ms)
    for entry in decoded(acts).numbers:
        item_statistics.fold(rows[0], entry)
    return rows


def counts(rows: np.ndarray) -> list[float]:
    return [float(rows[name][0]) for name in COUNTS]


def counts_at(rows: np.ndarray, at_ms: int) -> list[float]:
    return [count * 0.5 ** ((at_ms - int(rows["updated_ms"][0])) / HALF_LIFE_MS) for count in counts(rows)]


def test_each_kind_of_act_is_counted() -> None:
    acts = [
        interaction("short", action=Action.ACTION_PLAY, play_ms=5_000),  # of 20 s
        interaction("whole", action=Action.ACTION_PLAY, play_ms=20_000),
        interaction("like"),
        interaction("no", action=Action.ACTION_DISLIKE),
        interaction("seen", action=Action.ACTION_VIEW),
    ]
    assert counts(sums_of(acts, shown_at=[START_MS] * 7)) == [7.0, 2.0, 1.25, 2.0, 1.0]


def test_a_watch_share_is_bounded_and_needs_a_duration() -> None:
    looped = interaction("a", action=Action.ACTION_PLAY, play_ms=10**7)
    unknown = interaction("b", "77", Action.ACTION_PLAY, play_ms=9_000)
    assert counts(sums_of([looped])) == [0.0, 1.0, 2.5, 1.0, 0.0]
    assert counts(sums_of([unknown])) == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_counts_halve_within_their_half_life() -> None:
    first = sums_of([interaction("a"), interaction("b", action=Action.ACTION_DISLIKE)], shown_at=[START_MS])
    later = sums_of([interaction("c", at_ms=START_MS + HALF_LIFE_MS)], first)
    assert counts(later) == [0.5, 0.0, 0.0, 1.5, 0.5]
    assert later["updated_ms"] == START_MS + HALF_LIFE_MS


@given(ACTS)
def test_late_acts_take_their_place(drawn: list[tuple["Action.ValueType", int, int]]) -> None:
    acts = acts_of(drawn)
    in_order, backwards = sums_of(acts), sums_of(acts[::-1])
    assert counts_at(in_order, START_MS) == pytest.approx(counts_at(backwards, START_MS), rel=1e-4, abs=1e-4)


@given(ACTS, st.integers(1, 4))
def test_partial_sums_add_up_to_the_whole(drawn: list[tuple["Action.ValueType", int, int]], partitions: int) -> None:
    acts = acts_of(drawn)
    whole = sums_of(acts)
    total = merged(np.concatenate([sums_of(acts[number::partitions]) for number in range(partitions)]))
    assert abs(int(total["updated_ms"][0]) - int(whole["updated_ms"][0])) < STEP_MS
    assert counts_at(total, START_MS) == pytest.approx(counts_at(whole, START_MS), rel=1e-4, abs=1e-4)


def test_a_busy_item_decays_like_a_quiet_one() -> None:
    """Slots a millisecond apart: each decay is finer than float32, all of them together are not."""
    rows = sums_of([interaction(f"e{n}") for n in range(3)])
    last_ms = START_MS + 1_000_000
    for at_ms in range(START_MS, last_ms, 10):
        item_statistics.show(rows[0], at_ms)
    assert counts_at(rows, last_ms)[3] == pytest.approx(3 * 0.5 ** (1_000_000 / HALF_LIFE_MS), rel=2e-4)


def test_nothing_merges_to_nothing() -> None:
    assert not any(merged(np.zeros(0, ITEMS)).tobytes())
