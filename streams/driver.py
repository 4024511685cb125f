"""The one state pattern: own a partition, take records, fold them in log order, commit all effects at once.

activity.v1 records in; user rows, open answers, partial sums and outbox records out, in the transaction
that advances the cursor. Delivery may repeat and owners may die at any instruction: what the cursor
covers is dropped, and a fenced owner commits nothing. Knows neither Kafka nor an event loop.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from core.topics import OUTCOMES, REJECTED
from feature_repo.folds.context import FoldContext
from feature_repo.folds.popularity import CellState
from feature_repo.folds.user import UserState
from protos.events.v1.outcome_pb2 import Outcome
from streams.cursor import Cursor, Partition, Record
from streams.effects import Effects, close_due, fold_cells, fold_chunk
from streams.outbox import Produced
from streams.reading import Chunk, Rejection, chunks, gapless
from streams.rejects import rejected_message
from streams.state_store import Commit, StateStore

MAX_ACTIVITIES: Final = 5_000  # in one transaction: a few hundred milliseconds of work, a few tens of megabytes
SWEEP_USERS: Final = 500  # users whose due answers one transaction closes
CACHE_CELLS: Final = 4_096

V = TypeVar("V")


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
        self._users: _Cache[UserState] = _Cache(cache_users)
        self._cells: _Cache[CellState] = _Cache(CACHE_CELLS)

    def apply(self, records: Sequence[Record]) -> int:
        """How many leading `records` are in the states now: all of them, or those before a hole in the offsets.

        Raises:
            OwnershipLost: the partition has a newer owner.
            StoreUnavailable: the store did not answer in time. Its cursor says what of `records` stands.
        """
        settled = gapless(records, self.cursor.next_offset)
        context = self._context()
        for chunk in chunks(records[:settled], self.cursor, self.partition, limit=MAX_ACTIVITIES):
            self._apply(chunk, context)
        while self.next_due_ms <= self.cursor.log_time_ms:
            self._sweep()
        return settled

    def skip_hole(self, offset: int) -> None:
        """Nothing before `offset` is waited for any more: the log has no records there."""
        self.cursor = self.cursor._replace(next_offset=max(offset, self.cursor.next_offset))

    def _apply(self, chunk: Chunk, context: FoldContext) -> None:
        """One transaction: the chunk is in the states."""
        number = self.partition.number
        effects = fold_chunk(chunk, self._users.filled(chunk.users, self._store.users), number, context)
        before = self._cells.filled(list(effects.acts), lambda missing: self._store.cells(number, missing))
        cells = fold_cells(effects, before)
        cursor = self.cursor
        cursor = cursor._replace(
            next_offset=chunk.next_offset,
            log_time_ms=chunk.log_time_ms,
            records=cursor.records + len(chunk.recorded_ms),
            applied=cursor.applied + effects.applied,
            duplicates=cursor.duplicates + effects.duplicates,
            rejected=cursor.rejected + len(chunk.rejections),
            impressions=cursor.impressions + effects.impressions,
        )
        self._commit(cursor, effects, cells, chunk.rejections, chunk.recorded_ms)
        self._users.put(effects.states)
        self._cells.put(cells)

    def _sweep(self) -> None:
        """One transaction: what is due of at most SWEEP_USERS users has become outcomes."""
        due = self._store.due_users(self.partition.number, self.cursor.log_time_ms, SWEEP_USERS)
        if due:
            before = dict(zip(due, self._store.answers(due), strict=True))
            after, effects = close_due(before, self.cursor.log_time_ms)
            self._commit(self.cursor, effects, {}, (), ())
            for user_id, answers in after.items():
                cached = self._users.get(user_id)
                if cached is not None:
                    self._users.put({user_id: cached._replace(attribution=answers)})
        self.next_due_ms = self._store.next_due_ms(self.partition.number)

    def _commit(
        self,
        cursor: Cursor,
        effects: Effects,
        cells: Mapping[str, CellState],
        rejections: Sequence[Rejection],
        recorded_ms: Sequence[int],
    ) -> None:
        cursor = cursor._replace(
            outcomes=cursor.outcomes + len(effects.outcomes), let_go=cursor.let_go + len(effects.let_go)
        )
        produced = [_outcome_record(outcome, cursor, self.partition) for outcome in effects.outcomes]
        produced += [_reject_record(rejection, self.partition) for rejection in rejections]
        commit = Commit(self.partition, cursor, effects.states, effects.answers, cells, produced)
        self._store.commit(commit)
        self.cursor = cursor
        opened = (answer.due_ms for changes in effects.answers.values() for answer in changes.put)
        self.next_due_ms = min([self.next_due_ms, *opened])
        if self._committed is not None:
            self._committed(Committed(commit, effects, len(rejections), recorded_ms))


def _outcome_record(outcome: Outcome, cursor: Cursor, partition: Partition) -> Produced:
    # outcomes.v1 has the partitions of activity.v1: a user's outcomes lie where the user's activity lies.
    return Produced(
        OUTCOMES, outcome.user_id.encode(), outcome.SerializeToString(), partition.number, cursor.log_time_ms
    )


def _reject_record(rejection: Rejection, partition: Partition) -> Produced:
    value = rejected_message(rejection, partition).SerializeToString()
    return Produced(REJECTED, None, value, 0, max(rejection.recorded_ms, 0))


class _Cache(Generic[V]):
    """The states used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str) -> V | None:
        return self._kept.get(key)

    def filled(self, keys: Sequence[str], load: Callable[[Sequence[str]], Sequence[V]]) -> dict[str, V]:
        """A value for each key, what is not kept in one call of `load`."""
        missing = [key for key in keys if key not in self._kept]
        loaded = dict(zip(missing, load(missing), strict=True)) if missing else {}
        return {key: self._kept[key] if key in self._kept else loaded[key] for key in keys}

    def put(self, values: Mapping[str, V]) -> None:
        """The values are the newest; the oldest beyond the size are forgotten."""
        for key, value in values.items():
            self._kept[key] = value
            self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
