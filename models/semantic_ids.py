"""Item vector -> code path: residual k-means, then one item per path.

Letters used in this file
    I items   D width of a vector   L levels   V codes of one level

A path spells a vector as a sum of L centroids, coarse to fine. Two near vectors may get the same path; the collision
rule (`free_path`) then moves all but one of them, so that a path names one item for good.

Source: OneRec, arXiv:2506.13695 (RQ-KMeans). Kept: k-means of the residuals per level, plain Euclidean distance,
the quality metrics. Left out: the balanced clusters of arXiv:2502.18965, since the collision rule already spreads
items and a balanced cluster pulls unlike items together in a small catalogue.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import InputError, TooLarge
from models.trie import path_numbers

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_ROUNDS = 25  # of Lloyd's algorithm: assignments of the excerpt stand still after about 20
_CHUNK = 8192  # items whose distances to one level's centroids are held at once


class Codebook(NamedTuple):
    """What the codes of every level stand for."""

    centroids: Floats  # (L, V, D)

    @property
    def levels(self) -> int:
        """L."""
        return len(self.centroids)

    @property
    def size(self) -> int:
        """V."""
        return int(self.centroids.shape[1])


class Health(NamedTuple):
    """How good an assignment of paths is; the quality metrics of OneRec and the price of being one-to-one."""

    items: int
    greedy_error: float  # mean squared distance of vector and path when every item takes its nearest codes
    final_error: float  # the same after collisions were resolved; unit vectors, so 1 would be no information
    usage: tuple[float, ...]  # per level, share of codes used by at least one item
    entropy: tuple[float, ...]  # per level, natural log; ln V is a perfectly even use
    collisions: int  # items that could not keep their nearest path
    largest_bucket: int  # most items that shared one nearest path

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        levels = zip(self.usage, self.entropy, strict=True)
        return [
            f"{self.items} items; squared error {self.greedy_error:.4f}, one-to-one {self.final_error:.4f}",
            "codes used per level: " + ", ".join(f"{used:.0%} at entropy {nats:.2f}" for used, nats in levels),
            f"{self.collisions} items moved to a free path; the fullest path held {self.largest_bucket}",
        ]


def fit_codebook(vectors: Floats, rng: np.random.Generator, *, levels: int, size: int) -> Codebook:
    """Centroids for `levels` levels of `size` codes, a function of the vectors and the generator's state.

    Args:
        vectors: (I, D) float32.
    """
    centroids = np.zeros((levels, size, vectors.shape[1]), np.float32)
    residual = vectors.astype(np.float32, copy=True)
    for level in range(levels):
        centroids[level] = _k_means(residual, size, rng)
        residual -= centroids[level][_nearest(residual, centroids[level])[0]]
    return Codebook(centroids)


def nearest_paths(vectors: Floats, codebook: Codebook) -> Ints:
    """(I, L) each vector's nearest code, level by level; paths may repeat."""
    codes = np.empty((len(vectors), codebook.levels), np.int32)
    residual = vectors.astype(np.float32, copy=True)
    for level, centroids in enumerate(codebook.centroids):
        codes[:, level], _ = _nearest(residual, centroids)
        residual -= centroids[codes[:, level]]
    return codes


def free_path(vector: Floats, codebook: Codebook, taken: Callable[[int], bool]) -> Ints:
    """The path of a vector under the collision rule: (L,) codes.

    The rule: the nearest free last code behind the nearest prefix; when all of them are taken, the next-nearest code
    one level up, and so on. It always finds a path while one is free, and it moves nobody else.

    Args:
        taken: says of a path's number (`models.trie.path_numbers`) whether it is in use.

    Raises:
        TooLarge: every path is taken.
    """
    codes = _search(vector, codebook, taken, 0, 0)
    if codes is None:
        paths = codebook.size**codebook.levels
        raise TooLarge(f"all {paths} paths are taken; train semantic ids with a larger codebook")
    return np.array(codes, np.int32)


