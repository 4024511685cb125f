"""Neighbour evidence: for each request, the items near what its user did, before anything is learned.

Letters used in this file
    n requests   H acts of a history   I items   M neighbours of an item   E items near a history
    T tables   S sources: the tables, and what visits say (models.visits)
    N newcomers   B items from which each borrows

By a table, an item is as near as the sum, over the newest acts of the history, of its weight as a neighbour of the
act's item, times the table's recency per act that is newer. Of all items the E nearest are kept, each source counted
as shares of its own sum. What the user has had and will not be offered again is left out: it is near everything that
came with it, and its share would be taken from what can still be chosen.

The tables are counted elsewhere (`models.neighbours`) and go on with the catalogue (`models.newcomers`); here they are
read, by whoever serves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from core.errors import ArtefactError
from models.batches import EVIDENCE_SOURCES, NEAR, TABLES, Floats, Ints
from models.visits import Said, Visits

if TYPE_CHECKING:
    from scipy import sparse

RECENCY: Final = 0.6  # of tables, unless told otherwise
DEPTH: Final = 20  # acts of a history that a table looks at
_NOTHING: Final = 1e-6  # what is left of a sum when a request's own part was all of it

Whole = npt.NDArray[np.integer]


class Neighbours(NamedTuple):
    """Per item its neighbours, the strongest first; equal ones by index. No item is its own neighbour."""

    items: Ints  # (I, M) catalogue index, -1 = no more
    weights: Floats  # (I, M) above 0; 0 where there is no more
    recency: float = RECENCY  # what the neighbours of an act count beside those of the act after it


class Lent(NamedTuple):
    """What items borrow that came after the first table was counted: by it they are as near as their lenders are."""

    first: int  # catalogue index of the first of them; the others follow it
    lenders: Ints  # (N, B) catalogue index
    shares: Floats  # (N, B) how much of each; 0 = nothing
    own: Floats  # (N,) what of this, for an act on the item itself, would make it its own neighbour


def near_items(
    histories: Whole,
    tables: Sequence[Neighbours],
    had: Sequence[Whole] | None = None,
    own: "sparse.csr_array | None" = None,
    visits: Visits | None = None,
    lent: Lent | None = None,
) -> tuple[Ints, Floats]:
    """The fields `near` and `nearness` of a ContextBatch. What it costs follows the neighbours of a history, not the
    size of the catalogue.

    Args:
        histories: (n, H) catalogue index, newest first; -1 = none. Items without a row have no neighbours.
        tables: (T) at most `models.batches.TABLES`.
        had: (n) catalogue indices that are not named, -1 = none; nothing when absent.
        own: (n, I) what the requests themselves have added to the first table; nothing when absent.
        visits: which acts were visits, and when; none when absent.
        lent: what newcomers borrow; nothing when absent.

    Returns:
        (n, E) catalogue index, nearest first, equal ones by index, -1 = no more, and (n, E, S) the sums.
    """
    near = np.full((len(histories), NEAR), -1, np.int32)
    nearness = np.zeros((len(histories), NEAR, EVIDENCE_SOURCES), np.float32)
    rows = len(tables[0].items) if tables else 0
    for row in np.flatnonzero((histories >= 0).any(axis=1)).tolist():
        ages = np.flatnonzero(histories[row] >= 0)
        acts = histories[row, ages]
        read = (acts < rows) & (ages < DEPTH)
        said = [_neighbours(table, acts[read], ages[read]) for table in tables]
        if lent is not None and len(lent.own) and said:
            said[0] = _and_newcomers(said[0], lent, acts[read], tables[0].recency ** ages[read])
        if visits is not None:
            said += visits.of(row, acts, ages)
        items, sums = _sums(said, len(tables))
        if own is not None:
            _take_off(items, sums[0], own, row)
        if had is not None:
            sums[:, _places(items, had[row])[0]] = 0.0
        compared = (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-9)).sum(axis=0)
        best = np.flatnonzero(compared)
        if len(best) > NEAR:
            best = best[np.argpartition(-compared[best], NEAR - 1)[:NEAR]]
        best = best[np.lexsort((items[best], -compared[best]))]
        near[row, : len(best)] = items[best]
        nearness[row, : len(best)] = sums[:, best].T
    return near, nearness


def save_neighbours(tables: Sequence[Neighbours], path: Path) -> None:
    """`path` (.npz) holds the tables; equal contents give equal bytes."""
    arrays = {f"{name}_{place}": array for place, table in enumerate(tables) for name, array in table._asdict().items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_neighbours(path: Path, items: int) -> tuple[Neighbours, ...]:
    """What `save_neighbours` wrote.

    Args:
        items: of the catalogue; the tables may have fewer rows.

    Raises:
        ArtefactError: the file is damaged, or of a larger catalogue.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            count = len(arrays.files) // len(Neighbours._fields)
            tables = tuple(
                Neighbours(arrays[f"items_{place}"], arrays[f"weights_{place}"], float(arrays[f"recency_{place}"]))
                for place in range(count)
            )
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ArtefactError(f"{path}: found no readable neighbours ({error}); publish the version again") from None
    rows = {len(table.items) for table in tables}
    highest = max((int(table.items.max(initial=-1)) for table in tables), default=-1)
    if len(tables) != TABLES or len(rows) != 1 or max(*rows, highest + 1) > items:
        raise ArtefactError(
            f"{path}: found {len(tables)} tables of neighbours of {sorted(rows)} items, the last {highest}, expected "
            f"{TABLES} of one number of rows and at most {items} items; count them anew"
        )
    return tables


