"""A deterministic simulation of stream workers: the seed is the schedule.

    simulate(17)

Workers with real drivers and relays share a store and a broker that fail; processes stop between any two
calls, die there, sleep through a rebalance and go on. Everything happens in one thread: where a process
pauses, others move. When all faults have ended, what the store holds and what was sent must be what one
pass without faults gives, record by record.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple
from unittest.mock import patch

from core.clock import FixedClock
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from streams.driver import Driver
from tests.streams.log_maker import HORIZON_MS, START_MS
from tests.streams.simulated_log import READ, topics_of
from tests.streams.simulated_picture import difference, expected, picture_of
from tests.streams.simulated_servers import Broker, Killed, SimulatedStore
from tests.streams.simulated_worker import Worker

LOGS: Final = 16  # different logs; schedules differ with every seed
WORKERS: Final = 3
STEPS: Final = 60  # of the schedule in each life of the topic, pauses not counted
CONTEXT: Final = FoldContext(NoItems(), 1, HORIZON_MS, 9)

_DEPTH: Final = 3  # processes that stand still in the middle of something at once
_ROUNDS: Final = 30  # after which everything has settled, or never will
_SHOWN: Final = 60  # last steps that a failure prints
_PAUSES: Final = (0,) * 10 + (3, 8, 16)  # steps of others while a process stands still
_ODDS: Final = {  # of each fault, where it may strike
    "killed": 0.008,
    "store away": 0.015,
    "answer lost": 0.06,
    "broker away": 0.1,
    "fetch leaves out": 0.2,
    "fetch repeats": 0.05,
}


class Parts(NamedTuple):
    """What a schedule is played with; a planted bug replaces one of them."""

    driver: type[Driver] = Driver
    store: type[SimulatedStore] = SimulatedStore
    worker: type[Worker] = Worker


SOUND: Final = Parts()


def simulate(seed: int, parts: Parts = SOUND) -> Counter[str]:
    """What the schedule of `seed` leaves behind is what a pass without faults leaves. How often each fault struck.

    Raises:
        AssertionError: it is not; the message holds the seed, the difference and the last steps.
    """
    world = World(seed, parts)
    world.play()
    return world.struck


class World:
    """The schedule, and everything that it moves."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._parts = parts
        self._trace: list[str] = []
        self.struck: Counter[str] = Counter()
        self._calm = False
        self._members: list[Worker] = []  # as the group's coordinator knows them
        self._at_work: list[tuple[Worker, int | str]] = []  # innermost last; the others stand still
        self._clock = FixedClock(START_MS)
        self._topics = topics_of(seed % LOGS)
        self._store = parts.store(self)
        self._broker = Broker(self, self._topics[0])
        self._cache_users = self._random.choice((0, 1, 2, 100))
        self._workers = [self._start(f"w{number}") for number in range(WORKERS)]
        self._rebalance()

    def play(self) -> None:
        draw = self._random.choice
        with patch.multiple(
            "streams.driver",
            MAX_ACTIVITIES=draw((2, 7, 5_000)),
            SWEEP_USERS=draw((1, 500)),
            CACHE_CELLS=draw((0, 1, 30)),
            CACHE_ITEMS=draw((0, 2, 30)),
        ):
            for life, topic in enumerate(self._topics if self._seed % 8 == 0 else self._topics[:1]):
                if life:
                    self._note("the topic is made again")
                    self._broker.remake(topic)
                    self._rebalance()
                for _ in range(STEPS):
                    self._step()
                self._settle()
                found = picture_of(self._store, self._broker.delivered, self._topics[: life + 1])
                differs = difference(found, expected(seed=self._seed % LOGS, lives=life + 1))
                assert not differs, self._failure(differs)

    # What servers ask of the schedule.

    def pause(self, where: str) -> None:
        worker, work = self._at_work[-1]
        self._note(f"{worker.name} {work}: {where}")
        if self._calm:
            return
        if len(self._at_work) <= _DEPTH:
            for _ in range(self._random.choice(_PAUSES)):
                self._step()
        if worker.alive and self.strikes("killed"):
            worker.die()
        if not worker.alive:
            raise Killed

    def strikes(self, fault: str) -> bool:
        struck = not self._calm and self._random.random() < _ODDS[fault]
        if struck:
            self.tell(fault)
        return struck

    def tell(self, fault: str) -> None:
        self.struck[fault] += 1
        self._note(f"    {fault}")

    # The schedule.

    def _step(self) -> None:
        self._clock.advance(self._random.choice((1, 20, 400)))
        step: Callable[[World], None] = self._random.choices(_STEPS, _WEIGHTS)[0]
        step(self)

    def _grow(self) -> None:
        number = self._random.randrange(READ)
        for record in self._broker.grow(number, self._random.randrange(1, 5)):
            if record.timestamp_ms < 2 * START_MS:
                self._clock.at_ms = max(self._clock.at_ms, record.timestamp_ms)

    def _fetch(self) -> None:
        at = self._somewhere()
        if at is not None:
            worker, number = at
            if self.strikes("fetch repeats"):
                worker.holdings[number].position = self._broker.committed[number]
            worker.fetch(number, self._random.randrange(1, 7))

    def _settle_batch(self) -> None:
        at = self._somewhere()
        if at is not None:
            worker, number = at
            size = self._random.randrange(1, 7)
            self._work(worker, number, partial(worker.settle, number, size))

    def _somewhere(self) -> tuple[Worker, int] | None:
        """One of the partitions that somebody who can move believes to hold."""
        held = [(worker, number) for worker in self._workers if not worker.asleep for number in worker.holdings]
        return self._random.choice(held) if held else None

    def _commit_offsets(self) -> None:
        worker = self._random.choice(self._workers)
        if worker.alive and not worker.asleep:
            self._offsets_of(worker)

    def _offsets_of(self, worker: Worker) -> None:
        """Kafka learns what is acknowledged; a worker that is no member any more learns that it is none."""
        if worker not in self._members:
            self._note(f"{worker.name} joins")
            self._rebalance()
            return
        for number, holding in worker.holdings.items():
            stored = self._store.cursors.get(self._broker.topic.partition(number))
            if holding.acknowledged > (stored.next_offset if stored else 0):
                differs = f"partition {number}: acknowledged to {holding.acknowledged}, the store holds {stored}"
                raise AssertionError(self._failure(differs))
            self._broker.committed[number] = holding.acknowledged

    def _relay(self) -> None:
        worker = self._random.choice(self._workers)
        if not worker.asleep:
            self._work(worker, "relay", worker.send_waiting)

    def _kill(self) -> None:
        worker = self._random.choice(self._workers)
        self._note(f"{worker.name} is killed")
        worker.die()

    def _sleep(self) -> None:
        worker = self._random.choice(self._workers)
        self._note(f"{worker.name} stands still")
        worker.asleep = True

    def _wake(self) -> None:
        asleep = [worker for worker in self._workers if worker.asleep]
        if asleep:
            worker = self._random.choice(asleep)
            self._note(f"{worker.name} goes on")
            worker.asleep = False

    def _leave(self) -> None:
        worker = self._random.choice(self._workers)
        if worker in self._members and worker.alive and not worker.asleep:
            self._note(f"{worker.name} leaves")
            self._offsets_of(worker)
            worker.die()
            self._rebalance()

    def _begin_again(self) -> None:
        dead = [place for place, worker in enumerate(self._workers) if not worker.alive]
        if dead:
            place = self._random.choice(dead)
            self._workers[place] = self._start(self._workers[place].name)
            self._note(f"{self._workers[place].name} begins again")
            self._rebalance()

    def _rebalance(self) -> None:
        """Partitions move to those who answer. Who stands still or is dead is left out and not told."""
        self._members = [worker for worker in self._workers if worker.alive and not worker.asleep]
        shares: dict[int, dict[int, int]] = {place: {} for place in range(len(self._members))}
        if shares:
            for number in range(READ):
                shares[self._random.randrange(len(shares))][number] = self._broker.committed[number]
        for worker, share in zip(self._members, shares.values(), strict=True):
            worker.assigned(share)
        self._note("rebalance " + " ".join(f"{w.name}={list(w.holdings)}" for w in self._members))

    def _settle(self) -> None:
        """Faults end, everybody is there: all that was written is read, all that was produced is sent."""
        self._calm = True
        self._note("calm")
        self._workers = [worker if worker.alive else self._start(worker.name) for worker in self._workers]
        for worker in self._workers:
            worker.asleep = False
        self._rebalance()
        for number in range(READ):
            self._broker.grow(number, len(self._broker.topic.logs[number]))
        for _ in range(_ROUNDS):
            if self._settled():
                break
            self._clock.advance(600)
            for worker in self._members:
                for number in worker.holdings:
                    worker.fetch(number, 8)
                    self._work(worker, number, partial(worker.settle, number, 8))
                self._work(worker, "relay", worker.send_waiting)
                self._offsets_of(worker)
        self._calm = False

    def _settled(self) -> bool:
        ends = [self._broker.topic.end(number) for number in range(READ)]
        return not self._store.outbox and [self._broker.committed[number] for number in range(READ)] == ends

    def _work(self, worker: Worker, work: int | str, does: Callable[[], None]) -> None:
        if not worker.alive or (worker, work) in self._at_work:
            return  # a partition's batches take turns, and so do rounds of a relay
        self._at_work.append((worker, work))
        try:
            does()
        except Killed:
            self._note(f"{worker.name} is dead")
        finally:
            self._at_work.pop()

    def _start(self, name: str) -> Worker:
        def take_over(number: int) -> Driver:
            partition = self._broker.topic.partition(number)
            return self._parts.driver(partition, self._store, lambda: CONTEXT, cache_users=self._cache_users)

        return self._parts.worker(name, self._broker, self._store, take_over, self._clock)

    def _note(self, step: str) -> None:
        self._trace.append(step)

    def _failure(self, differs: str) -> str:
        return "\n".join([f"simulate({self._seed}): {differs}", "last steps:", *self._trace[-_SHOWN:]])


_WEIGHED: Final = (
    (World._settle_batch, 30),
    (World._fetch, 20),
    (World._grow, 16),
    (World._relay, 6),
    (World._commit_offsets, 8),
    (World._rebalance, 3),
    (World._kill, 1),
    (World._begin_again, 5),
    (World._leave, 1),
    (World._sleep, 2),
    (World._wake, 3),
)
_STEPS: Final = [step for step, _ in _WEIGHED]
_WEIGHTS: Final = [weight for _, weight in _WEIGHED]
