"""Rows of the store held in memory, by key, where folds change them in place."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Slots(NamedTuple):
    """Where the rows of some keys lie."""

    of: dict[str, int]
    missing: list[str]  # keys that were not here: their rows hold something else until they are loaded


class RowCache:
    """The rows used last. Bounded: `trim` forgets what is beyond `size`; in between there is room for one batch."""

    def __init__(self, row: np.dtype[np.void], size: int) -> None:
        self.rows: NDArray[np.void] = np.zeros(2 * size + 1, row)
        self._size = size
        self._slots: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(len(self.rows)))[::-1]

    def __contains__(self, key: Any) -> bool:
        return key in self._slots

    def get(self, key: str) -> int | None:
        """The slot of a key that is here."""
        return self._slots.get(key)

    def slots(self, keys: Sequence[str]) -> Slots:
        """A slot for each of the distinct keys, the same while they are used."""
        missing = [key for key in keys if key not in self._slots]
        if len(missing) > len(self._free):
            self._grow(len(missing))
        for key in missing:
            self._slots[key] = self._free.pop()
        for key in keys:
            self._slots.move_to_end(key)
        return Slots({key: self._slots[key] for key in keys}, missing)

    def trim(self) -> None:
        """At most `size` keys are here."""
        while len(self._slots) > self._size:
            self._free.append(self._slots.popitem(last=False)[1])

    def _grow(self, room: int) -> None:
        had = len(self.rows)
        rows = np.zeros(max(2 * had, had + room), self.rows.dtype)
        rows[:had] = self.rows
        self.rows = rows
        self._free += range(had, len(rows))
