"""Item vector -> code path, and the rule that gives every item a path of its own: numpy only, as serving needs it.

Letters used in this file
    I items   D width of a vector   L levels   V codes of one level

A path spells a vector as a sum of L centroids, coarse to fine. Two near vectors may get the same path; the collision
rule (`free_path`) then moves all but one of them, so that a path names one item for good. How codebooks are learned:
models/codebook_training.py; how good they are: models/tokenizer_health.py.

Source: OneRec, arXiv:2506.13695 (RQ-KMeans). Kept: residuals per level, plain Euclidean distance. Added: the
collision rule, since an answer must name one item.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import TooLarge
from feature_repo.layouts import FIRST_CODES
from models.k_means import Floats, Ints, nearest
from models.trie import path_numbers


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


def nearest_paths(vectors: Floats, codebook: Codebook) -> Ints:
    """(I, L) each vector's nearest code, level by level; paths may repeat."""
    codes = np.empty((len(vectors), codebook.levels), np.int32)
    residual = vectors.astype(np.float32, copy=True)
    for level, centroids in enumerate(codebook.centroids):
        codes[:, level], _ = nearest(residual, centroids)
        residual -= centroids[codes[:, level]]
    return codes


def code_groups(first_codes: Ints, size: int) -> Ints:
    """First-level codes of V = `size` as at most FIRST_CODES groups of like codes; themselves when they are so few.

    Stored states keep groups. Codebooks number the codes of their first level so that groups hold like ones.
    """
    return first_codes if size <= FIRST_CODES else first_codes * FIRST_CODES // size


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


def assign_paths(vectors: Floats, codebook: Codebook, wanted: Ints | None = None) -> Ints:
    """(I, L) one path per item.

    Of the items that want one path, the one nearest to it keeps it (the first of equals). The others take
    `free_path`, nearest first, after every item that keeps its path has been placed.

    Args:
        wanted: (I, L) the path each item would have if it were alone; `nearest_paths` when absent.

    Raises:
        TooLarge: more items than paths.
    """
    if len(vectors) > codebook.size**codebook.levels:
        raise TooLarge(f"found {len(vectors)} items, expected at most {codebook.size**codebook.levels} paths")
    wanted = nearest_paths(vectors, codebook) if wanted is None else wanted
    numbers = path_numbers(wanted, codebook.size)
    by_error = np.argsort(path_errors(vectors, wanted, codebook), kind="stable")
    _, first = np.unique(numbers[by_error], return_index=True)
    keeps = np.zeros(len(vectors), bool)
    keeps[by_error[first]] = True

    codes = wanted.copy()
    used = set(numbers[keeps].tolist())
    for item in by_error[~keeps[by_error]]:
        codes[item] = free_path(vectors[item], codebook, used.__contains__)
        used.add(int(path_numbers(codes[item][None], codebook.size)[0]))
    return codes


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
