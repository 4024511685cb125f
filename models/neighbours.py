"""Which items go together, counted rather than learned: in people's sequences, by what is said of them, and by where
they stand.

Letters used in this file
    I items   M neighbours kept per item   S sequences

Nothing here is trained. The tables are a baseline that learned models must beat, and evidence that one may use. What
is counted is what the caller hands in: sequences that end before the time of a sample keep it honest.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import KDTree

from core.errors import InputError
from models.evidence import RECENCY, Neighbours
from models.item_vectors import positions_km
from protos.catalog.v1.catalog_pb2 import Item

_WORD: Final = re.compile(r"\w+")
WINDOW: Final = 6  # places of a sequence within which two items belong together
POPULARITY_POWER: Final = 0.3  # of evidence; see `cooccurrence`
KEPT: Final = 200  # neighbours of an item that evidence counts by co-occurrence
LENDERS: Final = 20  # items from which a new one borrows
BACKWARDS: Final = 0.8  # what the earlier item counts as a neighbour of the later one
_NO_DISTANCE_KM: Final = 0.1  # places nearer than that stand side by side
_ROWS: Final = 512  # of similarities that are held at once: 25 MB at 12,000 items

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


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
    return _strongest(
        weighted.row, weighted.col, weighted.data * occurs[weighted.col] ** -popularity_power, items, keep
    )


def text_neighbours(items: Sequence[Item], keep: int = 100) -> Neighbours:
    """Neighbours by what is said of the items: cosine of TF-IDF rows over what `item_words` yields.

    An item that says nothing has no neighbours.
    """
    rows = text_rows(items)
    turned = rows.T.tocsr()
    made = Neighbours(np.full((len(items), keep), -1, np.int32), np.zeros((len(items), keep), np.float32))
    for start in range(0, len(items), _ROWS):
        alike = (rows[start : start + _ROWS] @ turned).toarray()
        here = np.arange(len(alike))
        alike[here, start + here] = 0.0
        least = np.partition(alike, -min(keep, len(items)), axis=1)[:, -min(keep, len(items)), None]
        row, column = np.nonzero((alike >= least) & (alike > 0))
        block = _strongest(row, column, alike[row, column], len(alike), keep)
        made.items[start : start + _ROWS], made.weights[start : start + _ROWS] = block.items, block.weights
    return made


def lend(together: Neighbours, alike: Neighbours, taken: npt.NDArray[np.bool_]) -> Neighbours:
    """The co-occurrences, where items that nobody has taken stand where those stand that they read like.

    A new item borrows from the LENDERS nearest to it in `alike` that were taken: of each as much as its likeness
    squared is of their sum. With P these shares, and the identity for items that were taken, the table is P T P^T.
    A mean of many neighbours is seldom as high as the highest of them, so that new items still stand behind
    (`GeneratorConfig.new_items`).

    Args:
        taken: (I,) which items were counted in `together`.
    """
    new = np.flatnonzero(~taken)
    if not len(new):
        return together
    lenders = (alike.items[new] >= 0) & taken[alike.items[new]]
    lenders &= np.cumsum(lenders, axis=1) <= LENDERS
    rows, places = np.nonzero(lenders)
    likeness = np.square(alike.weights[new[rows], places].astype(np.float64))
    shares = likeness / np.bincount(rows, likeness, len(new))[rows]
    known, size = np.flatnonzero(taken), len(taken)
    standing = sparse.csr_array(
        (
            np.concatenate([np.ones(len(known)), shares]),
            (np.concatenate([known, new[rows]]), np.concatenate([known, alike.items[new[rows], places]])),
        ),
        shape=(size, size),
    )
    spread = (matrix_of(together) @ standing.T).tocsr()
    made = Neighbours(np.full((size, together.items.shape[1]), -1, np.int32), np.zeros_like(together.weights))
    for start in range(0, size, _ROWS):
        block = (standing[start : start + _ROWS] @ spread).tocoo()
        others = block.row + start != block.col
        kept = _strongest(block.row[others], block.col[others], block.data[others], block.shape[0], made.items.shape[1])
        made.items[start : start + _ROWS], made.weights[start : start + _ROWS] = kept.items, kept.weights
    return made


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
    weights = 1 / (_NO_DISTANCE_KM + km[rows, ranks])
    return _strongest(placed[rows], placed[found[rows, ranks]], weights, len(items), keep)


def text_rows(items: Sequence[Item]) -> sparse.csr_array:
    """(I, words) TF-IDF of each item's text, rows of length 1 or, without text, 0.

    1 + log of a word's count in the item, times 1 + log((1 + I) / (1 + items with the word)).
    """
    columns: dict[str, int] = {}
    places = [
        (row, columns.setdefault(word, len(columns))) for row, item in enumerate(items) for word in item_words(item)
    ]
    pairs = np.array(places, np.int64).reshape(-1, 2).T
    counts = sparse.coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(len(items), len(columns))).tocsr()
    holders = np.bincount(counts.indices, minlength=len(columns))
    idf = 1 + np.log((1 + len(items)) / (1 + holders))
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1))).ravel()
    return (sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ counts).tocsr().astype(np.float32)


def item_words(item: Item) -> Iterator[str]:
    """The words of an item's title and tags, lower case, and as a whole each tag and the author."""
    yield from _WORD.findall(item.title.lower())
    for tag in item.tags:
        yield from _WORD.findall(tag.lower())
        yield f"tag={tag}"
    if item.author_id:
        yield f"author={item.author_id}"


def _strongest(
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
