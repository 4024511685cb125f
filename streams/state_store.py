"""What a driver needs of a store, and the store in memory: the reference that the real one is measured by."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from core.errors import OwnershipLost
from feature_repo.folds import attribution, popularity, user
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.folds.popularity import CellState
from feature_repo.folds.user import UserState
from streams.cursor import Cursor, Partition
from streams.outbox import OutboxRow, Produced

NEVER_MS: Final = 2**63 - 1  # nothing waits


class Commit(NamedTuple):
    """Everything that one transaction makes true."""

    partition: Partition
    cursor: Cursor  # after it; the epoch is its owner's
    states: Mapping[str, UserState]  # users whose view rows changed
    answers: Mapping[str, Changes]  # users whose open answers changed
    cells: Mapping[str, CellState]  # this partition's partial sums that changed
    produced: Sequence[Produced]  # for the outbox, in order


class StateStore(Protocol):
    """States, cursors and what waits. Every method may raise StoreUnavailable, and then has done nothing for sure
    only where it reads: a commit whose answer is lost may stand."""

    def take_over(self, partition: Partition) -> Cursor:
        """The stored cursor, under a new epoch that fences every earlier owner."""

    def users(self, user_ids: Sequence[str]) -> list[UserState]:
        """The states, in order; EMPTY where nothing is stored."""

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        """The open answers alone, in order."""

    def cells(self, partition: int, cells: Sequence[str]) -> list[CellState]:
        """The partition's partial sums, in order; EMPTY where nothing is stored."""

    def cells_of(self, partition: int) -> list[str]:
        """Every cell that the partition has a partial sum of."""

    def due_users(self, partition: int, log_time_ms: int, limit: int) -> list[str]:
        """At most `limit` users of the partition with an answer due at `log_time_ms`."""

    def next_due_ms(self, partition: int) -> int:
        """When the partition's next answer is due; NEVER_MS when none is open."""

    def commit(self, commit: Commit) -> None:
        """All of it stands, or none.

        Raises:
            OwnershipLost: the partition has a newer epoch; nothing was written.
        """


class MemoryStateStore:
    """A StateStore and Outbox that forgets everything with its process; for tests and replays."""

    def __init__(self) -> None:
        self.cursors: dict[Partition, Cursor] = {}
        self.states: dict[str, UserState] = {}  # open answers apart
        self.open: dict[str, dict[str, attribution.Answer]] = {}
        self.partials: dict[tuple[int, str], CellState] = {}
        self.outbox: dict[int, tuple[int, Produced]] = {}  # id -> source partition, record
        self._owner_of: dict[str, int] = {}
        self._next_id = 1

    def take_over(self, partition: Partition) -> Cursor:
        cursor = self.cursors.get(partition, Cursor(0))
        self.cursors[partition] = cursor._replace(epoch=cursor.epoch + 1)
        return self.cursors[partition]

    def users(self, user_ids: Sequence[str]) -> list[UserState]:
        answers = self.answers(user_ids)
        return [
            self.states.get(user_id, user.EMPTY)._replace(attribution=open_answers)
            for user_id, open_answers in zip(user_ids, answers, strict=True)
        ]

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        return [AttributionState(dict(self.open.get(user_id, {}))) for user_id in user_ids]

    def cells(self, partition: int, cells: Sequence[str]) -> list[CellState]:
        return [self.partials.get((partition, cell), popularity.EMPTY) for cell in cells]

    def cells_of(self, partition: int) -> list[str]:
        return [cell for source, cell in self.partials if source == partition]

    def due_users(self, partition: int, log_time_ms: int, limit: int) -> list[str]:
        due = (user_id for due_ms, user_id in self._waiting(partition) if due_ms <= log_time_ms)
        return list(dict.fromkeys(due))[:limit]

    def next_due_ms(self, partition: int) -> int:
        return min((due_ms for due_ms, _ in self._waiting(partition)), default=NEVER_MS)

    def commit(self, commit: Commit) -> None:
        found = self.cursors.get(commit.partition, Cursor(0))
        if found.epoch != commit.cursor.epoch:
            raise OwnershipLost(ownership_lost(commit))
        self.cursors[commit.partition] = commit.cursor
        for user_id, state in commit.states.items():
            # Through the rows: what is kept is what a stored row can hold.
            self.states[user_id] = user.unpack(user.pack([state]), 0)
        for user_id, changes in commit.answers.items():
            self._owner_of[user_id] = commit.partition.number
            kept = self.open.setdefault(user_id, {})
            for answer in changes.put:
                kept.update(attribution.unpack([attribution.pack(answer)]).answers)
            for request_id in changes.removed:
                kept.pop(request_id, None)
        for cell, partial in commit.cells.items():
            self.partials[commit.partition.number, cell] = partial
        for produced in commit.produced:
            self.outbox[self._next_id] = (commit.partition.number, produced)
            self._next_id += 1

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        rows = [OutboxRow(key, produced) for key, (source, produced) in self.outbox.items() if source == partition]
        return rows[:limit]

    def delete(self, ids: Sequence[int]) -> None:
        for key in ids:
            self.outbox.pop(key, None)

    def _waiting(self, partition: int) -> list[tuple[int, str]]:
        return [
            (answer.due_ms, user_id)
            for user_id, answers in self.open.items()
            if self._owner_of[user_id] == partition
            for answer in answers.values()
        ]


def ownership_lost(commit: Commit) -> str:
    """The one line of a fenced owner."""
    return (
        f"{commit.partition.topic} partition {commit.partition.number}: found another owner, expected epoch "
        f"{commit.cursor.epoch} to be the newest; this process was away too long and ends, restart it"
    )
