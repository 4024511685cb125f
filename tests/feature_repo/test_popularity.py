"""Laws of cell_popularity."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import popularity
from feature_repo.folds.act import ENGAGEMENT
from feature_repo.folds.popularity import EMPTY, HALF_LIFE_MS, STEP_MS, CellState, cell_key, merged, opened, top_of
from feature_repo.layouts import CELLS, DIM, POPULAR
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import CONTEXT, PARIS, START_MS, decoded, interaction

LIKE = ENGAGEMENT[Action.ACTION_LIKE]
LIKES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**7)), min_size=1, max_size=60)


def likes(drawn: list[tuple[int, int]]) -> list[Activity]:
    return [interaction(f"e{n}", str(item), at_ms=START_MS + at) for n, (item, at) in enumerate(drawn)]


def sums_of(acts: Sequence[Activity], rows: np.ndarray | None = None) -> np.ndarray:
    """The partial sum, (1,) CELLS, of acts around a cell in the order of the log."""
    rows = np.zeros(1, CELLS) if rows is None else rows.copy()
    for entry in decoded(acts).numbers:
        popularity.fold(rows[0], entry, CONTEXT.items.table.vectors)
    return rows


def scores(rows: np.ndarray) -> dict[int, float]:
    return dict(opened(rows[0]).scores)


def share_left(rows: np.ndarray, at_ms: int) -> float:
    return float(0.5 ** ((at_ms - int(rows["updated_ms"][0])) / HALF_LIFE_MS))


def scores_at(rows: np.ndarray, at_ms: int) -> dict[int, float]:
    return {item: score * share_left(rows, at_ms) for item, score in scores(rows).items()}


@given(LIKES, st.integers(1, 4))
def test_partial_sums_add_up_to_the_whole(drawn: list[tuple[int, int]], partitions: int) -> None:
    acts = likes(drawn)
    whole = sums_of(acts)
    total = merged(np.concatenate([sums_of(acts[number::partitions]) for number in range(partitions)]))
    assert abs(int(total["updated_ms"][0]) - int(whole["updated_ms"][0])) < STEP_MS
    assert scores_at(total, START_MS) == pytest.approx(scores_at(whole, START_MS), rel=1e-4)
    for name in ("weight", "context"):
        kept, expected = (rows[name] * share_left(rows, START_MS) for rows in (total, whole))
        np.testing.assert_allclose(kept, expected, rtol=1e-4, atol=1e-6)


@given(LIKES)
def test_late_acts_take_their_place(drawn: list[tuple[int, int]]) -> None:
    acts = likes(drawn)
    in_order, backwards = sums_of(acts), sums_of(acts[::-1])
    assert scores_at(in_order, START_MS) == pytest.approx(scores_at(backwards, START_MS), rel=1e-4)


@given(LIKES, st.integers(0, 60))
def test_acts_may_come_in_several_batches(drawn: list[tuple[int, int]], border: int) -> None:
    acts = likes(drawn)
    assert sums_of(acts[border:], sums_of(acts[:border])).tobytes() == sums_of(acts).tobytes()


def test_a_score_halves_within_its_half_life() -> None:
    first = sums_of([interaction("a", "1")])
    later = sums_of([interaction("b", "2", at_ms=START_MS + HALF_LIFE_MS)], first)
    assert scores(first) == {1: LIKE}
    assert scores(later) == pytest.approx({1: LIKE / 2, 2: LIKE})
    assert later["weight"] == pytest.approx(1.5 * LIKE)
    assert later["context"][0, :3].tolist() == pytest.approx([0.0, LIKE / 2, LIKE])


def test_the_context_is_the_weighted_sum_of_what_is_liked() -> None:
    rows = sums_of(
        [
            interaction("a", "1"),
            interaction("b", "3", Action.ACTION_ORDER),
            interaction("no", "2", Action.ACTION_DISLIKE),
            interaction("unknown", "77"),
        ]
    )
    expected = LIKE * np.eye(DIM)[1] + ENGAGEMENT[Action.ACTION_ORDER] * np.eye(DIM)[3]
    assert rows["context"][0].tolist() == expected.tolist()
    assert rows["weight"] == LIKE + ENGAGEMENT[Action.ACTION_ORDER]
    assert scores(rows) == {1: LIKE, 3: ENGAGEMENT[Action.ACTION_ORDER], 77: LIKE}


def test_a_busy_cell_decays_like_a_quiet_one() -> None:
    """Acts a millisecond apart: each decay is finer than float32, all of them together are not."""
    views = np.repeat(decoded([interaction("v", "2", Action.ACTION_VIEW)]).numbers, 100_000)
    views["at_ms"] += np.arange(len(views))
    rows = sums_of([interaction("a", "1"), interaction("b", "1", Action.ACTION_CLICK), interaction("c", "1")])
    before = scores(rows)[1]
    for entry in views:
        popularity.fold(rows[0], entry, CONTEXT.items.table.vectors)
    assert scores_at(rows, START_MS + len(views))[1] == pytest.approx(
        before * 0.5 ** (len(views) / HALF_LIFE_MS), rel=3e-4
    )


def test_a_dislike_takes_away_but_never_below_nothing() -> None:
    dislikes = [interaction(f"d{n}", action=Action.ACTION_DISLIKE) for n in range(5)]
    assert scores(sums_of([interaction("a"), *dislikes])) == {1: 0.0}
    assert scores(sums_of(dislikes)) == {}
    faint = interaction("old", "2", Action.ACTION_DISLIKE, START_MS - 3 * HALF_LIFE_MS)
    assert scores(sums_of([interaction("a"), faint])) == {1: LIKE}


def test_an_act_that_says_nothing_changes_nothing() -> None:
    assert not any(sums_of([interaction("a", action=Action.ACTION_PLAY, play_ms=0)]).tobytes())


def test_no_item_above_the_bound_is_missing() -> None:
    """Space-Saving: an item with more than total / POPULAR always has a counter."""
    crowd = [interaction(f"e{n}", str(1000 + n)) for n in range(500)]
    hit = [interaction(f"h{n}", "7") for n in range(30)]
    mixed = [one for pair in zip(crowd, hit + crowd, strict=False) for one in pair]
    best = opened(merged(sums_of(mixed))[0]).scores
    assert best[0][0] == 7
    assert len(best) == POPULAR
    assert sum(score for _, score in best) == pytest.approx(LIKE * len(mixed))  # what is taken over is not lost


def test_merged_rows_are_best_first() -> None:
    parts = [
        sums_of([interaction(f"{name}{n}", str(item)) for n, item in enumerate(items)])
        for name, items in (("a", [4, 9, 3, 3]), ("b", [5, 9, 9, 4]))
    ]
    assert opened(merged(np.concatenate(parts))[0]).scores == ((9, 3 * LIKE), (3, 2 * LIKE), (4, 2 * LIKE), (5, LIKE))


def test_cells_around_a_place_are_one() -> None:
    cells = [CellState(START_MS, ((1, 4.0), (2, 1.0))), CellState(START_MS + HALF_LIFE_MS, ((2, 1.0),))]
    assert top_of(cells) == CellState(START_MS + HALF_LIFE_MS, ((1, 2.0), (2, 1.5)))
    assert top_of([]) == EMPTY


def test_a_cell_is_never_finer_than_locations_may_be_kept() -> None:
    assert cell_key(*PARIS, 9) == cell_key(*PARIS, 7) != cell_key(*PARIS, 4)


def test_nothing_merges_to_nothing() -> None:
    assert opened(merged(np.zeros(0, CELLS))[0]) == EMPTY
