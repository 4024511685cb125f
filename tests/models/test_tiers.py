"""Laws of what compiled folds know of a catalogue."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ContractError
from feature_repo.folds.interests import TIER_EDGES
from feature_repo.layouts import DIM, FIRST_CODES, TIERS
from models.tiers import item_table

NEAR_AN_EDGE = 1e-5  # float32 sums of another order may fall to the other side


def some_items(seed: int, count: int, codes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), rng.integers(0, codes, count).astype(np.int32)


def plain_cosines(vectors: np.ndarray, codes: np.ndarray) -> list[list[float]]:
    """Of every item to every code's prototype: the mean of the code's items, or of all items where it has none."""
    everything = vectors.astype(float).tolist()
    cosines = [[0.0] * FIRST_CODES for _ in everything]
    for code in range(FIRST_CODES):
        mine = [vector for vector, its in zip(everything, codes, strict=True) if its == code] or everything
        mean = [sum(column) / len(mine) for column in zip(*mine, strict=True)]
        length = math.sqrt(sum(value * value for value in mean))
        for item, vector in enumerate(everything):
            cosines[item][code] = sum(one * other for one, other in zip(vector, mean, strict=True)) / length
    return cosines


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, FIRST_CODES))
def test_the_table_is_that_of_a_plain_loop(seed: int, count: int, codes: int) -> None:
    vectors, first_codes = some_items(seed, count, codes)
    table = item_table(vectors, first_codes)
    np.testing.assert_array_equal(table.vectors, vectors)
    assert table.first_codes.tolist() == first_codes.tolist()
    for tiers, cosines in zip(table.tiers.tolist(), plain_cosines(vectors, first_codes), strict=True):
        for tier, cosine in zip(tiers, cosines, strict=True):
            if all(abs(cosine - edge) > NEAR_AN_EDGE for edge in TIER_EDGES):
                assert tier == sum(cosine >= edge for edge in TIER_EDGES)


def test_every_tier_is_reached() -> None:
    axes = np.eye(DIM, dtype=np.float32)
    leaning = np.sqrt(1 - 0.05**2) * axes[1] + np.array([[0.05], [-0.05]]) * axes[0]
    vectors = np.concatenate([axes[:1], -axes[:1], leaning]).astype(np.float32)
    tiers = item_table(vectors, np.array([0, 1, 2, 3], np.int32)).tiers
    assert tiers[:, 0].tolist() == [3, 0, 2, 1]
    assert tiers.max() < TIERS


def test_a_table_is_made_for_compiled_loops() -> None:
    vectors, codes = some_items(1, 9, 4)
    table = item_table(np.asfortranarray(vectors), codes)
    assert table.vectors.flags.c_contiguous and table.vectors.dtype == np.float32
    assert table.tiers.shape == (9, FIRST_CODES)
    assert table.first_codes.dtype == table.tiers.dtype == np.uint8


def test_an_empty_catalogue_has_an_empty_table() -> None:
    table = item_table(np.zeros((0, DIM), np.float32), np.zeros(0, np.int32))
    assert (table.vectors.shape, table.tiers.shape) == ((0, DIM), (0, FIRST_CODES))


def test_more_first_codes_than_a_row_has_room_for_are_refused() -> None:
    vectors, _ = some_items(1, 2, 1)
    item_table(vectors, np.array([0, FIRST_CODES - 1], np.int32))
    with pytest.raises(
        ContractError, match=f"found first-level code {FIRST_CODES}, expected codes below {FIRST_CODES}"
    ):
        item_table(vectors, np.array([0, FIRST_CODES], np.int32))
