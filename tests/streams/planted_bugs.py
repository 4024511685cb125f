"""Bugs of every kind that the state pattern is built against, each as small as it would slip in."""

import itertools
from collections.abc import Sequence
from typing import Any, Final

from core.errors import FrameError, StoreUnavailable
from core.frames import decode_frame, encode_frame
from core.validation import interaction_fault
from streams.cursor import Cursor, Partition, Record
from streams.driver import Driver
from streams.holes import AGAIN_S, Holes, Step
from streams.outbox import OutboxRow
from streams.state_store import Commit
from tests.streams.log_maker import START_MS
from tests.streams.simulated_servers import SimulatedStore
from tests.streams.simulated_worker import Holding, Worker
from tests.streams.simulation import Parts


class AcknowledgesFirst(Worker):
    """Kafka is told before the states are committed."""

    def apply(self, number: int, holding: Holding, records: Sequence[Record]) -> int:
        if records:
            holding.acknowledged = records[-1].offset + 1
        return super().apply(number, holding, records)


class CommitsWithoutEpoch(SimulatedStore):
    """A zombie overwrites what its successor wrote."""

    def transact(self, commit: Commit) -> None:
        epoch = self.cursors[commit.partition].epoch
        super().transact(commit._replace(cursor=commit.cursor._replace(epoch=epoch)))


class AppliesAgain(Driver):
    """What the cursor covers is not dropped."""

    def apply(self, records: Sequence[Record]) -> int:
        if records and records[0].offset < self.cursor.next_offset:
            self.cursor = self.cursor._replace(next_offset=records[0].offset)
        return super().apply(records)


class RaisesNoEpoch(SimulatedStore):
    """A new owner is told apart from none before it."""

    def take_over(self, partition: Partition) -> Cursor:
        taken = super().take_over(partition)
        self.cursors[partition] = taken._replace(epoch=1)
        return self.cursors[partition]


class KeepsDriverAfterError(Worker):
    """A failed commit leaves the caches as they were."""

    def apply(self, number: int, holding: Holding, records: Sequence[Record]) -> int:
        holding.driver = holding.driver or self._take_over(number)
        try:
            return holding.driver.apply(records)
        except StoreUnavailable:
            return 0  # the batch is read again, by the same driver


class KeepsCacheAcrossEpochs(Worker):
    """A partition that comes back finds the states as this process left them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._before: dict[Partition, Driver] = {}

    def apply(self, number: int, holding: Holding, records: Sequence[Record]) -> int:
        if holding.driver is None:
            taken = self._take_over(number)
            holding.driver = self._before.setdefault(taken.partition, taken)
            holding.driver.cursor, holding.driver.next_due_ms = taken.cursor, taken.next_due_ms
        return super().apply(number, holding, records)


class DeletesBeforeAcknowledgement(SimulatedStore):
    """A row leaves the outbox as soon as it is read."""

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        rows = super().waiting(partition, limit)
        for row in rows:
            del self.outbox[row.id]
        return rows


class StepsOverHoles(Driver):
    """A gap in the offsets is taken for one in the log."""

    def apply(self, records: Sequence[Record]) -> int:
        settled = super().apply(records)
        while settled < len(records):
            self.skip_hole(records[settled].offset)
            settled += super().apply(records[settled:])
        return settled


class BelievesLateGaps(Worker):
    """A gap that is still there after a second is taken for one in the log."""

    def assigned(self, partitions: dict[int, int]) -> None:
        super().assigned(partitions)
        for holding in self.holdings.values():
            holding.holes = _HolesByTime()


class _HolesByTime(Holes):
    def __init__(self) -> None:
        super().__init__()
        self._since_s: dict[int, float] = {}

    def met(self, partition: int, expected: int, found: int, now_s: float) -> Step:
        if expected not in self._since_s:
            self._since_s[expected] = now_s
            return Step.GO_BACK
        return Step.WAIT if now_s - self._since_s[expected] < AGAIN_S else Step.STEP_OVER


class MovesCursorApart(SimulatedStore):
    """States in one transaction, the cursor in the next."""

    def transact(self, commit: Commit) -> None:
        super().transact(commit._replace(cursor=self.cursors[commit.partition]._replace(epoch=commit.cursor.epoch)))
        self.stage.pause("between two transactions")
        if self.cursors[commit.partition].epoch == commit.cursor.epoch:
            self.cursors[commit.partition] = commit.cursor


class ProducesApart(SimulatedStore):
    """Outcomes and rejects in a transaction of their own, after the states."""

    def transact(self, commit: Commit) -> None:
        super().transact(commit._replace(produced=()))
        self.stage.pause("between two transactions")
        super().transact(commit._replace(users=None, answers={}, sums=()))


class ClosesByWallClock(Worker):
    """Answers are due when the machine's clock says so."""

    def apply(self, number: int, holding: Holding, records: Sequence[Record]) -> int:
        settled = super().apply(number, holding, records)
        assert holding.driver is not None
        now_ms = max(holding.driver.cursor.log_time_ms, self._clock.now_ms())
        holding.driver.cursor = holding.driver.cursor._replace(log_time_ms=now_ms)
        holding.driver.apply([])
        return settled


