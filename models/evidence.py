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

from models.batches import EVIDENCE_SOURCES, NEAR, Floats, Ints
from models.neighbours import BACKWARDS, WINDOW, cooccurrence, text_neighbours
from protos.catalog.v1.catalog_pb2 import Item

POPULARITY_POWER: Final = 0.3
KEPT: Final = 200  # neighbours of an item by co-occurrence
DECAY: Final = 0.6
DEPTH: Final = 20  # acts of a history that are looked at
_ROWS: Final = 256  # requests whose sums are held at once
_NOTHING: Final = 1e-6  # what is left of a sum when a request's own part was all of it

Whole = npt.NDArray[np.integer]


def neighbour_tables(items: Sequence[Item], sequences: Sequence[Whole]) -> tuple[sparse.csr_array, ...]:
    """The sources of evidence: seen together in the sequences, alike in what is said of them; none without sequences.

    Args:
        sequences: catalogue indices, oldest first, of what stands before every sample that will be learned from; what
            stands beside them belongs to `own_pairs`.
    """
    if not any(len(sequence) for sequence in sequences):
        return ()
    together = cooccurrence(sequences, len(items), popularity_power=POPULARITY_POWER, keep=KEPT)
    return together.matrix(), text_neighbours(items).matrix()


def near_items(
    histories: Whole, sources: Sequence[sparse.csr_array], own: sparse.csr_array | None = None
) -> tuple[Ints, Floats]:
    """The fields `near` and `nearness` of a ContextBatch. What it costs follows the neighbours of a history, not the
    size of the catalogue.

    Args:
        histories: (n, H) catalogue index, newest first; -1 = none. Items without a row have no neighbours.
        sources: (S) of (I, I) neighbour weights, `models.neighbours.Neighbours.matrix`; none = no evidence.
        own: (n, I) what the requests themselves have added to the first source; nothing when absent.

    Returns:
        (n, E) catalogue index, nearest first, equal ones by index, -1 = no more, and (n, E, S) the sums.
    """
    near = np.full((len(histories), NEAR), -1, np.int32)
    nearness = np.zeros((len(histories), NEAR, len(sources) or EVIDENCE_SOURCES), np.float32)
    if not sources:
        return near, nearness
    for start in range(0, len(histories), _ROWS):
        rows = slice(start, start + _ROWS)
        sums = _sums(histories[rows, :DEPTH], sources, None if own is None else own[rows])
        _nearest(sums, near[rows], nearness[rows])
    return near, nearness


def _sums(acts: Whole, sources: Sequence[sparse.csr_array], own: sparse.csr_array | None) -> list[sparse.csr_array]:
    """(S) of (b, I): how near each item is by each source; nothing is stored where it is not near."""
    size = sources[0].shape[0]
    request, place = np.nonzero((acts >= 0) & (acts < size))
    weights = sparse.csr_array((DECAY**place, (request, acts[request, place])), shape=(len(acts), size))
    sums = [sparse.csr_array(weights @ source) for source in sources]
    if own is not None:
        sums[0] = sparse.csr_array(sums[0] - own)
        sums[0].data[sums[0].data <= _NOTHING] = 0.0
    for each in sums:
        each.eliminate_zeros()
    return sums


def _nearest(sums: Sequence[sparse.csr_array], near: Ints, nearness: Floats) -> None:
    """Writes the nearest items of b requests, and their sums, into (b, E) and (b, E, S)."""
    shares = [sparse.diags_array(1.0 / np.maximum(each.sum(axis=1), 1e-9)) @ each for each in sums]
    compared = sparse.csr_array(sum(shares[1:], start=shares[0]))
    found = np.zeros((len(sums), compared.shape[1]), np.float32)  # of one request at a time
    for row in range(len(near)):
        candidates, score = _of_row(compared, row)
        best = np.argpartition(-score, NEAR - 1)[:NEAR] if len(score) > NEAR else np.arange(len(score))
        best = best[np.lexsort((candidates[best], -score[best]))]
        for column, each in zip(found, sums, strict=True):
            items, weights = _of_row(each, row)
            column[items] = weights
        near[row, : len(best)] = candidates[best]
        nearness[row, : len(best)] = found[:, candidates[best]].T
        found[:, candidates] = 0.0


def _of_row(matrix: sparse.csr_array, row: int) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Columns and values of one row."""
    stored = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[stored], matrix.data[stored]


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
