"""Evidence is a sum over the history, and a sample never finds itself in it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.batches import NEAR, TABLES
from models.evidence import DEPTH, RECENCY, Neighbours, near_items
from models.neighbours import cooccurrence, matrix_of
from models.own_pairs import own_pairs
from tests.models.worlds import table_of

ITEMS = 12
POWER = 0.3
walks = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=2, max_size=10), min_size=2, max_size=8).map(
    lambda found: [np.array(walk) for walk in found]
)


def counts(sequences: list[np.ndarray], occurs: np.ndarray) -> Neighbours:
    """Co-occurrence whose popularity is that of other sequences."""
    plain = matrix_of(cooccurrence(sequences, ITEMS, popularity_power=0.0, keep=ITEMS)).toarray()
    return table_of(plain * np.maximum(occurs, 1.0) ** -POWER)


def told(near: np.ndarray, nearness: np.ndarray) -> dict[int, tuple[float, ...]]:
    """How near each item is by each table."""
    return {int(item): tuple(sums[:TABLES].round(5)) for item, sums in zip(near, nearness, strict=True) if item >= 0}


@given(seed=st.integers(0, 1 << 30))
def test_an_item_is_as_near_as_the_history_makes_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sources = [rng.random((ITEMS, ITEMS)) * (rng.random((ITEMS, ITEMS)) < 0.3) for _ in range(TABLES)]
    history = rng.integers(-1, ITEMS, DEPTH + 3)
    recencies = rng.random(TABLES)
    had = rng.integers(-1, ITEMS, 3)
    tables = [table_of(source)._replace(recency=recency) for source, recency in zip(sources, recencies, strict=True)]
    near, nearness = near_items(history[None], tables, had[None])
    expected = {}
    for item in range(ITEMS):
        sums = tuple(
            sum(recency**place * source[act, item] for place, act in enumerate(history[:DEPTH]) if act >= 0)
            for source, recency in zip(sources, recencies, strict=True)
        )
        if any(sums) and item not in had:
            expected[item] = tuple(np.float32(sums).round(5))
    assert told(near[0], nearness[0]).keys() == expected.keys()
    for item, sums in told(near[0], nearness[0]).items():
        np.testing.assert_allclose(sums, expected[item], atol=2e-5)


@given(sequences=walks, which=st.integers(0, 7), place=st.integers(1, 9), recency=st.sampled_from([0.3, RECENCY, 1.0]))
def test_without_its_own_pairs_a_sample_sees_what_the_others_did_and_its_user_before(
    sequences: list[np.ndarray], which: int, place: int, recency: float
) -> None:
    which %= len(sequences)
    place = 1 + place % (len(sequences[which]) - 1)
    occurs = np.bincount(np.concatenate(sequences), minlength=ITEMS)
    history = sequences[which][:place][::-1][None]
    own = own_pairs(sequences, [(which, place)], occurs, POWER, recency)
    less_own = near_items(history, [counts(sequences, occurs)._replace(recency=recency)], own=own)
    before = [*sequences[:which], sequences[which][:place], *sequences[which + 1 :]]
    others = near_items(history, [counts(before, occurs)._replace(recency=recency)])
    found, expected = told(less_own[0][0], less_own[1][0]), told(others[0][0], others[1][0])
    assert found.keys() == expected.keys()
    for item, sums in found.items():
        np.testing.assert_allclose(sums, expected[item], atol=1e-4)


def test_the_nearest_come_first_and_the_rest_is_empty() -> None:
    source = table_of(np.triu(np.arange(1.0, 17.0).reshape(4, 4), 1))
    near, nearness = near_items(np.array([[0, 1], [-1, -1]]), [source, source])
    assert near[0, :4].tolist() == [3, 2, 1, -1]
    assert near.shape == (2, NEAR)
    assert (near[1] == -1).all()
    assert not nearness[1].any()


@settings(max_examples=20)
@given(seed=st.integers(0, 1 << 30))
def test_of_many_items_those_are_kept_that_are_nearest_and_no_request_sees_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = 2 * NEAR
    tables = [rng.random((size, size)) * (rng.random((size, size)) < 0.4) for _ in range(TABLES)]
    histories = rng.integers(-1, size, (5, 6))
    near, nearness = near_items(histories, [table_of(table) for table in tables])
    for row, history in enumerate(histories):
        acts = [(RECENCY**place, act) for place, act in enumerate(history) if act >= 0]
        sums = np.stack([sum((share * table[act] for share, act in acts), np.zeros(size)) for table in tables])
        compared = (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-9)).sum(axis=0)
        kept = near[row][near[row] >= 0]
        assert len(kept) == min(NEAR, np.count_nonzero(compared))
        np.testing.assert_allclose(compared[kept], np.sort(compared)[::-1][: len(kept)], rtol=1e-6)
        np.testing.assert_allclose(nearness[row, : len(kept), :TABLES], sums[:, kept].T, rtol=1e-5)
