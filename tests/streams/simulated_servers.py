"""The servers of the simulation: a store and a broker that fail in every way they may, whenever the schedule says."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from kafka.errors import KafkaTimeoutError
from numpy.typing import NDArray

from core.errors import StoreUnavailable
from feature_repo.folds.attribution import AttributionState
from feature_repo.sums import Sum
from streams.cursor import Cursor, Partition, Record
from streams.outbox import OutboxRow
from streams.state_store import Commit, MemoryStateStore, Users
from tests.streams.simulated_log import Topic


class Killed(BaseException):
    """The process at work ends here; no `except Exception` holds it up."""


class Stage(Protocol):
    """The schedule, as far as a server knows it."""

    def pause(self, where: str) -> None:
        """The process at work stands still here while others go on. Raises Killed when it dies here."""

    def strikes(self, fault: str) -> bool:
        """Whether `fault` happens now."""

    def tell(self, fault: str) -> None:
        """`fault` has happened."""


class SimulatedStore(MemoryStateStore):
    """A MemoryStateStore behind a network: away for a while, slow, or its answer is lost."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def take_over(self, partition: Partition) -> Cursor:
        self._reach("take over")
        cursor = super().take_over(partition)
        self._answer("take over")
        return cursor

    def users(self, user_ids: Sequence[str]) -> Users:
        self._reach("read users")
        return super().users(user_ids)

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        self._reach("read answers")
        return super().answers(user_ids)

    def sums(self, table: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        self._reach(f"read {table.table}")
        return super().sums(table, partition, keys)

    def due_users(self, partition: int, log_time_ms: int, limit: int) -> list[str]:
        self._reach("read due users")
        return super().due_users(partition, log_time_ms, limit)

    def next_due_ms(self, partition: int) -> int:
        self._reach("read next due")
        return super().next_due_ms(partition)

    def commit(self, commit: Commit) -> None:
        self._reach("commit")
        self.transact(commit)
        self._answer("commit")

    def transact(self, commit: Commit) -> None:
        """What the server itself does: all of `commit` or nothing, with nobody in between."""
        super().commit(commit)

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        self._reach("read outbox")
        return super().waiting(partition, limit)

    def delete(self, ids: Sequence[int]) -> None:
        self._reach("delete from outbox")
        super().delete(ids)
        self._answer("delete from outbox")

    def _reach(self, call: str) -> None:
        self.stage.pause(call)
        if self.stage.strikes("store away"):
            raise StoreUnavailable(f"{call}: away")

    def _answer(self, call: str) -> None:
        if self.stage.strikes("answer lost"):
            raise StoreUnavailable(f"{call}: done, answer lost")
        self.stage.pause(f"{call} done")


class Delivered(NamedTuple):
    """One record of outcomes.v1 or rejected.v1."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes


class Broker:
    """Kafka as the workers see it: activity.v1 grows, committed offsets lag, fetches repeat and leave out."""

    def __init__(self, stage: Stage, topic: Topic) -> None:
        self.stage = stage
        self.delivered: list[Delivered] = []
        self.remake(topic)

    def remake(self, topic: Topic) -> None:
        """activity.v1 is `topic` now, empty so far; the group has committed nothing in it."""
        self.topic = topic
        self.visible = [0] * len(topic.logs)  # records that producers have written, by partition
        self.committed: defaultdict[int, int] = defaultdict(int)  # where the group would begin again

    def grow(self, number: int, count: int) -> Sequence[Record]:
        """The next `count` records stand in a partition now."""
        before = self.visible[number]
        self.visible[number] = min(before + count, len(self.topic.logs[number]))
        return self.topic.logs[number][before : self.visible[number]]

    def fetch(self, number: int, position: int, limit: int, first: bool) -> Sequence[Record]:
        """At most `limit` records from `position` on; the `first` fetch after a rebalance may begin too far ahead."""
        log = self.topic.logs[number][: self.visible[number]]
        found = [record for record in log if record.offset >= position]
        if first and self.stage.strikes("fetch leaves out"):
            found = found[2:]
        return found[:limit]

    def send(self, topic: str, *, value: bytes, key: bytes | None, partition: int, timestamp_ms: int) -> "_Sent":
        """KafkaProducer.send: one attempt, its answer there at once."""
        self.stage.pause(f"send {topic}")
        if self.stage.strikes("broker away"):
            return _Sent(KafkaTimeoutError("not written"))
        self.delivered.append(Delivered(topic, partition, key, value))
        return _Sent(KafkaTimeoutError("answer lost") if self.stage.strikes("answer lost") else None)


class _Written(NamedTuple):
    partition: int = 0
    offset: int = 0


class _Sent:
    """kafka-python's future, done at once."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def add_callback(self, call: Callable[[Any], None]) -> None:
        if self._error is None:
            call(_Written())

    def add_errback(self, call: Callable[[Exception], None]) -> None:
        if self._error is not None:
            call(self._error)
