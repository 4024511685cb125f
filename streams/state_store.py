"""What a driver needs of a store, and the store in memory: the reference that the real one is measured by."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import OwnershipLost
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.store import MemoryStore
from feature_repo.sums import Sum
from streams.cursor import Cursor, Partition
from streams.outbox import OutboxRow, Produced

NEVER_MS: Final = 2**63 - 1  # nothing waits


class Rows(NamedTuple):
    """Rows that changed, (B,), each with its key."""

    keys: Sequence[str]
    rows: NDArray[np.void]


class Users(NamedTuple):
    """Stored users, in the order asked for."""

    rows: NDArray[np.void]  # (B,) USER, owned by the caller; zeros where nothing is stored
    answers: list[AttributionState]


class Commit(NamedTuple):
    """Everything that one transaction makes true."""

    partition: Partition
    cursor: Cursor  # after it; the epoch is its owner's
    users: Rows | None  # USER
    answers: Mapping[str, Changes]  # users whose open answers changed
    sums: Sequence[tuple[Sum, Rows]]  # this partition's partial sums that changed
    produced: Sequence[Produced]  # for the outbox, in order


class StateStore(Protocol):
    """States, cursors and what waits. Every method may raise StoreUnavailable, and then has done nothing for sure
    only where it reads: a commit whose answer is lost may stand."""

    def take_over(self, partition: Partition) -> Cursor:
        """The stored cursor, under a new epoch that fences every earlier owner, those of an earlier topic included."""

    def users(self, user_ids: Sequence[str]) -> Users:
        """The rows and open answers of distinct users; empty where nothing is stored."""

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        """The open answers alone, in order."""

    def sums(self, table: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        """The partition's partial sums of (B,) distinct keys, owned by the caller; zeros where nothing is stored."""

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
        for other, cursor in self.cursors.items():
            if other._replace(topic_id=partition.topic_id) == partition != other:
                self.cursors[other] = cursor._replace(epoch=cursor.epoch + 1)
        cursor = self.cursors.get(partition, Cursor(0))
        self.cursors[partition] = cursor._replace(epoch=cursor.epoch + 1)
        return self.cursors[partition]

    def users(self, user_ids: Sequence[str]) -> Users:
        return Users(self.features.load_users(None, user_ids), self.answers(user_ids))

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        return self.features.load_answers(None, user_ids)

    def sums(self, table: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        return self.features.load_sums(None, table, partition, keys)

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
        if commit.users is not None:
            self.features.write_users(None, *commit.users)
        self.features.write_answers(None, number, commit.answers)
        for table, changed in commit.sums:
            self.features.write_sums(None, table, number, *changed)
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
