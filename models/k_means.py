"""k-means, plain and with clusters of a given size; numpy alone, a function of the points and the generator's state.

Letters used in this file
    n points   V clusters   D width of a point

Source: Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii, SODA 2007), the seeds drawn several at a
time as in k-means|| (Bahmani et al., VLDB 2012), since one matrix product is far faster than many passes. Balanced:
arXiv:2502.18965, algorithm 1. Why not a library: docs/adr/0010.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import InputError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_ROUNDS: Final = 25  # of assigning and averaging: the excerpt stands still after about 20
_STILL: Final = 1e-4  # a round that improves the error by less than this share is the last
_BLOCK: Final = 1 << 21  # distances held at once, 8 MB: they stay near the processor
_SEED_SHARE: Final = 8  # a round draws one seed for so many that there are: errors as one by one, five times as fast
_COLUMNS: Final = 64  # clusters that the balanced rule measures distances to at once


class Clusters(NamedTuple):
    """Where the clusters stand, and who belongs to them."""

    centroids: Floats  # (V, D)
    labels: Ints  # (n,)


def k_means(points: Floats, size: int, rng: np.random.Generator) -> Clusters:
    """`size` clusters of small squared error; every point belongs to the nearest (the lower of equals).

    With no more points than `size`, every point is its own centroid and the rest stand at zero. A cluster that lost
    its points begins anew at the worst-served one.

    Args:
        points: (n, D) float32, finite; at least one.
    """
    if len(points) <= size:
        centroids = _spare(points, size)
        return Clusters(centroids, nearest(points, centroids)[0])
    centroids = _seeds(points, size, rng)
    labels, distances = nearest(points, centroids)
    for _ in range(_ROUNDS):
        counts = np.bincount(labels, minlength=size)
        centroids[counts > 0] = _means(points, labels, counts)
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = points[np.argsort(-distances, kind="stable")[: len(empty)]]
        before, error = labels, float(distances.sum(dtype=np.float64))
        labels, distances = nearest(points, centroids)
        if (labels == before).all() or distances.sum(dtype=np.float64) > (1 - _STILL) * error:
            break
    return Clusters(centroids, labels)


def balanced_k_means(points: Floats, room: Ints, rng: np.random.Generator) -> Clusters:
    """Clusters that hold exactly as many points as they have room for.

    In turn every cluster takes the nearest points that no earlier one took; then each moves to their mean, until
    nobody moves. A point's cluster is often not its nearest: the last ones take what is left. With no more points
    than clusters, as `k_means`.

    Args:
        points: (n, D) float32, finite; at least one.
        room: (V,) points per cluster, n together.
    """
    if room.sum() != len(points):
        raise InputError(f"found {len(points)} points, expected {room.sum()}, as many as the clusters have room for")
    if len(points) <= len(room):
        return k_means(points, len(room), rng)
    centroids = _seeds(points, len(room), rng)
    labels = np.full(len(points), -1, np.int32)
    for _ in range(_ROUNDS):
        before, labels = labels, _in_turn(points, centroids, room)
        centroids[room > 0] = _means(points, labels, room)
        if (labels == before).all():
            break
    return Clusters(centroids, labels)


def even_room(points: int, size: int) -> Ints:
    """(size,) how many points each of `size` equal clusters holds: the first ones one more when it does not divide."""
    return np.full(size, points // size, np.int32) + (np.arange(size) < points % size).astype(np.int32)


def nearest(points: Floats, centroids: Floats) -> tuple[Ints, Floats]:
    """(n,) the nearest centroid of each point (the lower of equals), and the squared distance to it."""
    labels = np.empty(len(points), np.int32)
    distances = np.empty(len(points), np.float32)
    norms, doubled = np.square(centroids).sum(axis=1), -2.0 * centroids.T
    step = max(1, _BLOCK // len(centroids))
    for start in range(0, len(points), step):
        chunk = points[start : start + step]
        squared = chunk @ doubled
        squared += norms
        best = squared.argmin(axis=1)
        labels[start : start + step] = best
        distances[start : start + step] = squared[np.arange(len(chunk)), best] + np.square(chunk).sum(axis=1)
    return labels, np.maximum(distances, 0)


def _in_turn(points: Floats, centroids: Floats, room: Ints) -> Ints:
    labels = np.full(len(points), -1, np.int32)
    left = np.arange(len(points))
    for start in range(0, len(room), _COLUMNS):
        stop = min(start + _COLUMNS, len(room))
        some = centroids[start:stop]
        distances = np.square(some).sum(axis=1)[:, None] - 2.0 * (some @ points[left].T)  # less what all share
        for cluster in range(start, stop):
            row, wanted = distances[cluster - start], int(room[cluster])
            taken = np.argpartition(row, wanted - 1)[:wanted] if 0 < wanted < len(left) else np.arange(len(left))
            if wanted:
                labels[left[taken]] = cluster
                distances[:, taken] = np.inf
        left = left[labels[left] < 0]
    return labels


def _means(points: Floats, labels: Ints, counts: npt.NDArray[np.integer]) -> Floats:
    """(filled clusters, D)"""
    filled = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
    ordered = points[np.argsort(labels, kind="stable")]
    return np.asarray(np.add.reduceat(ordered, starts) / counts[filled, None], np.float32)


def _spare(points: Floats, size: int) -> Floats:
    return np.concatenate([points, np.zeros((size - len(points), points.shape[1]), np.float32)])


def _seeds(points: Floats, size: int, rng: np.random.Generator) -> Floats:
    """(size, D) points, each drawn in proportion to its squared distance to those drawn in earlier rounds."""
    chosen = np.array([rng.integers(len(points))])
    gaps = nearest(points, points[chosen])[1]
    while len(chosen) < size:
        wanted = min(max(1, len(chosen) // _SEED_SHARE), size - len(chosen))
        with np.errstate(divide="ignore"):
            keys = rng.exponential(size=len(points)) / gaps  # the smallest: a draw without replacement by `gaps`
        fresh = np.argpartition(keys, wanted - 1)[:wanted]
        chosen = np.concatenate([chosen, fresh])
        np.minimum(gaps, nearest(points, points[fresh])[1], out=gaps)
        gaps[fresh] = 0.0  # rounding may leave a little, and a point drawn twice is a centroid lost
    seeds: Floats = points[chosen]
    return seeds