class SweepsByTheBatch(Driver):
    """The time of a batch is that of its last record, for the first one too."""

    def apply(self, records: Sequence[Record]) -> int:
        times = [record.timestamp_ms for record in records if record.offset >= self.cursor.next_offset]
        latest_ms = max([self.cursor.log_time_ms, *(at_ms for at_ms in times if at_ms < 2 * START_MS)])
        self.cursor = self.cursor._replace(log_time_ms=latest_ms)
        return super().apply(records)


class DropsRestOfFrame(Driver):
    """Behind an entry that is rejected, the rest of its frame is lost."""

    def apply(self, records: Sequence[Record]) -> int:
        return super().apply([self._cut(record) for record in records])

    def _cut(self, record: Record) -> Record:
        try:
            activities = decode_frame(record.value)
        except FrameError:
            return record
        for place, activity in enumerate(activities):
            if interaction_fault(activity.interaction, record.timestamp_ms) and activity.HasField("interaction"):
                return record._replace(value=encode_frame(activities[: place + 1]))
        return record


class StopsAtPoison(Driver):
    """A record that cannot be read is tried again and again."""

    def apply(self, records: Sequence[Record]) -> int:
        return super().apply(list(itertools.takewhile(_readable, records)))


def _readable(record: Record) -> bool:
    try:
        decode_frame(record.value)
    except FrameError:
        return False
    return True


BUGS: Final[dict[str, Parts]] = {
    "acknowledges before the commit": Parts(worker=AcknowledgesFirst),
    "commits without looking at the epoch": Parts(store=CommitsWithoutEpoch),
    "takes over without raising the epoch": Parts(store=RaisesNoEpoch),
    "applies what the cursor covers": Parts(driver=AppliesAgain),
    "keeps its cache after a failed commit": Parts(worker=KeepsDriverAfterError),
    "keeps its cache across epochs": Parts(worker=KeepsCacheAcrossEpochs),
    "deletes outbox rows before the acknowledgement": Parts(store=DeletesBeforeAcknowledgement),
    "steps over a hole": Parts(driver=StepsOverHoles),
    "believes in a hole after a second": Parts(worker=BelievesLateGaps),
    "moves the cursor in another transaction": Parts(store=MovesCursorApart),
    "produces in another transaction": Parts(store=ProducesApart),
    "closes answers by the wall clock": Parts(worker=ClosesByWallClock),
    "judges a whole batch by its last record": Parts(driver=SweepsByTheBatch),
    "drops what stands behind a bad entry": Parts(driver=DropsRestOfFrame),
    "stops at poison": Parts(driver=StopsAtPoison),
}
