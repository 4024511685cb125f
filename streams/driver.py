"""The one state pattern: own a partition, take records, fold them in log order, commit all effects at once.

activity.v1 records in; user rows, open answers, partial sums and outbox records out, in the transaction
that advances the cursor. Delivery may repeat and owners may die at any instruction: what the cursor
covers is dropped, and a fenced owner commits nothing. Knows neither Kafka nor an event loop.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from core.topics import OUTCOMES, REJECTED
from feature_repo.admission import TIMES_MS
from feature_repo.folds.attribution import EMPTY as NO_ANSWERS
from feature_repo.folds.attribution import AttributionState
from feature_repo.folds.context import FoldContext
from feature_repo.layouts import USER
from feature_repo.sums import CELL_SUMS, ITEM_SUMS, Sum
from protos.events.v1.outcome_pb2 import Outcome
from streams.cursor import Cursor, Partition, Record
from streams.effects import Effects, Folded, close_due, fold_chunk, fold_sums, touched
from streams.outbox import Produced
from streams.reading import Chunk, Rejection, chunks, gapless
from streams.rejects import rejected_message
from streams.row_cache import RowCache
from streams.state_store import Commit, Rows, StateStore

MAX_ACTIVITIES: Final = 10_000  # in one transaction: a few hundred milliseconds of work, a few tens of megabytes
SWEEP_USERS: Final = 500  # users whose due answers one transaction closes
CACHE_CELLS: Final = 4_096  # about 850 bytes each
CACHE_ITEMS: Final = 65_536  # 28 bytes each


class Committed(NamedTuple):
    """One transaction that stands, for those who act on it."""

    commit: Commit
    effects: Effects
    rejected: int
    recorded_ms: Sequence[int]  # timestamps of the records it took in


class Driver:
    """Owner of one partition for one epoch. For one thread at a time; spent after any error: take over anew.

    After `apply` no answer that is due at the partition's log time is open.
    """

    def __init__(
        self,
        partition: Partition,
        store: StateStore,
        context: Callable[[], FoldContext],
        *,
        cache_users: int,
        committed: Callable[[Committed], None] | None = None,
    ) -> None:
        """The partition is owned. `context` is asked once per batch; `committed` is told of every transaction.

        Raises:
            StoreUnavailable: the store did not answer in time.
        """
        self.partition = partition
        self.cursor = store.take_over(partition)
        self.next_due_ms = store.next_due_ms(partition.number)  # when the next answer is due, or earlier
        self._store = store
        self._context = context
        self._committed = committed
        self._users = RowCache(USER, cache_users)
        self._answers: list[AttributionState] = []  # by the slot of the user
        self._cells = RowCache(CELL_SUMS.row, CACHE_CELLS)
        self._items = RowCache(ITEM_SUMS.row, CACHE_ITEMS)

    def apply(self, records: Sequence[Record]) -> int:
        """How many leading `records` are in the states now: all of them, or those before a hole in the offsets.

        Raises:
            OwnershipLost: the partition has a newer owner.
            StoreUnavailable: the store did not answer in time. Its cursor says what of `records` stands.
        """
        settled = gapless(records, self.cursor.next_offset)
        context = self._context()
        for chunk in chunks(records[:settled], self.cursor, self.partition, limit=MAX_ACTIVITIES, known=self._users):
            self._apply(chunk, context)
        while self.next_due_ms <= self.cursor.log_time_ms:
            self._sweep()
        return settled

    def skip_hole(self, offset: int) -> None:
        """Nothing before `offset` is waited for any more: the log has no records there."""
        self.cursor = self.cursor._replace(next_offset=max(offset, self.cursor.next_offset))

    def _apply(self, chunk: Chunk, context: FoldContext) -> None:
        """One transaction: the chunk is in the states."""
        number, users = self.partition.number, self._users
        slots = users.slots(list(dict.fromkeys(entry.user_id for entry in chunk.entries)))
        self._answers += [NO_ANSWERS] * (len(users.rows) - len(self._answers))
        if slots.missing:
            loaded = self._store.users(slots.missing)
            for place, user_id in enumerate(slots.missing):
                self._answers[slots.of[user_id]] = loaded.answers[place]
            users.rows[[slots.of[user_id] for user_id in slots.missing]] = loaded.rows
        folded = fold_chunk(chunk.entries, slots.of, users.rows, self._answers, number, context)
        effects, counts, cursor = folded.effects, folded.effects.counts, self.cursor
        cursor = cursor._replace(
            next_offset=chunk.next_offset,
            log_time_ms=chunk.log_time_ms,
            records=cursor.records + len(chunk.recorded_ms),
            applied=cursor.applied + counts.applied,
            duplicates=cursor.duplicates + counts.duplicates,
            rejected=cursor.rejected + len(chunk.rejections),
            impressions=cursor.impressions + counts.impressions,
            late=cursor.late + counts.late,
            forgotten=cursor.forgotten + counts.forgotten,
        )
        changed = Rows(list(slots.of), users.rows[list(slots.of.values())]) if slots.of else None
        sums = self._fold_sums(folded, context) if counts.applied or counts.impressions else []
        self._commit(cursor, effects, changed, sums, chunk.rejections, chunk.recorded_ms)
        users.trim()

    def _fold_sums(self, folded: Folded, context: FoldContext) -> list[tuple[Sum, Rows]]:
        """The partial sums that changed."""
        keys = touched(folded)
        slots = []
        for table, cache, names in ((CELL_SUMS, self._cells, keys.cells), (ITEM_SUMS, self._items, keys.items)):
            found = cache.slots(names)
            if found.missing:
                places = [found.of[name] for name in found.missing]
                cache.rows[places] = self._store.sums(table, self.partition.number, found.missing)
            slots.append(np.fromiter(found.of.values(), np.int64, len(names)))
        fold_sums(folded, keys, self._cells.rows, slots[0], self._items.rows, slots[1], context)
        changed = [
            (CELL_SUMS, Rows(keys.cells, self._cells.rows[slots[0]])),
            (ITEM_SUMS, Rows(keys.items, self._items.rows[slots[1]])),
        ]
        self._cells.trim()
        self._items.trim()
        return [(table, _counted(rows)) for table, rows in changed]

    def _sweep(self) -> None:
        """One transaction: what is due of at most SWEEP_USERS users has become outcomes."""
        due = self._store.due_users(self.partition.number, self.cursor.log_time_ms, SWEEP_USERS)
        if due:
            before = dict(zip(due, self._store.answers(due), strict=True))
            after, effects = close_due(before, self.cursor.log_time_ms)
            self._commit(self.cursor, effects, None, (), (), ())
            for user_id, answers in after.items():
                slot = self._users.get(user_id)
                if slot is not None:
                    self._answers[slot] = answers
        self.next_due_ms = self._store.next_due_ms(self.partition.number)

    def _commit(
        self,
        cursor: Cursor,
        effects: Effects,
        users: Rows | None,
        sums: Sequence[tuple[Sum, Rows]],
        rejections: Sequence[Rejection],
        recorded_ms: Sequence[int],
    ) -> None:
        cursor = cursor._replace(
            outcomes=cursor.outcomes + len(effects.outcomes), let_go=cursor.let_go + len(effects.let_go)
        )
        produced = [_outcome_record(outcome, cursor, self.partition) for outcome in effects.outcomes]
        produced += [_reject_record(rejection, cursor, self.partition) for rejection in rejections]
        commit = Commit(self.partition, cursor, users, effects.answers, sums, produced)
        self._store.commit(commit)
        self.cursor = cursor
        opened = (answer.due_ms for changes in effects.answers.values() for answer in changes.put)
        self.next_due_ms = min([self.next_due_ms, *opened])
        if self._committed is not None:
            self._committed(Committed(commit, effects, len(rejections), recorded_ms))


def _counted(changed: Rows) -> Rows:
    """Without the sums that nothing was added to, e.g. of a cell where people only looked."""
    places = np.flatnonzero(changed.rows["updated_ms"])
    return Rows([changed.keys[place] for place in places.tolist()], changed.rows[places])


def _outcome_record(outcome: Outcome, cursor: Cursor, partition: Partition) -> Produced:
    # outcomes.v1 has the partitions of activity.v1: a user's outcomes lie where the user's activity lies.
    return Produced(
        OUTCOMES, outcome.user_id.encode(), outcome.SerializeToString(), partition.number, cursor.log_time_ms
    )


def _reject_record(rejection: Rejection, cursor: Cursor, partition: Partition) -> Produced:
    value = rejected_message(rejection, partition).SerializeToString()
    # A broken clock may be why it is here, and the broker's retention counts from the timestamp.
    at_ms = rejection.recorded_ms if rejection.recorded_ms in TIMES_MS else cursor.log_time_ms
    return Produced(REJECTED, None, value, 0, at_ms)
