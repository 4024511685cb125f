"""The partitions this process holds, and the drivers that own them: the only asynchronous part of the state pattern.

A driver lives as long as its epoch: from assignment to revocation, or to the first error. Database work
runs in threads, at most one at a time for a partition.
"""

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from core.clock import Clock
from core.errors import BrokerUnavailable, OwnershipLost, StoreUnavailable
from streams.cursor import Record
from streams.driver import Driver

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 30.0  # how long the store may be away before the process ends
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_DRAIN_S: Final = 3.0  # below the session timeout: what is in work may end before its partition moves on

T = TypeVar("T")


class Owner:
    """Brings batches to the driver of their partition. All methods but `close` are for one event loop."""

    def __init__(self, take_over: Callable[[int], Driver], clock: Clock, *, threads: int) -> None:
        """`take_over(partition)` raises the partition's epoch and gives its new driver; it may block."""
        self._take_over = take_over
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="partition")
        self._assigned: set[int] = set()
        self._drivers: dict[int, Driver] = {}
        self._working: dict[int, asyncio.Future[object]] = {}
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._quiet_since: dict[int, float] = {}  # partition -> when its last batch ended
        self._draining = False

    @property
    def owned(self) -> list[int]:
        """Partitions with a driver, ascending. Safe to read from other threads."""
        return sorted(self._drivers.copy())

    def assigned(self, partitions: Iterable[int]) -> None:
        """Exactly these partitions are ours; each is taken over with its first batch, be it empty."""
        self._assigned = set(partitions)

    async def revoked(self, partitions: Iterable[int]) -> None:
        """None of these is ours; what was in work has ended, or had its moment and will be fenced."""
        leaving = set(partitions)
        self._assigned -= leaving
        working = [self._working[partition] for partition in leaving if partition in self._working]
        if working:
            await asyncio.wait(working, timeout=_DRAIN_S)
        for partition in leaving:
            self._drivers.pop(partition, None)

    async def settle(self, partition: int, records: Sequence[Record]) -> int:
        """How many leading `records` are in the states now and may be acknowledged.

        Fewer than all where the log has a hole, or the partition left us meanwhile. While the store is
        away the partition waits; nothing is skipped.

        Raises:
            StoreUnavailable: the store stayed away for PATIENCE_S.
            OwnershipLost: somebody else owns the partition although it is assigned to this process.
        """
        since = self._clock.monotonic_s()
        for attempt in itertools.count():
            driver = None
            try:
                if self._draining or partition not in self._assigned:
                    return 0
                async with self._turns[partition]:
                    driver = await self._driver(partition)
                    return await self._in_thread(partition, driver.apply, records)
            except OwnershipLost:
                if driver is None or self._drivers.get(partition) is driver:
                    raise
                return 0
            except (StoreUnavailable, BrokerUnavailable) as error:
                if self._drivers.get(partition) is driver:
                    self._drivers.pop(partition, None)
                if self._clock.monotonic_s() - since > PATIENCE_S:
                    raise
                logger.warning("partition.waiting partition=%d reason=%s", partition, error)
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
        raise AssertionError("itertools.count does not end")

    def expected(self, partition: int) -> int | None:
        """The offset that the partition's driver waits for; None without one, and while everything ends."""
        driver = self._drivers.get(partition)
        return None if driver is None or self._draining else driver.cursor.next_offset

    def overdue(self, quiet_s: float) -> list[int]:
        """Partitions quiet for `quiet_s` where something waits for a time that has come: they need a heartbeat."""
        now_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
        return [
            partition
            for partition, driver in self._drivers.items()
            if partition not in self._working
            and now_s - self._quiet_since.get(partition, now_s) >= quiet_s
            and driver.next_due_ms <= now_ms
        ]

    def skip_hole(self, partition: int, offset: int) -> None:
        """The log has no records before `offset`; the partition's driver waits for that one."""
        driver = self._drivers.get(partition)
        if driver is not None:
            driver.skip_hole(offset)

    async def drain(self) -> None:
        """What is in work has ended; nothing new begins."""
        self._draining = True
        if self._working:
            await asyncio.wait(list(self._working.values()))

    def close(self) -> None:
        """The threads are told to end; call after `drain`."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _driver(self, partition: int) -> Driver:
        driver = self._drivers.get(partition)
        if driver is None:
            driver = await self._in_thread(partition, self._take_over, partition)
            if partition in self._assigned:
                self._drivers[partition] = driver
        return driver

    async def _in_thread(self, partition: int, work: Callable[..., T], *arguments: object) -> T:
        before = self._working.get(partition)
        if before is not None:  # of an agent that was cancelled; its thread goes on to the end
            await asyncio.wait([before])
        running = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        self._working[partition] = running  # type: ignore[assignment]
        running.add_done_callback(lambda done: self._ended(partition, done))
        # Shielded: a cancelled agent must not make the thread's result, or its error, go missing unseen.
        return await asyncio.shield(running)

    def _ended(self, partition: int, done: "asyncio.Future[T]") -> None:
        if self._working.get(partition) is done:
            del self._working[partition]
        self._quiet_since[partition] = self._clock.monotonic_s()
        if not done.cancelled() and isinstance(done.exception(), OwnershipLost):
            # Also when nobody waits for it any more: the partition was revoked meanwhile.
            logger.warning("partition.fenced partition=%d: nothing was written, a newer owner has it", partition)