def assign_paths(vectors: Floats, codebook: Codebook) -> tuple[Ints, Health]:
    """One path per item, and what it cost.

    Of the items that share a nearest path, the one nearest to it keeps it (the first of equals). The others take
    `free_path`, nearest first, after every item that keeps its path has been placed.
    """
    if len(vectors) > codebook.size**codebook.levels:
        raise TooLarge(f"found {len(vectors)} items, expected at most {codebook.size**codebook.levels} paths")
    wanted = nearest_paths(vectors, codebook)
    numbers = path_numbers(wanted, codebook.size)
    errors = path_errors(vectors, wanted, codebook)
    by_error = np.argsort(errors, kind="stable")
    _, first = np.unique(numbers[by_error], return_index=True)
    keeps = np.zeros(len(vectors), bool)
    keeps[by_error[first]] = True

    codes = wanted.copy()
    used = set(numbers[keeps].tolist())
    for item in by_error[~keeps[by_error]]:
        codes[item] = free_path(vectors[item], codebook, used.__contains__)
        used.add(int(path_numbers(codes[item][None], codebook.size)[0]))
    counts = np.unique(numbers, return_counts=True)[1]
    usage, entropy = zip(*(_use(codes[:, level], codebook.size) for level in range(codebook.levels)), strict=True)
    return codes, Health(
        items=len(vectors),
        greedy_error=float(errors.mean()),
        final_error=float(path_errors(vectors, codes, codebook).mean()),
        usage=usage,
        entropy=entropy,
        collisions=int((~keeps).sum()),
        largest_bucket=int(counts.max()),
    )


def path_errors(vectors: Floats, codes: Ints, codebook: Codebook) -> npt.NDArray[np.float64]:
    """(I,) squared distance between each vector and the sum of its codes' centroids."""
    spelled = codebook.centroids[np.arange(codebook.levels), codes].sum(axis=1)
    return np.asarray(np.square(vectors - spelled).sum(axis=1, dtype=np.float64))


def _search(
    residual: Floats, codebook: Codebook, taken: Callable[[int], bool], level: int, prefix: int
) -> tuple[int, ...] | None:
    centroids = codebook.centroids[level]
    for code in np.argsort(np.square(residual - centroids).sum(axis=1), kind="stable").tolist():
        number = prefix * codebook.size + code
        if level + 1 == codebook.levels:
            if not taken(number):
                return (code,)
        elif (rest := _search(residual - centroids[code], codebook, taken, level + 1, number)) is not None:
            return (code, *rest)
    return None


def _k_means(points: Floats, size: int, rng: np.random.Generator) -> Floats:
    """(size, D) centroids: k-means++ seeds, then Lloyd. Empty clusters restart at the worst-served points.

    With no more points than `size`, every point is its own centroid and the rest stand at zero.
    """
    if len(points) == 0:
        raise InputError("found no items, expected at least one; load a catalogue before training semantic ids")
    if len(points) <= size:
        return np.concatenate([points, np.zeros((size - len(points), points.shape[1]), np.float32)])
    centroids = _seeds(points, size, rng)
    before = np.full(len(points), -1, np.int32)
    for _ in range(_ROUNDS):
        labels, distances = _nearest(points, centroids)
        if (labels == before).all():
            break
        counts = np.bincount(labels, minlength=size)
        order = np.argsort(labels, kind="stable")
        filled = np.flatnonzero(counts)
        starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
        centroids[filled] = np.add.reduceat(points[order], starts) / counts[filled, None]
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = points[np.argsort(-distances, kind="stable")[: len(empty)]]
        before = labels
    return centroids


def _seeds(points: Floats, size: int, rng: np.random.Generator) -> Floats:
    chosen = [int(rng.integers(len(points)))]
    nearest = np.square(points - points[chosen[0]]).sum(axis=1, dtype=np.float64)
    while len(chosen) < size:
        total = nearest.sum()
        pick = int(np.searchsorted(np.cumsum(nearest), rng.random() * total)) if total > 0 else len(chosen)
        chosen.append(min(pick, len(points) - 1))
        np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1, dtype=np.float64), out=nearest)
    return points[chosen].copy()


def _nearest(points: Floats, centroids: Floats) -> tuple[Ints, Floats]:
    """(n,) the nearest centroid of each point (the lower of equals), and the squared distance to it."""
    labels = np.empty(len(points), np.int32)
    distances = np.empty(len(points), np.float32)
    norms = np.square(centroids).sum(axis=1)
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK]
        squared = norms - 2.0 * (chunk @ centroids.T)
        best = squared.argmin(axis=1)
        labels[start : start + len(chunk)] = best
        distances[start : start + len(chunk)] = squared[np.arange(len(chunk)), best] + np.square(chunk).sum(axis=1)
    return labels, distances


def _use(codes: Ints, size: int) -> tuple[float, float]:
    shares = np.bincount(codes, minlength=size) / len(codes)
    used = shares[shares > 0]
    return float(len(used) / size), float(-(used * np.log(used)).sum())
