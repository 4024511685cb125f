"""The same promise one layer up: workers with real `Owner`s on an event loop whose time is simulated.

    simulate_owners(17)

Rebalances reach each worker at a time of its own, batches take a while, agents are cancelled in the middle of
them, and the store fails. No thread runs and nobody sleeps: the loop goes to the next moment at once.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final
from unittest.mock import patch

from core.clock import FixedClock
from core.errors import NearfeedError
from streams.cursor import Record
from streams.driver import Driver
from streams.holes import Holes, Step, runs
from streams.ownership import Owner
from tests.streams.log_maker import START_MS
from tests.streams.simulated_log import READ, topics_of
from tests.streams.simulated_picture import difference, expected, picture_of
from tests.streams.simulated_servers import Broker, Delivered, SimulatedStore
from tests.streams.simulation import CONTEXT, LOGS

WORKERS: Final = 2
FAULTS_S: Final = 25.0  # of simulated time; then everything settles
SETTLED_S: Final = 120.0  # by then everything has settled, or never will
_ODDS: Final = {"store away": 0.04, "answer lost": 0.06, "fetch leaves out": 0.2, "told late": 0.3, "broker away": 0.0}


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Goes to the next moment at once instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._selector.select = self._skip_to  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s

    def _skip_to(self, timeout: float | None) -> list[Any]:
        assert timeout is not None, "everybody waits for somebody"
        self.now_s += max(timeout, 0.0)
        return []

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


class Workbench:
    """In place of threads: each job is done some simulated time later, in one piece."""

    def __init__(self, loop: asyncio.AbstractEventLoop, took_s: Callable[[], float]) -> None:
        self._loop = loop
        self._took_s = took_s

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        done: Future[Any] = Future()

        def do() -> None:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work(*arguments))
                except Exception as error:
                    done.set_exception(error)

        self._loop.call_later(self._took_s(), do)
        return done

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Nothing to end."""


class Process:
    """One worker: its owner, and for each partition an agent, as streams.app runs them."""

    def __init__(self, city: "City", owner: Owner) -> None:
        self._city = city
        self.owner = owner
        self.failed = False
        self.told: asyncio.Task[None] | None = None  # of the last rebalance
        self.agents: dict[int, asyncio.Task[None]] = {}
        self._holes = Holes()

    async def rebalance(self, share: Sequence[int]) -> None:
        """It reads exactly `share` now."""
        for agent in self.agents.values():
            agent.cancel()
        await self.owner.revoked(list(self.agents))
        self._holes.forget()
        self.owner.assigned(share)
        self.agents = {number: asyncio.create_task(self._read(number)) for number in share}

    async def end(self) -> None:
        """As after SIGTERM."""
        await self.owner.drain()
        for agent in self.agents.values():
            agent.cancel()
        self.owner.close()

    async def _read(self, number: int) -> None:
        with suppress(asyncio.CancelledError):
            try:
                await self._read_on(number)
            except NearfeedError:
                self.failed = True

    async def _read_on(self, number: int) -> None:
        await self.owner.settle(number, ())
        position = self.owner.expected(number) or 0
        first = True
        while True:
            await asyncio.sleep(self._city.random.choice((0.1, 0.5)))
            records = self._city.broker.fetch(number, position, self._city.random.randrange(1, 7), first)
            if records:
                first, position = False, records[-1].offset + 1
            for run in runs(records):
                position = await self._settle(number, records[run], position)

    async def _settle(self, number: int, records: Sequence[Record], position: int) -> int:
        """Where to fetch on."""
        settled = await self.owner.settle(number, records)
        expected = self.owner.expected(number)
        if settled == len(records):
            self._holes.closed(number)
        elif expected is not None:
            found = records[settled].offset
            step = self._holes.met(number, expected, found, asyncio.get_running_loop().time())
            if step is Step.STEP_OVER:
                self.owner.skip_hole(number, found)
            return position if step is Step.WAIT else expected
        return position


