"""What goes together is counted as said, once, and no item goes with itself."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ArtefactError, InputError
from core.geo import distance_m
from models import neighbours
from models.evidence import Neighbours, load_neighbours, save_neighbours
from models.neighbours import cooccurrence, lend, matrix_of, near_places, neighbour_tables, text_neighbours
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location

ITEMS = 7
SEQUENCES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), max_size=6)


def arrays(sequences: list[list[int]]) -> list[np.ndarray]:
    return [np.array(sequence, np.int64) for sequence in sequences]


def plain_counts(
    sequences: list[list[int]], window: int, backwards: float, power: float
) -> dict[int, dict[int, float]]:
    """The slow twin."""
    counts: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    occurs: dict[int, int] = defaultdict(int)
    for sequence in sequences:
        for place, earlier in enumerate(sequence):
            occurs[earlier] += 1
            for gap, later in enumerate(sequence[place + 1 : place + 1 + window], start=1):
                if earlier != later:
                    counts[earlier][later] += 1 / gap
                    counts[later][earlier] += backwards / gap
    return {one: {other: c * occurs[other] ** -power for other, c in row.items()} for one, row in counts.items()}


def as_dicts(neighbours: Neighbours) -> dict[int, dict[int, float]]:
    made = {}
    for one, (items, weights) in enumerate(zip(neighbours.items.tolist(), neighbours.weights.tolist(), strict=True)):
        row = {item: weight for item, weight in zip(items, weights, strict=True) if item >= 0}
        if row:
            made[one] = row
    return made


@given(SEQUENCES, st.integers(1, 5))
def test_counts_are_those_of_a_plain_loop(sequences: list[list[int]], window: int) -> None:
    found = as_dicts(cooccurrence(arrays(sequences), ITEMS, window=window, backwards=0.5, popularity_power=0.4))
    expected = plain_counts(sequences, window, 0.5, 0.4)
    assert found.keys() == expected.keys()
    for one, row in expected.items():
        assert found[one] == pytest.approx(row, rel=1e-5)


@given(SEQUENCES, st.integers(1, 4))
def test_the_strongest_are_kept_and_stand_first(sequences: list[list[int]], keep: int) -> None:
    every, kept = (cooccurrence(arrays(sequences), ITEMS, keep=k) for k in (ITEMS, keep))
    assert kept.items.shape == kept.weights.shape == (ITEMS, keep)
    np.testing.assert_array_equal(kept.items, every.items[:, :keep])
    np.testing.assert_array_equal(kept.weights, every.weights[:, :keep])
    assert (np.diff(every.weights, axis=1) <= 0).all()
    assert ((every.items >= 0) == (every.weights > 0)).all()
    assert (every.items != np.arange(ITEMS)[:, None]).all()


@given(SEQUENCES)
def test_the_matrix_holds_the_table(sequences: list[list[int]]) -> None:
    neighbours = cooccurrence(arrays(sequences), ITEMS)
    matrix = matrix_of(neighbours).toarray()
    for one, row in as_dicts(neighbours).items():
        assert {other: matrix[one, other] for other in row} == pytest.approx(row)
    assert np.count_nonzero(matrix) == (neighbours.items >= 0).sum()


def test_an_unknown_item_is_refused() -> None:
    with pytest.raises(InputError, match="expected 0 to 2"):
        cooccurrence([np.array([0, 3])], 3)


def test_items_that_share_rare_words_are_nearer_than_those_that_share_common_ones() -> None:
    items = [
        Item(item_id="a", title="Rose hand cream", tags=["Beauty", "Hands"]),
        Item(item_id="b", title="Nail file", tags=["Beauty", "Nails"]),
        Item(item_id="c", title="Rose hand lotion", tags=["Beauty", "Hands"]),
    ]
    found = text_neighbours(items, keep=2)
    assert found.items[0].tolist() == [2, 1]
    assert 0 < found.weights[0, 1] < found.weights[0, 0] < 1


def test_equal_text_is_as_near_as_can_be_and_stands_in_order() -> None:
    found = text_neighbours([Item(item_id=str(n), title="same words") for n in range(4)], keep=10)
    assert found.items[2, :4].tolist() == [0, 1, 3, -1]
    np.testing.assert_allclose(found.weights[2, :3], 1.0, rtol=1e-6)


def test_items_without_text_have_no_neighbours() -> None:
    found = text_neighbours([Item(item_id="a"), Item(item_id="b"), Item(item_id="c", title="words")], keep=3)
    assert (found.items == -1).all()
    assert (found.weights == 0).all()
    assert text_neighbours([], keep=3).items.shape == (0, 3)


@given(seed=st.integers(0, 1 << 30), placed=st.integers(0, 12), keep=st.integers(1, 14))
def test_the_nearest_places_are_the_neighbours_and_what_has_no_place_has_none(
    seed: int, placed: int, keep: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.1, 0.1, (placed, 2)) * (rng.random((placed, 1)) < 0.8)  # some stand at one point
    where = rng.permutation(15)[:placed].tolist()
    items = [Item(item_id=str(number)) for number in range(15)]
    for item, (latitude, longitude) in zip(where, points, strict=True):
        items[item].location.CopyFrom(Location(latitude=latitude, longitude=longitude))
    found = near_places(items, keep)
    for item in range(15):
        expected = []
        if item in where:
            here = points[where.index(item)]
            others = [other for other in where if other != item]
            away_km = [distance_m(*here, *points[where.index(other)]) / 1000 for other in others]
            expected = sorted(1 / (0.1 + km) for km in away_km)[::-1][:keep]
        kept = found.items[item] >= 0
        assert set(found.items[item, kept].tolist()) <= set(where) - {item}
        np.testing.assert_allclose(found.weights[item, kept], expected, rtol=1e-4)


@given(seed=st.integers(0, 1 << 30), new=st.integers(1, ITEMS), lenders=st.integers(1, 4))
def test_new_items_stand_where_those_stand_that_they_read_like(seed: int, new: int, lenders: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.choice(list("abcdef"), (ITEMS, 3))
    alike = text_neighbours([Item(item_id=str(n), title=" ".join(row)) for n, row in enumerate(words)])
    taken: np.ndarray = np.arange(ITEMS) < ITEMS - new
    known = [rng.integers(0, ITEMS - new, 6) for _ in range(4)] if taken.any() else []
    together = cooccurrence(known, ITEMS, keep=ITEMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "LENDERS", lenders)
        found = as_dicts(lend(together, alike, taken))
    counts = matrix_of(together).toarray()
    shares = np.diag(taken.astype(float))  # the slow twin
    for item in np.flatnonzero(~taken).tolist():
        likes = [(other, weight) for other, weight in as_dicts(alike).get(item, {}).items() if taken[other]][:lenders]
        for other, weight in likes:
            shares[item, other] = weight**2 / sum(each**2 for _, each in likes)
    expected = shares @ counts @ shares.T
    np.fill_diagonal(expected, 0)
    for item in range(ITEMS):
        wanted = {other: weight for other, weight in enumerate(expected[item].tolist()) if weight > 0}
        assert found.get(item, {}) == pytest.approx(wanted, rel=1e-4)
        assert found.get(item, {}).items() >= as_dicts(together).get(item, {}).items(), "what was counted has changed"


def test_where_everything_was_taken_nothing_is_lent() -> None:
    together = cooccurrence([np.array([0, 1, 2])], 3)
    assert lend(together, text_neighbours([Item(item_id=str(n)) for n in range(3)]), np.ones(3, np.bool_)) is together


def test_the_tables_lend_to_what_the_sequences_lack() -> None:
    items = [Item(item_id=str(n), title=title) for n, title in enumerate(("rose soap", "towel", "rose soap bar"))]
    together, alike, _ = neighbour_tables(items, [np.array([0, 1])])
    assert set(together.items[1].tolist()) == {0, 2, -1}
    assert together.items[2].tolist()[:2] == [1, -1]
    assert alike.items[0].tolist()[:2] == [2, -1]


def test_tables_are_read_as_they_were_kept_and_damage_is_said(tmp_path: Path) -> None:
    sequences = [np.array([0, 1, 2]), np.array([2, 1, 3])]
    one, other = (cooccurrence(sequences, 4, popularity_power=power) for power in (0.0, 0.5))
    tables = (one, other._replace(recency=0.25), one)
    path = tmp_path / "neighbours.npz"
    save_neighbours(tables, path)
    for kept, read in zip(tables, load_neighbours(path, items=9), strict=True):
        np.testing.assert_array_equal(kept.items, read.items)
        np.testing.assert_array_equal(kept.weights, read.weights)
        assert kept.recency == read.recency
    with pytest.raises(ArtefactError, match="count them anew"):
        load_neighbours(path, items=3)
    save_neighbours(tables[:2], path)
    with pytest.raises(ArtefactError, match="found 2 tables"):
        load_neighbours(path, items=9)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtefactError, match="publish the version again"):
        load_neighbours(path, items=9)
