"""Laws of the health report: it counts what is there, and a build beyond its limits is refused by the number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ArtefactError
from models.codebook_training import fit_codebook
from models.semantic_ids import Codebook, assign_paths, nearest_paths
from models.tokenizer_health import (
    Health,
    HealthLimits,
    churn,
    health_of,
    purity,
    require_health,
    require_spread,
)

LADDER = Codebook(np.array([[[0.0], [10.0], [20.0], [30.0]], [[0.0], [1.0], [2.0], [3.0]]], np.float32))
SOUND = Health(
    items=1000,
    size=64,
    nearest_error=0.3,
    error=0.32,
    usage=(1.0, 1.0, 0.9),
    entropy=(4.0, 4.0, 3.9),
    collisions=200,
    largest_bucket=20,
    moved=200,
    spilled=0,
    purity=(0.1, 0.5, 0.7),
)


def test_health_counts_what_is_there() -> None:
    vectors = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    health = health_of(vectors, LADDER, assign_paths(vectors, LADDER))
    assert health.usage == (0.5, 0.5)
    assert health.entropy == pytest.approx((np.log(2), np.log(2)))
    assert (health.nearest_error, health.error, health.collisions, health.largest_bucket) == (0.0, 0.0, 0, 1)
    assert "50.0% / 50.0%" in "\n".join(health.lines())


def test_items_that_share_a_nearest_path_are_counted_and_so_are_those_that_moved() -> None:
    vectors = np.array([[0.1], [0.2], [0.3], [20.0]], np.float32)
    health = health_of(vectors, LADDER, assign_paths(vectors, LADDER))
    assert (health.collisions, health.largest_bucket, health.moved, health.spilled) == (2, 3, 2, 0)
    assert health.error > health.nearest_error


@given(st.integers(1, 50), st.integers(0, 100))
def test_plain_builds_move_those_that_collide_and_nobody_else(items: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(items, 3)).astype(np.float32)
    codebook = fit_codebook(vectors, np.random.default_rng(seed), levels=3, size=4).codebook
    health = health_of(vectors, codebook, assign_paths(vectors, codebook))
    assert health.moved == health.collisions
    assert health.largest_bucket <= 1 + health.collisions


def test_purity_is_the_share_of_the_commonest_category_behind_a_prefix() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]], np.int32)
    assert purity(codes, ["a", "a", "a", "b", "b"]) == pytest.approx((0.6, 0.8))
    assert purity(codes, ["a", "", "", "b", "b"]) == pytest.approx((2 / 3, 1.0))


@given(st.integers(1, 40), st.integers(0, 100))
def test_purity_never_falls_with_depth(items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = purity(rng.integers(0, 3, (items, 4)).astype(np.int32), rng.choice(list("abc"), items).tolist())
    assert list(found) == sorted(found) and found[-1] <= 1.0


def test_a_prefix_changes_with_its_first_code_or_any_later_one() -> None:
    before = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], np.int32)
    now = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]], np.int32)
    assert churn(before, now) == (0.25, 0.5, 0.75)
    assert churn(before, before) == (0.0, 0.0, 0.0)
    assert churn(before[:, :2], now) == (1.0, 1.0, 1.0)


def test_churn_is_told_of_items_that_both_versions_hold() -> None:
    vectors = np.array([[0.0], [10.0]], np.float32)
    codes = nearest_paths(vectors, LADDER)
    assert health_of(vectors, LADDER, codes).churn == ()
    assert health_of(vectors, LADDER, codes, before=(codes[:0], codes[:0])).churn == ()
    assert health_of(vectors, LADDER, codes, before=(codes, codes)).churn == (0.0, 0.0)


def test_a_sound_build_is_not_refused() -> None:
    require_health(SOUND, HealthLimits())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"error": 0.9}, r"found squared error 0\.900, expected at most 0\.8; use larger codebooks"),
        ({"usage": (1.0, 0.4, 1.0)}, "found 40% of the codes of level 2 in use, expected at least 50%"),
        ({"entropy": (4.0, 4.0, 1.0)}, r"found entropy 1\.00 on level 3, expected at least 1\.66"),
        ({"moved": 950}, "found 950 of 1000 items off their nearest path, expected at most 90%"),
    ],
)
def test_a_build_beyond_a_limit_is_refused_by_the_number(fault: dict[str, object], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        require_health(SOUND._replace(**fault), HealthLimits())


def test_churn_has_a_limit_for_those_who_set_one() -> None:
    turned = SOUND._replace(churn=(0.4, 0.5, 0.6))
    require_health(turned, HealthLimits())
    with pytest.raises(ArtefactError, match="found 40% of the items under another first code, expected at most 10%"):
        require_health(turned, HealthLimits(churn=0.1))


def test_a_catalogue_no_larger_than_one_level_is_not_asked() -> None:
    require_health(SOUND._replace(items=64, usage=(1.0, 0.1, 0.1), entropy=(4.0, 0.0, 0.0)), HealthLimits())


def test_constant_vectors_are_refused_before_paths_are_assigned() -> None:
    alike = np.ones((9, 1), np.float32)
    with pytest.raises(ArtefactError, match=r"found 5 of 9 items without room .*tell them apart"):
        require_spread(alike, LADDER, HealthLimits())
    require_spread(alike[:5], LADDER, HealthLimits())
