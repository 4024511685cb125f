"""Laws of paths: one item each, near things near, the same seed the same paths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError, TooLarge
from models.semantic_ids import (
    Codebook,
    assign_paths,
    fit_codebook,
    free_path,
    nearest_paths,
    path_errors,
)
from models.trie import path_numbers


def cloud(items: int, seed: int = 0, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)


@given(st.integers(1, 64), st.integers(0, 1000), st.integers(1, 5))
def test_every_item_has_a_path_of_its_own(items: int, seed: int, copies: int) -> None:
    vectors = cloud(items, seed)[np.arange(items) // copies]  # equal vectors want equal paths
    codebook = fit_codebook(vectors, np.random.default_rng(seed), levels=3, size=4)
    codes, health = assign_paths(vectors, codebook)
    assert codes.min() >= 0 and codes.max() < 4
    assert len({tuple(path) for path in codes.tolist()}) == items
    moved = (codes != nearest_paths(vectors, codebook)).any(axis=1)
    assert health.collisions == moved.sum()
    assert health.final_error == pytest.approx(path_errors(vectors, codes, codebook).mean())


def test_an_item_alone_on_its_path_keeps_it_and_of_several_the_nearest_does() -> None:
    codebook = Codebook(np.array([[[0.0], [10.0]], [[0.0], [1.0]]], np.float32))
    vectors = np.array([[0.3], [0.1], [10.0]], np.float32)
    codes, health = assign_paths(vectors, codebook)
    assert codes.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert (health.collisions, health.largest_bucket) == (1, 2)


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


def test_items_of_a_cluster_share_their_first_code() -> None:
    rng = np.random.default_rng(3)
    centres = 10 * np.eye(4, dtype=np.float32)
    cluster = np.repeat(np.arange(4), 10)
    vectors = (centres[cluster] + rng.normal(scale=0.1, size=(40, 4))).astype(np.float32)
    codes, _ = assign_paths(vectors, fit_codebook(vectors, rng, levels=3, size=4))
    first_codes = [set(codes[cluster == number, 0].tolist()) for number in range(4)]
    assert all(len(found) == 1 for found in first_codes)
    assert len(set.union(*first_codes)) == 4


def test_more_levels_spell_a_vector_more_closely() -> None:
    vectors = cloud(300)
    errors = []
    for levels in (1, 2, 3):
        codebook = fit_codebook(vectors, np.random.default_rng(0), levels=levels, size=8)
        errors.append(path_errors(vectors, nearest_paths(vectors, codebook), codebook).mean())
    assert errors[0] > errors[1] > errors[2]


def test_k_means_is_no_worse_than_random_centroids() -> None:
    vectors = cloud(400)
    fitted = fit_codebook(vectors, np.random.default_rng(0), levels=1, size=16)
    drawn = Codebook(vectors[None, np.random.default_rng(1).choice(400, 16, replace=False)])
    fitted_error, drawn_error = (
        path_errors(vectors, nearest_paths(vectors, codebook), codebook).mean() for codebook in (fitted, drawn)
    )
    assert fitted_error < 0.9 * drawn_error


def test_the_same_seed_gives_the_same_codebook_and_another_seed_another() -> None:
    vectors = cloud(200)
    first, again, other = (
        fit_codebook(vectors, np.random.default_rng(seed), levels=2, size=8).centroids for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_few_items_are_spelled_exactly() -> None:
    vectors = cloud(3)
    codebook = fit_codebook(vectors, np.random.default_rng(0), levels=2, size=8)
    codes, health = assign_paths(vectors, codebook)
    assert health.final_error == pytest.approx(0.0, abs=1e-6)
    assert len(set(codes[:, 0].tolist())) == 3


def test_health_counts_what_is_there() -> None:
    codebook = Codebook(np.array([[[0.0], [10.0], [20.0], [30.0]], [[0.0], [1.0], [2.0], [3.0]]], np.float32))
    vectors = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    _, health = assign_paths(vectors, codebook)
    assert health.usage == (0.5, 0.5)
    assert health.entropy == pytest.approx((np.log(2), np.log(2)))
    assert (health.greedy_error, health.collisions, health.largest_bucket) == (0.0, 0, 1)
    assert "50% at entropy 0.69" in "\n".join(health.lines())


def test_no_items_and_too_many_items_are_refused() -> None:
    with pytest.raises(InputError, match="found no items"):
        fit_codebook(np.zeros((0, 4), np.float32), np.random.default_rng(0), levels=3, size=4)
    codebook = fit_codebook(cloud(5), np.random.default_rng(0), levels=1, size=4)
    with pytest.raises(TooLarge, match="found 5 items, expected at most 4 paths"):
        assign_paths(cloud(5), codebook)
