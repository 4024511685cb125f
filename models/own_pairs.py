"""What a sample and all that its user did later have added to the counts of co-occurrence, so that it can be taken off.

Letters used in this file
    n samples   I items   P pairs of a sequence

A sample for training must not find itself in its evidence: the counts hold the very pair that is asked for, and where
people do again what they did, later pairs like it. What its user did before stays, as it does when a request is
answered. Where tables are counted from acts before every sample, there is nothing to take off.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.evidence import DEPTH, Whole
from models.neighbours import BACKWARDS, WINDOW


class _Pairs(NamedTuple):
    """What a sequence adds to the counts, by the place of the newer act, ascending."""

    newer: Whole  # (P,)
    items: Whole  # (P,) whose neighbour is counted
    neighbours: Whole  # (P,)
    weights: npt.NDArray[np.float64]  # (P,)


def own_pairs(
    sequences: Sequence[Whole],
    positions: Sequence[tuple[int, int]],
    occurs: Whole,
    popularity_power: float,
    recency: float,
) -> sparse.csr_array:
    """What each sample's own sequence adds, from the sample on, to its evidence by co-occurrence: (n, I), for
    `near_items`.

    Args:
        sequences: those that were counted by `models.neighbours.cooccurrence`.
        positions: (n) sequence, and place in it of the sample's target; its history is what stands before.
        occurs: (I,) how often each item occurs in all sequences.
        popularity_power: as it was counted with.
        recency: of the table.
    """
    rows: list[npt.NDArray[np.int64]] = []
    columns: list[Whole] = []
    values: list[npt.NDArray[np.float64]] = []
    scale = np.maximum(occurs, 1).astype(np.float64) ** -popularity_power
    counts_for = np.zeros(len(occurs))  # of each item, what its neighbours count for the sample at hand
    of, pairs = -1, _pairs(np.empty(0, np.int64), scale)
    for row, (which, place) in enumerate(positions):
        sequence = sequences[which]
        if which != of:
            of, pairs = which, _pairs(sequence, scale)
        acts = sequence[max(place - DEPTH, 0) : place][::-1]
        np.add.at(counts_for, acts, recency ** np.arange(len(acts)))
        since = slice(int(np.searchsorted(pairs.newer, place)), None)
        sums = counts_for[pairs.items[since]] * pairs.weights[since]
        counts_for[acts] = 0.0
        found = np.flatnonzero(sums)
        rows.append(np.full(len(found), row))
        columns.append(pairs.neighbours[since][found])
        values.append(sums[found])
    entries = (np.concatenate([*values, []]), (np.concatenate([*rows, []]), np.concatenate([*columns, []])))
    return sparse.csr_array(entries, shape=(len(positions), len(occurs)))


def _pairs(sequence: Whole, scale: npt.NDArray[np.float64]) -> _Pairs:
    parts = []
    for gap in range(1, min(WINDOW, len(sequence) - 1) + 1):
        earlier, later, newer = sequence[:-gap], sequence[gap:], np.arange(gap, len(sequence))
        apart = earlier != later  # no item is its own neighbour
        forwards = _Pairs(newer, earlier, later, scale[later] / gap)
        backwards = _Pairs(newer, later, earlier, scale[earlier] * BACKWARDS / gap)
        parts += [_Pairs._make(column[apart] for column in each) for each in (forwards, backwards)]
    if not parts:
        return _Pairs(*(np.empty(0, np.int64),) * 3, np.empty(0))
    joined = _Pairs._make(np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(joined.newer, kind="stable")
    return _Pairs._make(column[order] for column in joined)
