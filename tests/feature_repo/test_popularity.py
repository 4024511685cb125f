"""Laws of cell_popularity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import popularity
from feature_repo.folds.act import Act
from feature_repo.folds.popularity import HALF_LIFE_MS, CellState, cell_key, cells_of, fold, merged
from feature_repo.layouts import GLOBAL_CELL, POPULAR
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import PARIS, START_MS, act

LIKES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**7)), min_size=1, max_size=60)


def likes(drawn: list[tuple[int, int]]) -> list[Act]:
    return [act(f"e{n}", item=str(item), at_ms=START_MS + at) for n, (item, at) in enumerate(drawn)]


@given(LIKES, st.integers(1, 4))
def test_partial_sums_add_up_to_the_whole(drawn: list[tuple[int, int]], partitions: int) -> None:
    acts = likes(drawn)
    whole = fold(popularity.EMPTY, acts)
    parts = [fold(popularity.EMPTY, acts[number::partitions]) for number in range(partitions)]
    total = merged(parts)
    assert total.updated_ms == whole.updated_ms
    assert dict(total.scores) == pytest.approx(dict(whole.scores), rel=1e-4)


@given(LIKES)
def test_late_acts_take_their_place(drawn: list[tuple[int, int]]) -> None:
    acts = likes(drawn)
    assert dict(fold(popularity.EMPTY, acts).scores) == pytest.approx(
        dict(fold(popularity.EMPTY, acts[::-1]).scores), rel=1e-4
    )


def test_a_score_halves_within_its_half_life() -> None:
    state = fold(popularity.EMPTY, [act("a", item="1")])
    later = fold(state, [act("b", item="2", at_ms=START_MS + HALF_LIFE_MS)])
    assert dict(later.scores)[1] == pytest.approx(dict(state.scores)[1] / 2)
    assert later.scores[0][0] == 2


def test_a_dislike_takes_away_but_never_below_nothing() -> None:
    state = fold(popularity.EMPTY, [act("a"), *(act(f"d{n}", action=Action.ACTION_DISLIKE) for n in range(5))])
    assert state.scores == ((1, 0.0),)
    assert fold(popularity.EMPTY, [act(action=Action.ACTION_DISLIKE)]).scores == ()


def test_no_item_above_the_bound_is_missing() -> None:
    """Space-Saving: an item with more than total / POPULAR always has a counter."""
    crowd = [act(f"e{n}", item=str(1000 + n)) for n in range(500)]
    hit = [act(f"h{n}", item="7") for n in range(30)]
    mixed = [one for pair in zip(crowd, hit + crowd, strict=False) for one in pair]
    state = fold(popularity.EMPTY, mixed)
    assert state.scores[0][0] == 7
    assert len(state.scores) == POPULAR


@given(LIKES, st.integers(0, 60))
def test_records_may_come_in_several_batches(drawn: list[tuple[int, int]], border: int) -> None:
    acts = likes(drawn)
    kept = fold(fold(popularity.EMPTY, acts[:border]), acts[border:])
    stored = popularity.unpack(popularity.pack(fold(popularity.EMPTY, acts[:border])))
    assert fold(stored, acts[border:]) == kept


def test_an_act_counts_everywhere_and_around_the_user() -> None:
    assert cells_of(act(), 9) == (GLOBAL_CELL,)
    assert cells_of(act(location=PARIS), 9) == (GLOBAL_CELL, cell_key(*PARIS, 9))


def test_a_cell_is_never_finer_than_locations_may_be_kept() -> None:
    assert cell_key(*PARIS, 9) == cell_key(*PARIS, 7) != cell_key(*PARIS, 4)


def test_nothing_merges_to_nothing() -> None:
    assert merged([]) == CellState(0, ())
    assert popularity.rows_of([merged([])])["length"][0] == 0
