"""Neighbours of items that came after the tables were counted: each has them from the moment it is in the catalogue.

Letters used in this file
    I rows, one for every item that there is room for   C items when the tables were counted   M neighbours kept
    n newcomers   B = LENDERS

What a newcomer says and where it stands is known when it comes. In the tables of likeness and nearness it gets a row,
and a place in the rows of those that it is near, as if they were counted again. Nobody has taken it yet: it stands
where those stand that it reads like (`models.neighbours.lend`). Its row of co-occurrence is the mean of theirs. To
write it into the rows of all that they are neighbours of would be work for thousands of rows, so this is left to the
request: what is near its lenders is near it (`Lent`).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from models.evidence import Lent, Neighbours
from models.item_vectors import positions_km
from models.neighbours import LENDERS, lenders_of, nearness, strongest
from models.tfidf import TextRows
from protos.catalog.v1.catalog_pb2 import Item

_AT_ONCE: Final = 64  # newcomers whose likeness to every item is held

Floats = npt.NDArray[np.float32]


class Newcomers:
    """The tables of `models.neighbours.neighbour_tables`, which go on with the catalogue.

    Written and read by one thread: the arrays are changed in place.
    """

    def __init__(self, items: Sequence[Item], tables: Sequence[Neighbours], room: int) -> None:
        """Those of the items that the tables have no row for have come.

        Args:
            items: of the catalogue.
            tables: co-occurrence, likeness, nearness.
            room: I.
        """
        self._counted = counted = len(tables[0].items)  # C
        self._size = counted
        self._together, self._alike, self._near = self.tables = tuple(_with_room(table, room) for table in tables)
        self._text = TextRows(items[:counted])
        self._points = np.full((room, 3), np.nan)
        self._points[:counted] = _points(items[:counted])
        self._lends = np.zeros(room, np.bool_)
        self._lends[:counted] = self._together.items[:counted, 0] >= 0
        self._lenders = np.zeros((room, LENDERS), np.int32)
        self._shares = np.zeros((room, LENDERS), np.float32)
        self._own = np.zeros(room, np.float32)
        self.join(items[counted:])

    @property
    def lent(self) -> Lent:
        """What each of the newcomers borrows."""
        came = slice(self._counted, self._size)
        return Lent(self._counted, self._lenders[came], self._shares[came], self._own[came])

    def join(self, items: Sequence[Item]) -> None:
        """The items have the next rows of the tables."""
        for start in range(0, len(items), _AT_ONCE):
            come = items[start : start + _AT_ONCE]
            rows = self._text.join(come)
            alike = (rows @ self._text.rows.T).toarray()
            for item, likeness in zip(come, alike, strict=True):
                self._join(item, likeness)

    def _join(self, item: Item, likeness: Floats) -> None:
        """likeness: to every item that has come, and to some that come with it, each of which is told of it then."""
        row, self._size = self._size, self._size + 1
        _put(self._alike, row, likeness[:row])
        self._points[row] = _points([item])[0]
        _put(self._near, row, nearness(np.linalg.norm(self._points[:row] - self._points[row], axis=1)))
        self._borrow(row)

    def _borrow(self, row: int) -> None:
        alike = Neighbours(self._alike.items[row, None], self._alike.weights[row, None])
        (lenders,), (shares,) = lenders_of(alike, self._lends)
        self._lenders[row, : len(lenders)], self._shares[row, : len(lenders)] = lenders, shares
        named, lies = self._together.items[lenders], self._together.weights[lenders] * shares[:, None]
        sums = np.bincount(named[named >= 0], lies[named >= 0], self._counted).astype(np.float64)
        items, weights = _write(self._together, row, np.arange(self._counted), sums)
        self._own[row] = ((items[:, None] == lenders) * shares * weights[:, None]).sum()


def _put(table: Neighbours, row: int, weights: npt.NDArray[np.floating]) -> None:
    """Item `row` is a neighbour of those before it and they of it, 0 or NaN = it is not: the strongest are kept."""
    if not table.items.shape[1]:
        return
    weights = np.nan_to_num(weights).astype(np.float32)
    _write(table, row, np.arange(row), weights)
    told = np.flatnonzero(weights > table.weights[:row, -1])
    columns = np.arange(table.items.shape[1])
    place = (table.weights[told] >= weights[told, None]).sum(axis=1, keepdims=True)
    source = columns - (columns > place)
    for array, new in ((table.items, np.int32(row)), (table.weights, weights[told, None])):
        array[told] = np.where(columns == place, new, np.take_along_axis(array[told], source, axis=1))


def _write(
    table: Neighbours, row: int, others: npt.NDArray[np.integer], weights: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The row holds the strongest of the others, 0 = it is none; and is given back."""
    some, keep = np.flatnonzero(weights), table.items.shape[1]
    if 0 < keep < len(some):  # sorted are those only that may be kept
        some = some[weights[some] >= np.partition(weights[some], -keep)[-keep]]
    kept = strongest(np.zeros_like(some), others[some], weights[some], 1, keep)
    table.items[row], table.weights[row] = kept.items[0], kept.weights[0]
    return table.items[row], table.weights[row]


def _with_room(table: Neighbours, room: int) -> Neighbours:
    items = np.full((room, table.items.shape[1]), -1, np.int32)
    weights = np.zeros(items.shape, np.float32)
    items[: len(table.items)], weights[: len(table.items)] = table.items, table.weights
    return table._replace(items=items, weights=weights)


def _points(items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """(n, 3) kilometres from the earth's centre; NaN without a place."""
    points = np.full((len(items), 3), np.nan)
    placed = [row for row, item in enumerate(items) if item.HasField("location")]
    if placed:
        points[placed] = positions_km([items[row] for row in placed])
    return points
