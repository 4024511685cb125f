"""What the scorer last read of people and places: what it answers from while the store does not.

Bounded, in memory, one per process. A remembered row is a true one, only older: its age is part of
the answer like that of any other row.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from feature_repo.folds.popularity import EMPTY, CellState, opened
from feature_repo.layouts import UserRows

USERS: Final = 5_000  # about 4 KB each
CELL_ROWS: Final = 2_000  # opened, about 10 KB each

Row = TypeVar("Row")


class LastKnown:
    """The newest rows read, of the users and cells asked for most recently."""

    def __init__(self) -> None:
        self._users: _Recent[UserRows] = _Recent(USERS)
        self._cells: _Recent[CellState] = _Recent(CELL_ROWS)

    def remember_user(self, user_id: str, rows: UserRows) -> None:
        """Keep one user's rows, (1,) each; a user that the store does not have is not kept."""
        if rows.found[0]:
            self._users.put(user_id, rows)

    def user(self, user_id: str) -> UserRows | None:
        """The rows last read of a user; None when none are kept."""
        return self._users.get(user_id)

    def remember_cells(self, cells: Sequence[str], rows: npt.NDArray[np.void]) -> list[CellState]:
        """Keep and open the rows of cells, one each; a cell without a row is empty."""
        states = [opened(row) for row in rows]
        for cell, state in zip(cells, states, strict=True):
            self._cells.put(cell, state)
        return states

    def cells(self, cells: Sequence[str]) -> list[CellState]:
        """What was last read of cells, one each; empty where nothing is kept."""
        return [self._cells.get(cell) or EMPTY for cell in cells]


class _Recent(Generic[Row]):
    """A mapping that forgets what was not used for longest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: OrderedDict[str, Row] = OrderedDict()

    def put(self, key: str, row: Row) -> None:
        self._rows[key] = row
        self._rows.move_to_end(key)
        if len(self._rows) > self._most:
            self._rows.popitem(last=False)

    def get(self, key: str) -> Row | None:
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row
