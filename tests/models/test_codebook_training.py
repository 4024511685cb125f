"""Laws of codebooks: levels refine, balance holds on every level, like codes have like numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from feature_repo.layouts import FIRST_CODES
from models.codebook_training import Variant, fit_codebook
from models.semantic_ids import assign_paths, code_groups, nearest_paths, path_errors


def cloud(items: int, seed: int = 0, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)


def test_items_of_a_cluster_share_their_first_code() -> None:
    rng = np.random.default_rng(3)
    centres = 10 * np.eye(4, dtype=np.float32)
    cluster = np.repeat(np.arange(4), 10)
    vectors = (centres[cluster] + rng.normal(scale=0.1, size=(40, 4))).astype(np.float32)
    fitted = fit_codebook(vectors, rng, levels=3, size=4)
    codes = assign_paths(vectors, fitted.codebook, fitted.wanted)
    first_codes = [set(codes[cluster == number, 0].tolist()) for number in range(4)]
    assert all(len(found) == 1 for found in first_codes)
    assert len(set.union(*first_codes)) == 4


def test_more_levels_spell_a_vector_more_closely() -> None:
    vectors = cloud(300)
    errors = []
    for levels in (1, 2, 3):
        codebook = fit_codebook(vectors, np.random.default_rng(0), levels=levels, size=8).codebook
        errors.append(path_errors(vectors, nearest_paths(vectors, codebook), codebook).mean())
    assert errors[0] > errors[1] > errors[2]


@given(st.integers(1, 60), st.integers(0, 100), st.sampled_from(Variant))
def test_the_wanted_paths_are_those_of_the_codebook(items: int, seed: int, variant: Variant) -> None:
    vectors = cloud(items, seed)
    fitted = fit_codebook(vectors, np.random.default_rng(seed), levels=3, size=8, variant=variant)
    assert fitted.codebook.centroids.shape == (3, 8, 6) and fitted.wanted.shape == (items, 3)
    if variant is Variant.PLAIN:
        wanted, nearest = (
            path_errors(vectors, codes, fitted.codebook)
            for codes in (fitted.wanted, nearest_paths(vectors, fitted.codebook))
        )
        np.testing.assert_allclose(wanted, nearest, atol=1e-4)


def test_balance_holds_on_every_level_and_costs_closeness() -> None:
    vectors = cloud(160)
    plain, balanced = (
        fit_codebook(vectors, np.random.default_rng(0), levels=2, size=16, variant=variant) for variant in Variant
    )
    for level in range(2):
        assert np.bincount(balanced.wanted[:, level]).tolist() == [10] * 16
    errors = [path_errors(vectors, fitted.wanted, fitted.codebook).mean() for fitted in (plain, balanced)]
    assert errors[0] < errors[1]


def test_the_same_seed_gives_the_same_codebook_and_another_seed_another() -> None:
    vectors = cloud(200)
    first, again, other = (
        fit_codebook(vectors, np.random.default_rng(seed), levels=2, size=8).codebook.centroids for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [2 * FIRST_CODES, 2 * FIRST_CODES + 7])
def test_many_first_codes_are_numbered_so_that_groups_hold_like_ones(size: int) -> None:
    vectors = cloud(2000, width=3)
    fitted = fit_codebook(vectors, np.random.default_rng(0), levels=2, size=size)
    first = fitted.codebook.centroids[0]
    groups = code_groups(np.arange(size, dtype=np.int32), size)
    assert groups.min() == 0 and groups.max() == FIRST_CODES - 1
    within = np.mean(
        [
            np.square(first[groups == group] - first[groups == group].mean(axis=0)).sum(axis=1).mean()
            for group in range(FIRST_CODES)
        ]
    )
    assert within < 0.2 * np.square(first - first.mean(axis=0)).sum(axis=1).mean()
    errors = path_errors(vectors, fitted.wanted, fitted.codebook)
    np.testing.assert_allclose(
        errors, path_errors(vectors, nearest_paths(vectors, fitted.codebook), fitted.codebook), atol=1e-4
    )


def test_few_codes_are_their_own_groups() -> None:
    codes = np.arange(FIRST_CODES, dtype=np.int32)
    np.testing.assert_array_equal(code_groups(codes, FIRST_CODES), codes)


def test_a_codebook_larger_than_the_catalogue_tells_every_item_by_its_first_code() -> None:
    vectors = cloud(3)
    fitted = fit_codebook(vectors, np.random.default_rng(0), levels=2, size=8)
    codes = assign_paths(vectors, fitted.codebook, fitted.wanted)
    assert path_errors(vectors, codes, fitted.codebook).max() == pytest.approx(0.0, abs=1e-6)
    assert len(set(codes[:, 0].tolist())) == 3


@pytest.mark.parametrize(
    ("vectors", "levels", "size", "message"),
    [
        (np.zeros((0, 4), np.float32), 3, 4, "found no items"),
        (
            np.array([[0.0], [np.nan], [np.inf]], np.float32),
            3,
            4,
            "found 2 vectors with NaN or infinity, the first of item 1",
        ),
        (np.zeros((2, 4), np.float32), 0, 4, "found 0 levels of 4 codes"),
        (np.zeros((2, 4), np.float32), 3, 0, "found 3 levels of 0 codes"),
    ],
)
def test_what_cannot_be_learned_is_refused(vectors: np.ndarray, levels: int, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_codebook(vectors, np.random.default_rng(0), levels=levels, size=size)