def _neighbours(table: Neighbours, acts: Whole, ages: Whole) -> Said:
    return table.items[acts].ravel(), (table.weights[acts] * (table.recency**ages)[:, None]).ravel()


def _and_newcomers(said: Said, lent: Lent, acts: Whole, counts: npt.NDArray[np.float64]) -> Said:
    """What the first table has said, and how near newcomers are by it; `acts` count for so much each."""
    named, weights = said
    of_item = np.bincount(named[named >= 0], weights[named >= 0], lent.first)  # lenders were counted
    sums = (of_item[lent.lenders] * lent.shares).sum(axis=1)
    came = acts >= lent.first
    np.subtract.at(sums, acts[came] - lent.first, lent.own[acts[came] - lent.first] * counts[came])
    near = np.flatnonzero(sums > _NOTHING)
    return np.concatenate([named, lent.first + near]), np.concatenate([weights, sums[near]])


def _sums(said: Sequence[Said], tables: int) -> tuple[Ints, npt.NDArray[np.float64]]:
    """(c,) every item that a source names, ascending, and (S, c) how near it is by each.

    Args:
        tables: how many of `said` are of tables; the rest is of visits.
    """
    each = np.concatenate([np.empty(0, np.int32), *(named for named, _ in said)])
    items, places = np.unique(each, return_inverse=True)
    sums = np.zeros((EVIDENCE_SOURCES, len(items)))
    start = 0
    for place, (named, weights) in enumerate(said):
        source = place if place < tables else TABLES + place - tables
        sums[source] = np.bincount(places[start : start + len(named)], weights, len(items))
        start += len(named)
    if len(items) and items[0] < 0:  # where a table has no more
        return items[1:], sums[:, 1:]
    return items, sums


def _take_off(items: Ints, sums: npt.NDArray[np.float64], own: "sparse.csr_array", row: int) -> None:
    """The request's own part is no longer in the sums of the first source."""
    stored = slice(own.indptr[row], own.indptr[row + 1])
    mine, parts = own.indices[stored], own.data[stored]
    places, known = _places(items, mine)
    np.subtract.at(sums, places, parts[known])
    sums[sums <= _NOTHING] = 0.0


def _places(items: Ints, wanted: Whole) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where those of `wanted` stand that are in `items`, which ascend; and which of them are."""
    if not len(items):
        return np.empty(0, np.intp), np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(items, wanted), len(items) - 1)
    known = items[places] == wanted
    return places[known], known
