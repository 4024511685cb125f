"""States as of earlier moments: the log folded once more, by the very folds that stream it.

As of a moment, a partition's states hold its longest beginning that has no record stamped later: what the log's time
had reached. Records that a producer stamped ahead of their neighbours hold these back until their own time has come,
so nothing later than the moment is ever in a state.

One pass over a partition, whatever is asked of it. Where only users are asked for, only theirs are kept and folded.
Sums need the acts of everybody: then all users' rows of one partition are held at a time, 4 KB each.

What open answers wait for is no feature, and is left out.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.archive import ArchivedRecord
from core.clock import as_datetime
from core.errors import FrameError
from core.geo import cell_name
from core.partition import partition_of
from feature_repo.admission import activities_of, fault_of
from feature_repo.folds import item_statistics, popularity
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.entries import LogEntry, columns, message_of
from feature_repo.folds.user import APPLIED, fold_rows
from feature_repo.layouts import GLOBAL_CELL, USER
from feature_repo.schema import USER_FEATURES
from feature_repo.sums import CELL_SUMS, ITEM_SUMS, SUMS
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction

logger = logging.getLogger(__name__)

_FOLDED_AT_ONCE: Final = 5_000  # entries: a few megabytes
_SUMS: Final = {sums.table: sums for sums in SUMS}


class Asked(NamedTuple):
    """One thing at one moment."""

    table: str  # USER_FEATURES, or a table of partial sums
    key: str  # user id, cell, or item id
    at_ms: int  # platform time


Log = Callable[[int], Iterable[ArchivedRecord]]  # a partition's records from their beginning, by offset


def rows_at(asked: Collection[Asked], log: Log, partitions: int, context: FoldContext) -> dict[Asked, NDArray[np.void]]:
    """The row (1,) of everything asked for, as it stood then: USER, or the table's own; zeros where nothing was."""
    asked = set(asked)
    found = {one: np.zeros(1, USER) for one in asked if one.table == USER_FEATURES}
    partials: dict[Asked, list[NDArray[np.void]]] = {one: [] for one in asked - found.keys()}
    for number in range(partitions):
        here = [one for one in asked if one in partials or partition_of(one.key, partitions) == number]
        for one, row in _stood(here, log, number, partitions, context) if here else ():
            if one in partials:
                partials[one].append(row)
            else:
                found[one] = row
    for one, rows in partials.items():
        sums = _SUMS[one.table]
        found[one] = sums.merged(np.concatenate(rows) if rows else np.zeros(0, sums.row))
    return found


def _stood(
    asked: Iterable[Asked], log: Log, number: int, partitions: int, context: FoldContext
) -> Iterator[tuple[Asked, NDArray[np.void]]]:
    """The rows of one partition, a partial sum where it is one; nothing where there was no row."""
    left = sorted(asked, key=lambda one: one.at_ms, reverse=True)
    users = {one.key for one in left if one.table == USER_FEATURES}
    everybody = any(one.table != USER_FEATURES for one in left)
    states = _States(left, number, context)
    log_time_ms = 0
    for record in log(number):
        try:
            activities = activities_of(record.value, record.timestamp_ms)
        except FrameError:
            continue
        log_time_ms = max(log_time_ms, record.timestamp_ms)
        while left and left[-1].at_ms < log_time_ms:
            yield from states.row(left.pop())
        if not left:
            return
        where = Record(number, record.offset, log_time_ms, record.timestamp_ms)
        for activity in activities:
            message = message_of(activity)
            if message is None or not (everybody or message.user_id in users):
                continue
            if fault_of(message, record.timestamp_ms, number, partitions, known=users) is None:
                states.add(LogEntry(where, message.user_id, message))
    if left[0].at_ms > log_time_ms:
        ends, asked_until = (as_datetime(at_ms).isoformat() for at_ms in (log_time_ms, left[0].at_ms))
        logger.warning(
            "log.ends partition=%d at=%s asked_until=%s: what came since is not seen", number, ends, asked_until
        )
    while left:
        yield from states.row(left.pop())


class _States:
    """The rows of one partition as far as it was read; entries are folded in batches."""

    def __init__(self, asked: Iterable[Asked], number: int, context: FoldContext) -> None:
        self._number = number
        self._context = context
        self._entries: list[LogEntry] = []
        self._slots: dict[str, int] = {}
        self._users = np.zeros(64, USER)
        keys = {(one.table, one.key) for one in asked}
        self._cells, self._items = (
            {key: np.zeros(1, sums.row) for table, key in keys if table == sums.table}
            for sums in (CELL_SUMS, ITEM_SUMS)
        )

    def add(self, entry: LogEntry) -> None:
        """The entry is in the rows, now or before the next row is asked for."""
        self._entries.append(entry)
        if len(self._entries) >= _FOLDED_AT_ONCE:
            self._fold()

    def row(self, one: Asked) -> Iterator[tuple[Asked, NDArray[np.void]]]:
        """What stands now, if there is a row."""
        self._fold()
        if one.table == USER_FEATURES:
            slot = self._slots.get(one.key)
            if slot is not None:
                yield one, self._users[[slot]]
        else:
            sums = self._cells if one.table == CELL_SUMS.table else self._items
            if sums[one.key]["updated_ms"][0]:
                yield one, sums[one.key].copy()

    def _fold(self) -> None:
        if not self._entries:
            return
        slots = [self._slots.setdefault(entry.user_id, len(self._slots)) for entry in self._entries]
        while len(self._slots) > len(self._users):
            self._users = np.concatenate([self._users, np.zeros(len(self._users), USER)])
        numbers = columns(self._entries, slots, self._context)
        fates = fold_rows(self._users, numbers.numbers, self._number, self._context)
        if self._cells or self._items:
            for place in np.flatnonzero(fates.applied == APPLIED).tolist():
                self._count(self._entries[place], numbers.numbers[place])
        self._entries = []

    def _count(self, entry: LogEntry, numbers: np.void) -> None:
        """The sums hold an applied entry too."""
        message = entry.message
        if isinstance(message, Impression):
            for item_id in {slot.item_id for slot in message.slots}:
                if item_id in self._items:
                    item_statistics.show(self._items[item_id][0], numbers["at_ms"])
        elif isinstance(message, Interaction):
            around = [cell_name(numbers["popular_cell"])] if numbers["popular_cell"] else []
            for cell in (GLOBAL_CELL, *around):
                if cell in self._cells:
                    popularity.fold(self._cells[cell][0], numbers, self._context.items.table.vectors)
            if message.item_id in self._items:
                item_statistics.fold(self._items[message.item_id][0], numbers)