class City:
    """The schedule of one seed."""

    def __init__(self, seed: int, loop: SimulatedLoop, owner: type[Owner]) -> None:
        self.random = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self._seed = seed
        self._loop = loop
        self._calm = False
        self._make_owner = owner
        self._topic = topics_of(seed % LOGS)[0]
        self.store = SimulatedStore(self)
        self.broker = Broker(self, self._topic)
        self._clock = _LoopClock(loop)
        self._processes = [self._start() for _ in range(WORKERS)]

    def pause(self, where: str) -> None:
        """A job is done in one piece."""

    def strikes(self, fault: str) -> bool:
        struck = not self._calm and self.random.random() < _ODDS[fault]
        self.struck[fault] += struck
        return struck

    def tell(self, fault: str) -> None:
        self.struck[fault] += 1

    async def play(self) -> None:
        while self._loop.now_s < FAULTS_S:
            await self._rebalance()
            for _ in range(self.random.randrange(1, 12)):
                self.broker.grow(self.random.randrange(READ), 1)
                await asyncio.sleep(self.random.choice((0.05, 0.3, 1.0)))
        self._calm = True
        for number in range(READ):
            self.broker.grow(number, len(self._topic.logs[number]))
        while not self._settled():
            assert self._loop.now_s < SETTLED_S, f"simulate_owners({self._seed}): not settled, {self.store.cursors}"
            await self._rebalance()
            await asyncio.sleep(10.0)
        for process in self._processes:
            await process.end()
        await asyncio.sleep(0)  # agents end
        sent = [Delivered(one.topic, one.partition, one.key, one.value) for _, one in self.store.outbox.values()]
        differs = difference(picture_of(self.store, sent, [self._topic]), expected(self._seed % LOGS, 1))
        assert not differs, f"simulate_owners({self._seed}): {differs}"

    async def _rebalance(self) -> None:
        """Partitions move; who is told late works on as if nothing had happened. Failed processes begin anew."""
        shares: list[list[int]] = [[] for _ in self._processes]
        for number in range(READ):
            self.random.choice(shares).append(number)
        for place, share in enumerate(shares):
            if self._processes[place].failed:
                self.tell("failed")
                await self._processes[place].end()
                self._processes[place] = self._start()
            process = self._processes[place]
            if process.told is not None:
                await process.told
            process.told = asyncio.create_task(self._tell(process, share, self.strikes("told late")))
            if not self.random.randrange(3):
                await process.told

    async def _tell(self, process: Process, share: Sequence[int], late: bool) -> None:
        await asyncio.sleep(self.random.choice((0.5, 3.0)) if late else 0.0)
        await process.rebalance(share)

    def _settled(self) -> bool:
        cursors = [self.store.cursors.get(self._topic.partition(number)) for number in range(READ)]
        return [cursor and cursor.next_offset for cursor in cursors] == [self._topic.end(n) for n in range(READ)]

    def _start(self) -> Process:
        bench = Workbench(self._loop, lambda: self.random.choice((0.001, 0.05, 0.6, 4.0)))

        def take_over(number: int) -> Driver:
            return Driver(self._topic.partition(number), self.store, lambda: CONTEXT, cache_users=2)

        with patch("streams.ownership.ThreadPoolExecutor", lambda *_, **__: bench):
            return Process(self, self._make_owner(take_over, self._clock, threads=1))


class _LoopClock(FixedClock):
    """Monotonic time is the loop's."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(START_MS)
        self._loop = loop

    def monotonic_s(self) -> float:
        return self._loop.now_s


def simulate_owners(seed: int, owner: type[Owner] = Owner) -> Counter[str]:
    """What the schedule of `seed` leaves behind is what a pass without faults leaves. How often each fault struck.

    Raises:
        AssertionError: it is not, or it does not settle; the message holds the seed.
    """
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SimulatedLoop)
        city = City(seed, loop, owner)
        with patch.multiple("streams.driver", MAX_ACTIVITIES=7, CACHE_CELLS=2, CACHE_ITEMS=2):
            runner.run(city.play())
        return city.struck
