"""Laws of k-means: nearest means nearest, balance is exact, the same seed the same clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from models.k_means import balanced_k_means, even_room, k_means, nearest


def cloud(points: int, seed: int = 0, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(points, width)).astype(np.float32)


def squared_error(points: np.ndarray, centroids: np.ndarray) -> float:
    return float(nearest(points, centroids)[1].mean())


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 1000))
def test_every_point_belongs_to_its_nearest_centroid(points: int, size: int, seed: int) -> None:
    vectors = cloud(points, seed)
    found = k_means(vectors, size, np.random.default_rng(seed))
    gaps = np.square(vectors[:, None] - found.centroids).sum(axis=2)
    np.testing.assert_allclose(gaps[np.arange(points), found.labels], gaps.min(axis=1), atol=1e-4)
    assert found.centroids.shape == (size, 6)


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 1000), st.integers(1, 4))
def test_balanced_clusters_hold_what_they_have_room_for(points: int, size: int, seed: int, copies: int) -> None:
    vectors = cloud(points, seed)[np.arange(points) // copies]
    if points > size:
        found = balanced_k_means(vectors, even_room(points, size), np.random.default_rng(seed))
        assert np.bincount(found.labels, minlength=size).tolist() == even_room(points, size).tolist()


def test_room_is_even_and_holds_everybody() -> None:
    assert even_room(11, 4).tolist() == [3, 3, 3, 2]
    with pytest.raises(InputError, match="found 9 points, expected 11"):
        balanced_k_means(cloud(9), even_room(11, 4), np.random.default_rng(0))


def test_a_cluster_that_a_crowd_would_fill_is_shared_out_when_balanced() -> None:
    crowd = np.concatenate([cloud(90, 1) * 0.01, cloud(10, 2) * 0.01 + 50]).astype(np.float32)
    plain = k_means(crowd, 2, np.random.default_rng(0))
    balanced = balanced_k_means(crowd, even_room(100, 2), np.random.default_rng(0))
    assert sorted(np.bincount(plain.labels).tolist()) == [10, 90]
    assert np.bincount(balanced.labels).tolist() == [50, 50]


def test_clusters_are_far_better_than_random_centroids() -> None:
    vectors = cloud(2000)
    fitted = k_means(vectors, 32, np.random.default_rng(0)).centroids
    drawn = vectors[np.random.default_rng(1).choice(2000, 32, replace=False)]
    assert squared_error(vectors, fitted) < 0.8 * squared_error(vectors, drawn)


def test_seeds_drawn_together_find_every_island() -> None:
    islands = np.repeat(100 * np.eye(40, dtype=np.float32), 20, axis=0)
    found = k_means(islands, 40, np.random.default_rng(0))
    assert squared_error(islands, found.centroids) == 0.0


def test_no_more_points_than_clusters_are_their_own_centroids() -> None:
    vectors = cloud(3)
    found = k_means(vectors, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(found.centroids[:3], vectors)
    assert found.labels.tolist() == [0, 1, 2] and not found.centroids[3:].any()


def test_constant_points_are_one_cluster() -> None:
    found = k_means(np.ones((50, 4), np.float32), 8, np.random.default_rng(0))
    assert set(found.labels.tolist()) == {0}
    np.testing.assert_allclose(found.centroids, 1.0)


def test_blocks_of_distances_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centroids = cloud(500), cloud(17, 3)
    whole = nearest(points, centroids)[0]
    monkeypatch.setattr("models.k_means._BLOCK", 17 * 7)
    np.testing.assert_array_equal(nearest(points, centroids)[0], whole)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_same_seed_gives_the_same_clusters(balanced: bool) -> None:
    vectors, room = cloud(300), even_room(300, 20)
    first, again, other = (
        balanced_k_means(vectors, room, np.random.default_rng(seed))
        if balanced
        else k_means(vectors, 20, np.random.default_rng(seed))
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert not np.array_equal(first.centroids, other.centroids)
