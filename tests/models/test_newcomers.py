"""Items that come after the tables were counted are as near as if they had been counted again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import neighbours
from models.evidence import Neighbours, near_items
from models.neighbours import cooccurrence, lend, matrix_of, near_places, neighbour_tables
from models.newcomers import Newcomers
from models.tfidf import TextRows
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location

KNOWN, NEW = 9, 5
WORDS = ["rose", "soap", "towel", "nail", "file", "cream"]


def items_of(rng: np.random.Generator, count: int) -> list[Item]:
    """Items of few words, some without a place, some at one point."""
    made = []
    for number in range(count):
        item = Item(item_id=str(number), title=" ".join(rng.choice(WORDS, rng.integers(0, 4))))
        if rng.random() < 0.7:
            item.location.CopyFrom(Location(latitude=rng.integers(3) / 100, longitude=0.5))
        made.append(item)
    return made


def grown(seed: int) -> tuple[list[Item], list[np.ndarray], tuple[Neighbours, ...]]:
    """All items, sequences of the known ones, and the tables of the known ones."""
    rng = np.random.default_rng(seed)
    items = items_of(rng, KNOWN + NEW)
    sequences = [np.arange(KNOWN), rng.integers(0, KNOWN, 6), rng.integers(0, KNOWN, 6)]
    return items, sequences, neighbour_tables(items[:KNOWN], sequences, recency=0.7)


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30), at_once=st.integers(1, NEW), lenders=st.sampled_from([1, 3, neighbours.LENDERS]))
def test_who_joins_is_as_near_as_if_all_were_counted_again(seed: int, at_once: int, lenders: int) -> None:
    items, sequences, tables = grown(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "LENDERS", lenders)
        newcomers = Newcomers(items[:KNOWN], tables, room=KNOWN + NEW + 2)
        for start in range(KNOWN, KNOWN + NEW, at_once):
            newcomers.join(items[start : start + at_once])
        _, alike, near = newcomers.tables
        taken = np.arange(KNOWN + NEW) < KNOWN
        counted = cooccurrence(sequences, KNOWN + NEW, keep=KNOWN + NEW)
        together = lend(counted, Neighbours(alike.items[: len(items)], alike.weights[: len(items)]), taken)

    text = TextRows(items[:KNOWN])
    text.join(items[KNOWN:])
    likeness = (text.rows @ text.rows.T).toarray()
    np.fill_diagonal(likeness, 0)
    np.testing.assert_allclose(matrix_of(alike).toarray()[: len(items), : len(items)], likeness, atol=1e-6)
    everywhere = matrix_of(near_places(items, keep=len(items))).toarray()
    if tables[2].items.shape[1]:
        np.testing.assert_allclose(matrix_of(near).toarray()[: len(items), : len(items)], everywhere, rtol=1e-5)
    for table in (alike, near):
        assert (np.diff(table.weights, axis=1) <= 0).all(), "the strongest do not come first"

    histories = np.random.default_rng(seed).integers(-1, len(items), (12, 6))
    expected = near_items(histories, [together._replace(recency=0.7), alike, near])
    found = near_items(histories, newcomers.tables, lent=newcomers.lent)
    for one, other in zip(sums_of(*found), sums_of(*expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


def sums_of(near: np.ndarray, nearness: np.ndarray) -> list[np.ndarray]:
    """Per request (I, S), what each item is near."""
    made = np.zeros((len(near), KNOWN + NEW + 2, nearness.shape[-1]))
    rows, places = np.nonzero(near >= 0)
    made[rows, near[rows, places]] = nearness[rows, places]
    return list(made)


def test_a_full_row_keeps_the_strongest_when_somebody_joins() -> None:
    titles = ["rose", "rose soap", "rose nail", "rose file", "towel"]
    items = [Item(item_id=str(number), title=title) for number, title in enumerate(titles)]
    tables = neighbour_tables(items, [np.arange(5)])
    narrow = tuple(Neighbours(table.items[:, :2], table.weights[:, :2]) for table in tables)
    newcomers = Newcomers(items, narrow, room=7)
    newcomers.join([Item(item_id="5", title="rose"), Item(item_id="6", title="bread")])
    alike = newcomers.tables[1]
    assert alike.items[0, 0] == 5, "what reads the same is not first"
    assert alike.items[5, 0] == 0
    assert (alike.items[6] == -1).all()
    assert 5 not in alike.items[4]
    assert newcomers.lent.shares[0].sum() == pytest.approx(1)
    assert newcomers.lent.shares[1].sum() == 0, "what is like nothing borrows nothing"


def test_what_the_catalogue_had_more_than_the_tables_has_come() -> None:
    items, _, tables = grown(seed=3)
    at_once, before = (Newcomers(items[:size], tables, room=len(items)) for size in (len(items), KNOWN))
    before.join(items[KNOWN:])
    for one, other in zip((*at_once.tables, at_once.lent), (*before.tables, before.lent), strict=True):
        for array, twin in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, twin)
    assert before.lent.first == KNOWN
