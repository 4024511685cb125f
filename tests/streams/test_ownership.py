"""Laws of ownership: a batch waits while the store is away, is never skipped, and a fenced owner speaks up."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from core.clock import FixedClock
from core.errors import OwnershipLost, StoreUnavailable
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from streams import ownership
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.ownership import Owner
from streams.state_store import Commit, MemoryStateStore
from tests.streams.log_maker import HORIZON_MS, PARTITION, START_MS, USERS, frame, impression, make_log

CONTEXT = FoldContext(NoItems(), 1, HORIZON_MS, 9)
NUMBER = PARTITION.number


class Store(MemoryStateStore):
    """Away for the next `away` commits; each commit waits for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.away = 0
        self.committing = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def commit(self, commit: Commit) -> None:
        self.committing.set()
        assert self.gate.wait(5)
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        super().commit(commit)


def owner_of(store: MemoryStateStore, clock: FixedClock) -> Owner:
    def take_over(number: int) -> Driver:
        partition: Partition = PARTITION._replace(number=number)
        return Driver(partition, store, lambda: CONTEXT, cache_users=10)

    owner = Owner(take_over, clock, threads=2)
    owner.assigned([NUMBER])
    return owner


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START_MS)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_BACKOFF_S", (0.001,))


async def ended(owner: Owner) -> None:
    await owner.drain()
    owner.close()


async def test_a_batch_waits_for_the_store_and_is_applied_once(clock: FixedClock) -> None:
    store, log = Store(), make_log(1, 8)
    store.away = 3
    owner = owner_of(store, clock)
    assert await owner.settle(NUMBER, log) == len(log)
    assert store.cursors[PARTITION].records == len(log)
    assert store.cursors[PARTITION].epoch == 4, "every attempt takes the partition over anew"
    await ended(owner)


async def test_a_store_that_stays_away_ends_the_wait(clock: FixedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.away = 1_000_000
    monkeypatch.setattr(ownership, "PATIENCE_S", -1.0)
    owner = owner_of(store, clock)
    with pytest.raises(StoreUnavailable):
        await owner.settle(NUMBER, make_log(1, 8))
    assert PARTITION in store.cursors and store.cursors[PARTITION].records == 0
    await ended(owner)


async def test_a_zombie_learns_that_it_is_one(clock: FixedClock) -> None:
    store, log = Store(), make_log(1, 8)
    owner = owner_of(store, clock)
    await owner.settle(NUMBER, log[:4])
    store.take_over(PARTITION)
    with pytest.raises(OwnershipLost):
        await owner.settle(NUMBER, log[4:])
    await ended(owner)


async def test_a_partition_that_left_takes_nothing_and_ends_nobody(clock: FixedClock) -> None:
    store, log = Store(), make_log(1, 8)
    owner = owner_of(store, clock)
    await owner.settle(NUMBER, log[:4])
    await owner.revoked([NUMBER])
    store.take_over(PARTITION)
    assert await owner.settle(NUMBER, log[4:]) == 0
    assert owner.owned == []
    await ended(owner)


async def test_revocation_waits_for_the_batch_in_work(clock: FixedClock) -> None:
    store, log = Store(), make_log(1, 8)
    owner = owner_of(store, clock)
    store.gate.clear()
    batch = asyncio.create_task(owner.settle(NUMBER, log))
    await asyncio.to_thread(store.committing.wait)
    leaving = asyncio.create_task(owner.revoked([NUMBER]))
    await asyncio.sleep(0.02)
    assert not leaving.done()
    store.gate.set()
    await leaving
    assert await batch == len(log)
    assert store.cursors[PARTITION].records == len(log)
    await ended(owner)


async def test_a_cancelled_batch_ends_before_the_next_begins(clock: FixedClock) -> None:
    store, log = Store(), make_log(1, 8)
    owner = owner_of(store, clock)
    store.gate.clear()
    batch = asyncio.create_task(owner.settle(NUMBER, log[:5]))
    await asyncio.to_thread(store.committing.wait)
    batch.cancel()
    again = asyncio.create_task(owner.settle(NUMBER, log))
    await asyncio.sleep(0.02)
    store.gate.set()
    assert await again == len(log)
    assert store.cursors[PARTITION].records == len(log)
    await ended(owner)


async def test_a_hole_settles_what_stands_before_it(clock: FixedClock) -> None:
    log = make_log(1, 8)
    owner = owner_of(Store(), clock)
    holed: Sequence[Record] = [*log[:3], *log[5:]]
    assert await owner.settle(NUMBER, holed) == 3
    assert owner.expected(NUMBER) == 3
    owner.skip_hole(NUMBER, 5)
    assert await owner.settle(NUMBER, holed[3:]) == 3
    await ended(owner)


async def test_only_a_quiet_partition_where_something_is_due_needs_a_heartbeat(clock: FixedClock) -> None:
    owner = owner_of(Store(), clock)
    await owner.settle(NUMBER, [frame(0, START_MS, impression("r1", USERS[0], START_MS))])
    clock.advance(HORIZON_MS - 1)
    assert owner.overdue(1.0) == []
    clock.advance(1)
    assert owner.overdue(1.0) == [NUMBER]
    assert owner.overdue(1_000.0) == []
    await owner.settle(NUMBER, [frame(1, clock.now_ms())])
    clock.advance(10 * HORIZON_MS)
    assert owner.overdue(1.0) == []
    await ended(owner)


async def test_an_owner_that_ends_waits_for_no_record(clock: FixedClock) -> None:
    """What it leaves undone is not taken for a gap in the log."""
    owner, log = owner_of(Store(), clock), make_log(1, 4)
    assert await owner.settle(NUMBER, log[:2]) == 2
    assert owner.expected(NUMBER) == 2
    await ended(owner)
    assert await owner.settle(NUMBER, log[2:]) == 0
    assert owner.expected(NUMBER) is None
