"""Which items go together, counted rather than learned: in people's sequences, by what is said of them, and by where
they stand.

Letters used in this file
    I items   M neighbours kept per item   S sequences

Nothing here is trained. The tables are a baseline that learned models must beat, and evidence that one may use. What
is counted is what the caller hands in: sequences that end before the time of a sample keep it honest.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import KDTree

from core.errors import InputError
from models.evidence import RECENCY, Neighbours
from models.item_vectors import positions_km
from models.tfidf import TextRows
from protos.catalog.v1.catalog_pb2 import Item

WINDOW: Final = 6  # places of a sequence within which two items belong together
POPULARITY_POWER: Final = 0.3  # of evidence; see `cooccurrence`
KEPT: Final = 200  # neighbours of an item that evidence counts by co-occurrence
LENDERS: Final = 20  # items from which a new one borrows
BACKWARDS: Final = 0.8  # what the earlier item counts as a neighbour of the later one
_NO_DISTANCE_KM: Final = 0.1  # places nearer than that stand side by side
_ROWS: Final = 512  # of similarities that are held at once: 25 MB at 12,000 items

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Distances = npt.NDArray[np.float64]


def neighbour_tables(
    items: Sequence[Item], sequences: Sequence[npt.NDArray[np.integer]], recency: float = RECENCY
) -> tuple[Neighbours, ...]:
    """The tables of evidence: seen together in the sequences (`lend`: where an item is new, its like), alike in what is
    said of them, and near each other; none without sequences.

    Args:
        sequences: catalogue indices, oldest first, of what stands before every sample that will be learned from; what
            stands beside them is to be taken off by `models.own_pairs`.
        recency: of all tables.
    """
    if not any(len(sequence) for sequence in sequences):
        return ()
    alike = text_neighbours(items)
    together = cooccurrence(sequences, len(items), popularity_power=POPULARITY_POWER, keep=KEPT)
    taken = np.bincount(np.concatenate(sequences), minlength=len(items)) > 0
    together = lend(together, alike, taken)
    return tuple(table._replace(recency=recency) for table in (together, alike, near_places(items)))


def matrix_of(table: Neighbours) -> sparse.csr_array:
    """(I, I) the weights: row = item, column = neighbour."""
    rows, places = np.nonzero(table.items >= 0)
    pairs = (rows, table.items[rows, places])
    return sparse.csr_array((table.weights[rows, places], pairs), shape=(len(table.items),) * 2)


def cooccurrence(
    sequences: Sequence[npt.NDArray[np.integer]],
    items: int,
    *,
    window: int = WINDOW,
    backwards: float = BACKWARDS,
    popularity_power: float = 0.3,
    keep: int = 100,
) -> Neighbours:
    """Neighbours in people's sequences.

    Each pair of places of one sequence that stand d <= window apart adds 1 / d to the later item as a neighbour of
    the earlier, and backwards / d the other way round. A neighbour's weight is divided by how often it occurs, to the
    power `popularity_power`.

    Args:
        sequences: (S) catalogue indices, oldest first.
        items: I.

    Raises:
        InputError: an index that the catalogue does not have.
    """
    joined = np.concatenate([*sequences, np.empty(0, np.int64)]).astype(np.int64)
    if len(joined) and not 0 <= joined.min() <= joined.max() < items:
        raise InputError(
            f"found catalogue indices {joined.min()} to {joined.max()}, expected 0 to {items - 1}; "
            "leave unknown items out of the sequences"
        )
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    counts = sparse.csr_array((items, items), dtype=np.float64)
    for gap in range(1, min(window, len(joined) - 1) + 1):
        together = (owner[gap:] == owner[:-gap]) & (joined[gap:] != joined[:-gap])
        earlier, later = joined[:-gap][together], joined[gap:][together]
        forwards = sparse.coo_array((np.full(len(earlier), 1 / gap), (earlier, later)), shape=(items, items)).tocsr()
        counts = counts + forwards + backwards * forwards.T.tocsr()
    occurs = np.maximum(np.bincount(joined, minlength=items), 1).astype(np.float64)
    weighted = sparse.coo_array(counts)
    return strongest(weighted.row, weighted.col, weighted.data * occurs[weighted.col] ** -popularity_power, items, keep)


def text_neighbours(items: Sequence[Item], keep: int = 100) -> Neighbours:
    """Neighbours by what is said of the items: cosine of `models.tfidf.TextRows`.

    An item that says nothing has no neighbours.
    """
    rows = TextRows(items).rows
    turned = rows.T.tocsr()
    made = Neighbours(np.full((len(items), keep), -1, np.int32), np.zeros((len(items), keep), np.float32))
    for start in range(0, len(items), _ROWS):
        alike = (rows[start : start + _ROWS] @ turned).toarray()
        here = np.arange(len(alike))
        alike[here, start + here] = 0.0
        least = np.partition(alike, -min(keep, len(items)), axis=1)[:, -min(keep, len(items)), None]
        row, column = np.nonzero((alike >= least) & (alike > 0))
        block = strongest(row, column, alike[row, column], len(alike), keep)
        made.items[start : start + _ROWS], made.weights[start : start + _ROWS] = block.items, block.weights
    return made


def lend(together: Neighbours, alike: Neighbours, taken: npt.NDArray[np.bool_]) -> Neighbours:
    """The co-occurrences, where items that nobody has taken stand where those stand that they read like.

    With P the shares of `lenders_of`, and the identity for items that were taken, the table is P T P^T. A mean of many
    neighbours is seldom as high as the highest of them, so that new items still stand behind
    (`GeneratorConfig.new_items`).

    Args:
        taken: (I,) which items were counted in `together`.
    """
    new = np.flatnonzero(~taken)
    if not len(new):
        return together
    found, shares = lenders_of(Neighbours(alike.items[new], alike.weights[new]), taken)
    rows, places = np.nonzero(shares)
    known, size = np.flatnonzero(taken), len(taken)
    standing = sparse.csr_array(
        (
            np.concatenate([np.ones(len(known)), shares[rows, places]]),
            (np.concatenate([known, new[rows]]), np.concatenate([known, found[rows, places]])),
        ),
        shape=(size, size),
    )
    spread = (matrix_of(together) @ standing.T).tocsr()
    made = Neighbours(np.full((size, together.items.shape[1]), -1, np.int32), np.zeros_like(together.weights))
    for start in range(0, size, _ROWS):
        block = (standing[start : start + _ROWS] @ spread).tocoo()
        others = block.row + start != block.col
        kept = strongest(block.row[others], block.col[others], block.data[others], block.shape[0], made.items.shape[1])
        made.items[start : start + _ROWS], made.weights[start : start + _ROWS] = kept.items, kept.weights
    return made


def lenders_of(alike: Neighbours, taken: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], Floats]:
    """(n, LENDERS) from which items each of n new ones borrows, 0 = no more, and (n, LENDERS) how much, 0 = nothing.

    They are the nearest in `alike` that were taken; of each it is as much as its likeness squared is of their sum.

    Args:
        alike: rows of the new items.
        taken: (I,).
    """
    lending = (alike.items >= 0) & taken[alike.items]
    lending &= np.cumsum(lending, axis=1) <= LENDERS
    order = np.argsort(~lending, axis=1, kind="stable")[:, :LENDERS]
    lending = np.take_along_axis(lending, order, axis=1)
    found = np.where(lending, np.take_along_axis(alike.items, order, axis=1), 0)
    likeness = np.where(lending, np.take_along_axis(alike.weights, order, axis=1), 0.0).astype(np.float64) ** 2
    return found, (likeness / np.maximum(likeness.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)


def near_places(items: Sequence[Item], keep: int = 100) -> Neighbours:
    """Neighbours by where the items stand: 1 / (0.1 + km between them).

    An item without a place has no neighbours; where no item has a place, the table has no columns.
    """
    placed = np.array([row for row, item in enumerate(items) if item.HasField("location")], np.int64)
    if not len(placed):
        return Neighbours(np.full((len(items), 0), -1, np.int32), np.zeros((len(items), 0), np.float32))
    points = positions_km([items[row] for row in placed])
    nearest = np.arange(1, min(keep + 1, len(placed)) + 1)  # the first, or one at the same point, is the place itself
    km, found = KDTree(points).query(points, k=nearest)
    rows, ranks = np.nonzero(found != np.arange(len(placed))[:, None])
    return strongest(placed[rows], placed[found[rows, ranks]], nearness(km[rows, ranks]), len(items), keep)


def nearness(km: Distances) -> Distances:
    """What places so far apart are to each other; any shape."""
    return 1 / (_NO_DISTANCE_KM + km)


def strongest(
    rows: npt.NDArray[np.integer],
    columns: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating],
    items: int,
    keep: int,
) -> Neighbours:
    """Of each row the `keep` entries of greatest weight."""
    order = np.lexsort((columns, -weights, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < keep
    made = Neighbours(np.full((items, keep), -1, np.int32), np.zeros((items, keep), np.float32))
    made.items[rows[kept], place[kept]] = columns[kept]
    made.weights[rows[kept], place[kept]] = weights[kept]
    return made
