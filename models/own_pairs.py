"""What a sample has itself added to the counts of co-occurrence, so that it can be taken off.

A sample for training must not find itself in its evidence: the counts hold the very pair that is asked for. Where
tables are counted from acts before every sample, there is nothing to take off.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.evidence import DEPTH, Whole
from models.neighbours import BACKWARDS, WINDOW


def own_pairs(
    sequences: Sequence[Whole],
    positions: Sequence[tuple[int, int]],
    occurs: Whole,
    popularity_power: float,
    recency: float,
) -> sparse.csr_array:
    """What each sample's own sequence adds to its evidence by co-occurrence: (n, I), for `near_items`.

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
    for row, (which, place) in enumerate(positions):
        sequence = sequences[which]
        acts = np.arange(max(place - DEPTH, 0), place)
        steps = np.arange(len(sequence))[None, :] - acts[:, None]
        apart = np.abs(steps)
        added = np.where((apart > 0) & (apart <= WINDOW), np.where(steps > 0, 1.0, BACKWARDS) / np.maximum(apart, 1), 0)
        added[sequence[acts][:, None] == sequence[None, :]] = 0.0  # no item is its own neighbour
        sums = (recency ** (place - 1 - acts)) @ added * scale[sequence]
        found = np.flatnonzero(sums)
        rows.append(np.full(len(found), row))
        columns.append(sequence[found])
        values.append(sums[found])
    entries = (np.concatenate([*values, []]), (np.concatenate([*rows, []]), np.concatenate([*columns, []])))
    return sparse.csr_array(entries, shape=(len(positions), len(occurs)))
