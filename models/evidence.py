"""Neighbour evidence: for each request, the items near what its user did, before anything is learned.

Letters used in this file
    n requests   H acts of a history   I items   E items near a history   S sources

An item is as near as the sum, over the acts of the history, of its weight as a neighbour of the act's item, times
`DECAY` per act that is newer. Of all items the E nearest are kept, each source counted as shares of its own sum.

A sample for training must not find itself in its evidence: the counts of co-occurrence hold the very pair that is
asked for. `own_pairs` says what a sequence has added to the counts, and it is taken off before items are compared.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.batches import NEAR, Floats, Ints
from models.neighbours import BACKWARDS, WINDOW

DECAY: Final = 0.6
DEPTH: Final = 20  # acts of a history that are looked at
_ROWS: Final = 256  # requests whose scores of all items are held at once

Whole = npt.NDArray[np.integer]


def near_items(
    histories: Whole, sources: Sequence[sparse.csr_array], own: sparse.csr_array | None = None
) -> tuple[Ints, Floats]:
    """The fields `near` and `nearness` of a ContextBatch.

    Args:
        histories: (n, H) catalogue index, newest first; -1 = none.
        sources: (S) of (I, I) neighbour weights, `models.neighbours.Neighbours.matrix`.
        own: (n, I) what the requests themselves have added to the first source; nothing when absent.

    Returns:
        (n, E) catalogue index, nearest first, -1 = no more, and (n, E, S) the sums.
    """
    near = np.full((len(histories), NEAR), -1, np.int32)
    nearness = np.zeros((len(histories), NEAR, len(sources)), np.float32)
    for start in range(0, len(histories), _ROWS):
        rows = slice(start, start + _ROWS)
        acts = histories[rows, :DEPTH]
        request, place = np.nonzero(acts >= 0)
        pairs = (request, acts[request, place])
        weights = sparse.csr_array((DECAY**place, pairs), shape=(len(acts), sources[0].shape[0]))
        sums = np.stack([(weights @ source).toarray() for source in sources], axis=-1)
        if own is not None:
            taken = sparse.coo_array(own[rows])
            left = sums[taken.row, taken.col, 0] - taken.data
            sums[taken.row, taken.col, 0] = np.where(left > 1e-6, left, 0.0)
        kept = min(NEAR, sums.shape[1])
        compared = (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-9)).sum(axis=-1)
        best = np.argpartition(-compared, kept - 1, axis=1)[:, :kept]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(compared, best, 1), axis=1, kind="stable"), 1)
        there = np.take_along_axis(compared, best, 1) > 0
        near[rows, :kept] = np.where(there, best, -1)
        nearness[rows, :kept] = np.where(there[..., None], np.take_along_axis(sums, best[..., None], 1), 0.0)
    return near, nearness


def own_pairs(
    sequences: Sequence[Whole], positions: Sequence[tuple[int, int]], occurs: Whole, popularity_power: float
) -> sparse.csr_array:
    """What each sample's own sequence adds to its evidence by co-occurrence: (n, I), for `near_items`.

    Args:
        sequences: those that were counted by `models.neighbours.cooccurrence`.
        positions: (n) sequence, and place in it of the sample's target; its history is what stands before.
        occurs: (I,) how often each item occurs in all sequences.
        popularity_power: as it was counted with.
    """
    rows: list[npt.NDArray[np.int64]] = []
    columns: list[Whole] = []
    values: list[npt.NDArray[np.float64]] = []
    scale = np.maximum(occurs, 1).astype(np.float64) ** -popularity_power
    for row, (which, place) in enumerate(positions):
        sequence = sequences[which]
        acts = np.arange(max(place - DEPTH, 0), place)
        steps = np.arange(len(sequence))[None, :] - acts[:, None]
        apart = np.abs(steps)
        added = np.where((apart > 0) & (apart <= WINDOW), np.where(steps > 0, 1.0, BACKWARDS) / np.maximum(apart, 1), 0)
        added[sequence[acts][:, None] == sequence[None, :]] = 0.0  # no item is its own neighbour
        sums = (DECAY ** (place - 1 - acts)) @ added * scale[sequence]
        found = np.flatnonzero(sums)
        rows.append(np.full(len(found), row))
        columns.append(sequence[found])
        values.append(sums[found])
    entries = (np.concatenate([*values, []]), (np.concatenate([*rows, []]), np.concatenate([*columns, []])))
    return sparse.csr_array(entries, shape=(len(positions), len(occurs)))
