"""What a driver needs of a store, and the store in memory: the reference that the real one is measured by."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from core.errors import OwnershipLost
from feature_repo.folds import popularity, user
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.folds.popularity import CellState
from feature_repo.folds.user import UserState
from feature_repo.store import MemoryStore
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
        self.features = MemoryStore()
        self.cursors: dict[Partition, Cursor] = {}
        self.outbox: dict[int, tuple[int, Produced]] = {}  # id -> source partition, record
        self._next_id = 1

    def take_over(self, partition: Partition) -> Cursor:
        cursor = self.cursors.get(partition, Cursor(0))
        self.cursors[partition] = cursor._replace(epoch=cursor.epoch + 1)
        return self.cursors[partition]

    def users(self, user_ids: Sequence[str]) -> list[UserState]:
        rows = self.features.read_users(user_ids)
        answers = self.answers(user_ids)
        return [user.unpack(rows, at, answers[at]) for at in range(len(user_ids))]

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        return self.features.load_answers(None, user_ids)

    def cells(self, partition: int, cells: Sequence[str]) -> list[CellState]:
        return self.features.load_cells(None, partition, cells)

    def due_users(self, partition: int, log_time_ms: int, limit: int) -> list[str]:
        return self.features.due_users(None, partition, log_time_ms, limit)

    def next_due_ms(self, partition: int) -> int:
        due_ms = self.features.next_due_ms(None, partition)
        return NEVER_MS if due_ms is None else due_ms

    def commit(self, commit: Commit) -> None:
        number = commit.partition.number
        found = self.cursors.get(commit.partition, Cursor(0))
        if found.epoch != commit.cursor.epoch:
            raise OwnershipLost(ownership_lost(commit))
        self.cursors[commit.partition] = commit.cursor
        if commit.states:
            self.features.write_users(None, list(commit.states), user.pack(list(commit.states.values())))
        self.features.write_answers(None, number, commit.answers)
        if commit.cells:
            sums = popularity.rows_of(list(commit.cells.values()))
            self.features.write_cells(None, number, list(commit.cells), sums)
        for produced in commit.produced:
            self.outbox[self._next_id] = (number, produced)
            self._next_id += 1

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        rows = [OutboxRow(key, produced) for key, (source, produced) in self.outbox.items() if source == partition]
        return rows[:limit]

    def delete(self, ids: Sequence[int]) -> None:
        for key in ids:
            self.outbox.pop(key, None)


def ownership_lost(commit: Commit) -> str:
    """The one line of a fenced owner."""
    return (
        f"{commit.partition.topic} partition {commit.partition.number}: found another owner, expected epoch "
        f"{commit.cursor.epoch} to be the newest; this process was away too long and ends, restart it"
    )
