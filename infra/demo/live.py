"""The live part of a demo: processes up, the past through the log, days replayed, a new version swapped in."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from core.clock import PlatformClock
from core.errors import NotReady
from core.producer import ActivityProducer, make_producer
from core.settings import Settings
from feature_repo.store import PackedStore
from grpc_api.client import Client
from infra.demo import accounts
from infra.demo.incidents import Legality, bad_input, change_catalog, three_acts, two_places
from infra.demo.ledger import Ledger
from infra.demo.people import People
from infra.demo.recorded import Recorded
from infra.demo.show import Bar, Show
from infra.demo.traffic import Traffic
from infra.processes import Processes
from models.catalog import Catalog
from models.registry import current
from protos.events.v1.activity_pb2 import Activity
from rl.user_model import UserModel

WORKERS: Final = 2
READY_S: Final = 60.0
IMPORT_S: Final = 180.0
IMPORT_AHEAD: Final = 5_000  # acts in flight
LEARN_S: Final = 150.0
DRAIN_S: Final = 60.0
BEFORE_LEARNING_S: Final = 45.0  # wall seconds of traffic that the update learns from
AFTER_SWAP_S: Final = 12.0
LOOK_AT_S: Final = 8.0  # into the traffic: the closer look
TROUBLE_AT_S: Final = 20.0  # bad input and catalogue changes
_POLL_S: Final = 0.25


class Addresses(NamedTuple):
    """Where the servers listen."""

    scorer: str
    ingest: str


class LiveResult(NamedTuple):
    """How the live part went."""

    learn_exit_code: int
    versions: tuple[int, ...]  # in the order in which they were current
    stored: accounts.Stored
    traffic_s: float


class Live:
    """One run's live part."""

    def __init__(
        self,
        settings: Settings,
        recorded: Recorded,
        catalog: Catalog,
        user_model: UserModel,
        processes: Processes,
        ledger: Ledger,
        show: Show,
        learn: tuple[str, ...],
    ) -> None:
        """`learn`: what `nearfeed` is asked for the policy update, with its gate and its publication."""
        self._settings = settings
        self._clock: PlatformClock = settings.clock.clock()
        self._recorded = recorded
        self._catalog = catalog
        self._user_model = user_model
        self._processes = processes
        self._ledger = ledger
        self._show = show
        self._learn = learn
        self._legality = Legality({item.item_id for item in catalog.items})

    async def run(self) -> LiveResult:
        """The whole live part, and what the platform had counted when all was quiet again."""
        addresses = await asyncio.to_thread(self._start)
        direct = ActivityProducer(self._settings.kafka, linger_ms=5, timeout_ms=10_000)
        try:
            async with Client(addresses.scorer) as scorer, Client(addresses.ingest) as ingest:
                await scorer.wait_until_serving(READY_S)
                await ingest.wait_until_serving(READY_S)
                self._show.step("The live users' past goes through the log")
                await self._import_past(direct)
                people = await asyncio.to_thread(self._people)
                traffic = Traffic(
                    self._recorded,
                    people,
                    clock=self._clock,
                    ledger=self._ledger,
                    ingest=ingest,
                    scorer=scorer,
                    direct=direct,
                    is_legal=self._legality,
                    seed=0,
                )
                self._show.step(f"Replay at {self._recorded.speed:.0f} times the recorded speed, with requests")
                started_s = time.monotonic()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(traffic.run())
                    try:
                        learn_exit_code = await self._while_traffic_flows(traffic, ingest)
                    finally:
                        traffic.stop()
                traffic_s = time.monotonic() - started_s
            self._show.step("Until everything sent is applied and every answer is closed")
            state = await self._drain()
        finally:
            await asyncio.to_thread(direct.close, 5.0)
        serving = current(self._settings.registry.home) or 0
        return LiveResult(learn_exit_code, tuple(range(1, serving + 1)), state, traffic_s)

    def _start(self) -> Addresses:
        processes = self._processes
        for number in range(1, WORKERS + 1):
            processes.start(f"stream-{number}", "stream")
        processes.start("ingest", "serve", "ingest")
        processes.start("scorer", "serve", "scorer")
        ingest = processes.wait_for("ingest", r"ingest\.ready address=(\S+)", READY_S)[1]
        ready = processes.wait_for("scorer", r"scorer\.ready address=(\S+) .*provider=(\S+)", READY_S)
        for number in range(1, WORKERS + 1):
            processes.wait_for(f"stream-{number}", r"worker\.ready", READY_S)
        self._show.say(f"{WORKERS} stream workers, ingest at {ingest}, scorer at {ready[1]} on {ready[2]}")
        return Addresses(ready[1], ingest)

    async def _import_past(self, direct: ActivityProducer) -> None:
        """The past is in activity.v1, stamped with its own time, and folded."""
        events = self._recorded.imported
        with self._show.progress("past acts", len(events)) as bar:
            for start in range(0, len(events), IMPORT_AHEAD):
                chunk = events[start : start + IMPORT_AHEAD]
                sent = [
                    direct.send(Activity(interaction=event), event.user_id, event.occurred_at.ToMilliseconds())
                    for event in chunk
                ]
                self._ledger.count("events_sent", len(chunk))
                await asyncio.gather(*(asyncio.wrap_future(one) for one in sent))
                self._ledger.count("kept", len(chunk))
                bar.at(start + len(chunk), "sent")
            state = await self._settled(lambda state: state.behind <= 0, IMPORT_S, "the past was not folded")
        self._show.say(f"{state.applied:,} past acts of {state.users:,} users are features now")

    def _people(self) -> People:
        users = sorted({event.user_id for event in self._recorded.live})
        with PackedStore(self._settings.postgres, "nearfeed-demo", connections=1) as store:
            return People(self._user_model, self._catalog, users, store)

    async def _while_traffic_flows(self, traffic: Traffic, ingest: Client) -> int:
        """Incidents, the update and the swap; the exit code of the update."""
        await asyncio.sleep(self._clock.wall_seconds_until(self._recorded.live_start_ms))
        user_id = self._newcomer()
        with self._show.progress("traffic", BEFORE_LEARNING_S) as bar:
            started_s = time.monotonic()
            looked = troubled = False
            while (elapsed_s := time.monotonic() - started_s) < BEFORE_LEARNING_S:
                if elapsed_s >= LOOK_AT_S and not looked:
                    looked = True
                    await three_acts(self._settings, self._clock, self._catalog, traffic, self._show, user_id)
                    await two_places(self._recorded, self._clock, traffic, self._show, user_id)
                if elapsed_s >= TROUBLE_AT_S and not troubled:
                    troubled = True
                    await self._trouble(traffic, ingest, user_id)
                await self._tick(bar.at, elapsed_s)
        self._show.step("Policy update on the outcomes, gate, publication; requests keep coming")
        self._processes.start("learn", *self._learn)
        with self._show.progress("update and gate", LEARN_S) as bar:
            exit_code = await self._until(LEARN_S, bar, lambda: self._processes.exit_code("learn"))
        if exit_code is None:
            raise NotReady(
                f"the update did not end within {LEARN_S:.0f} s; its log is {self._processes.log_of('learn')}"
            )
        with self._show.progress("traffic after the update", AFTER_SWAP_S) as bar:
            await self._until(AFTER_SWAP_S, bar, lambda: None)
        return exit_code

    async def _until(self, within_s: float, bar: Bar, done: Callable[[], int | None]) -> int | None:
        """What `done` says first, asked while traffic flows; None when `within_s` have passed."""
        started_s = time.monotonic()
        while (elapsed_s := time.monotonic() - started_s) < within_s:
            if (found := done()) is not None:
                return found
            await self._tick(bar.at, elapsed_s)
        return None

    def _newcomer(self) -> str:
        """The live user with the shortest past that is not empty: three acts should matter most to them."""
        past = Counter(event.user_id for event in self._recorded.imported)
        return min({event.user_id for event in self._recorded.live} & set(past), key=lambda user: (past[user], user))

    async def _trouble(self, traffic: Traffic, ingest: Client, user_id: str) -> None:
        producer = await asyncio.to_thread(make_producer, self._settings.kafka, timeout_ms=5_000)
        try:
            await bad_input(self._clock, self._catalog, traffic, producer, self._ledger, user_id)
        finally:
            await asyncio.to_thread(producer.close, timeout=1.0)
        seen = (await traffic.ask(user_id, preview=True)).items
        await change_catalog(ingest, self._catalog, self._legality, self._show, seen[0].item_id)

    async def _tick(self, at: Callable[[float, str], None], elapsed_s: float) -> None:
        for name in ("scorer", "ingest", *(f"stream-{number}" for number in range(1, WORKERS + 1))):
            self._processes.check(name)
        counts = self._ledger.counts
        at(
            elapsed_s,
            f"{counts['kept']:,} events kept, {counts['requests']:,} requests, {len(self._ledger.fresh)} timed",
        )
        await asyncio.sleep(_POLL_S)

    async def _drain(self) -> accounts.Stored:
        return await self._settled(
            lambda state: state.behind <= 0 and state.waiting == 0, DRAIN_S, "not all was closed"
        )

    async def _settled(
        self, quiet: Callable[[accounts.Stored], bool], within_s: float, otherwise: str
    ) -> accounts.Stored:
        deadline = time.monotonic() + within_s
        for _ in itertools.count():
            state = await asyncio.to_thread(accounts.stored, self._settings)
            if quiet(state):
                return state
            if time.monotonic() > deadline:
                raise NotReady(f"{otherwise} within {within_s:.0f} s: {state}; look at the logs of the stream workers")
            await asyncio.sleep(_POLL_S)
        raise AssertionError("the loop returns or raises")
