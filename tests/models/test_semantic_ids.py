"""Laws of paths: one item each, the nearest keeps its own, the others move the least."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import TooLarge
from models.codebook_training import Variant, fit_codebook
from models.semantic_ids import Codebook, assign_paths, free_path, nearest_paths
from models.trie import path_numbers


def cloud(items: int, seed: int = 0, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)


@given(st.integers(1, 64), st.integers(0, 1000), st.integers(1, 5), st.sampled_from(Variant))
def test_every_item_has_a_path_of_its_own(items: int, seed: int, copies: int, variant: Variant) -> None:
    vectors = cloud(items, seed)[np.arange(items) // copies]  # equal vectors want equal paths
    fitted = fit_codebook(vectors, np.random.default_rng(seed), levels=3, size=4, variant=variant)
    codes = assign_paths(vectors, fitted.codebook, fitted.wanted)
    assert codes.min() >= 0 and codes.max() < 4
    assert len({tuple(path) for path in codes.tolist()}) == items
    kept = (codes == fitted.wanted).all(axis=1)
    assert kept.sum() == len({tuple(path) for path in fitted.wanted.tolist()})


def test_an_item_alone_on_its_path_keeps_it_and_of_several_the_nearest_does() -> None:
    codebook = Codebook(np.array([[[0.0], [10.0]], [[0.0], [1.0]]], np.float32))
    vectors = np.array([[0.3], [0.1], [10.0]], np.float32)
    assert assign_paths(vectors, codebook).tolist() == [[0, 1], [0, 0], [1, 0]]


def test_an_item_may_want_another_path_than_its_nearest() -> None:
    codebook = Codebook(np.array([[[0.0], [10.0]], [[0.0], [1.0]]], np.float32))
    vectors, wanted = np.array([[0.3], [0.1]], np.float32), np.array([[1, 1], [0, 0]], np.int32)
    assert nearest_paths(vectors, codebook).tolist() == [[0, 0], [0, 0]]
    assert assign_paths(vectors, codebook, wanted).tolist() == wanted.tolist()


def test_the_collision_rule_tries_the_same_prefix_first_and_then_the_next_nearest() -> None:
    codebook = Codebook(np.array([[[0.0], [10.0], [4.0]], [[0.0], [1.0], [3.0]]], np.float32))
    taken: set[int] = set()
    order = []
    for _ in range(9):
        path = free_path(np.array([0.2], np.float32), codebook, taken.__contains__)
        taken.add(int(path_numbers(path[None], 3)[0]))
        order.append(path.tolist())
    assert order == [[0, 0], [0, 1], [0, 2], [2, 0], [2, 1], [2, 2], [1, 0], [1, 1], [1, 2]]
    with pytest.raises(TooLarge, match="all 9 paths are taken"):
        free_path(np.array([0.2], np.float32), codebook, taken.__contains__)


def test_more_items_than_paths_are_refused() -> None:
    codebook = fit_codebook(cloud(5), np.random.default_rng(0), levels=1, size=4).codebook
    with pytest.raises(TooLarge, match="found 5 items, expected at most 4 paths"):
        assign_paths(cloud(5), codebook)
