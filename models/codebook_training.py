"""Vectors -> codebook: residual k-means, level by level, plain or balanced.

Letters used in this file
    I items   D width of a vector   L levels   V codes of one level

Source: RQ-KMeans of OneRec, arXiv:2506.13695; balanced clusters of arXiv:2502.18965. Beside them, for comparison
only, models/rq_vae.py.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from feature_repo.layouts import FIRST_CODES
from models.k_means import Floats, Ints, balanced_k_means, even_room, k_means
from models.semantic_ids import Codebook, code_groups


class Variant(StrEnum):
    """How the clusters of a level are found."""

    PLAIN = "plain"  # every item in its nearest cluster
    BALANCED = "balanced"  # as many items in every cluster


class Fitted(NamedTuple):
    """A codebook, and the paths that the items had while it was learned; paths may repeat."""

    codebook: Codebook
    wanted: Ints  # (I, L)


def fit_codebook(
    vectors: Floats, rng: np.random.Generator, *, levels: int, size: int, variant: Variant = Variant.PLAIN
) -> Fitted:
    """`levels` levels of `size` codes, a function of the vectors and the generator's state.

    A first level of more than FIRST_CODES codes is numbered so that like codes have like numbers: their groups
    (`models.semantic_ids.code_groups`) are what stored states keep. A codebook larger than the catalogue gives every
    vector a first code of its own.

    Args:
        vectors: (I, D) float32.

    Raises:
        InputError: there are no vectors, one is not finite, or a number of levels or codes is below 1.
    """
    if len(vectors) == 0:
        raise InputError("found no items, expected at least one; load a catalogue before training semantic ids")
    if min(levels, size) < 1:
        raise InputError(f"found {levels} levels of {size} codes, expected at least 1 of each")
    if (bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))).size:
        raise InputError(
            f"found {bad.size} vectors with NaN or infinity, the first of item {bad[0]}, expected finite numbers; "
            "mend or leave out these items"
        )
    centroids = np.zeros((levels, size, vectors.shape[1]), np.float32)
    wanted = np.zeros((len(vectors), levels), np.int32)
    residual = vectors.astype(np.float32, copy=True)
    for level in range(levels):
        if variant is Variant.BALANCED:
            found = balanced_k_means(residual, even_room(len(vectors), size), rng)
        else:
            found = k_means(residual, size, rng)
        if level == 0 and size > FIRST_CODES:
            order = _by_likeness(found.centroids, rng)
            found = found._replace(centroids=found.centroids[order], labels=_places(order)[found.labels])
        centroids[level], wanted[:, level] = found
        residual -= found.centroids[found.labels]
    return Fitted(Codebook(centroids), wanted)


def _by_likeness(centroids: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(V,) the codes, group by group of near ones, each group as large as `code_groups` will cut."""
    size = len(centroids)
    room = np.bincount(code_groups(np.arange(size, dtype=np.int32), size), minlength=FIRST_CODES).astype(np.int32)
    return np.argsort(balanced_k_means(centroids, room, rng).labels, kind="stable")


def _places(order: npt.NDArray[np.int64]) -> Ints:
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order))
    return places
