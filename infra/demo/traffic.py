"""The people of the demo: recorded acts replayed by the platform's clock, requests, and acts on slates.

One task sends what is due, most of it through IngestService, some users' acts straight into Kafka; a few
tasks ask for recommendations when a user comes back and hand the acts on the slate to the sender; one
task measures freshness: it sends an act, notes the broker's acknowledgement, and asks until an answer
was computed from features that include it.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import grpc
import numpy as np

from core.clock import PlatformClock
from core.errors import BrokerUnavailable
from core.ids import event_hash
from core.producer import Acknowledged, ActivityProducer
from grpc_api.client import Client
from infra.demo.ledger import Answer, Fresh, Ledger, Reward
from infra.demo.people import People, Shown
from infra.demo.recorded import Recorded
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED, Interaction, Location
from protos.ingest.v1.ingest_pb2 import IngestResponse
from protos.scoring.v1.recommend_pb2 import RecommendRequest, RecommendResponse

SLATE: Final = 5
ASKERS: Final = 2
COMES_BACK_MS: Final = 30 * 60 * 1000  # platform time between two requests of one user
DIRECT_SHARE: Final = 5  # every fifth user writes to Kafka without IngestService
REPEAT_EVERY: Final = 50  # every 50th recorded act is sent twice, as a client that lost the answer would
ASK_PAUSE_S: Final = 0.05  # of an asker after each slate: two cores also carry servers, workers and the update
PROBE_PAUSE_S: Final = 0.2
FRESH_TIMEOUT_S: Final = 10.0
ASK_DEADLINE_S: Final = 1.0  # the caller's patience; the demo wants degraded answers counted, not calls lost
_BATCH: Final = 200
_TICK_S: Final = 0.01

Waiting = TypeVar("Waiting")


class Traffic:
    """Everything the outside world does to the platform, until it is told to stop."""

    def __init__(
        self,
        recorded: Recorded,
        people: People,
        *,
        clock: PlatformClock,
        ledger: Ledger,
        ingest: Client,
        scorer: Client,
        direct: ActivityProducer,
        is_legal: Callable[[str, float], bool],
        seed: int,
    ) -> None:
        """`is_legal(item_id, asked_at_s)`: might this item be shown to a request sent at that monotonic second?"""
        self._recorded = recorded
        self._people = people
        self._clock = clock
        self._ledger = ledger
        self._ingest = ingest
        self._scorer = scorer
        self._direct = direct
        self._is_legal = is_legal
        self._seed = seed
        self._sequence = itertools.count()
        self._due = [(_at_ms(event), next(self._sequence), event) for event in recorded.live]
        self._asks: asyncio.Queue[str] = asyncio.Queue(maxsize=2 * ASKERS)
        self._probes: asyncio.Queue[Interaction] = asyncio.Queue(maxsize=1)
        self._last_asked: dict[str, int] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Everything is sent and asked until `stop`; whatever fails ends it all."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_what_is_due())
            tasks.create_task(self._measure_freshness())
            for number in range(ASKERS):
                tasks.create_task(self._ask_when_back(number))

    def stop(self) -> None:
        """`run` returns when what is under way has been answered."""
        self._stopping.set()

    async def send(self, events: Sequence[Interaction]) -> IngestResponse:
        """Send acts through IngestService now; kept and refused ones are counted."""
        self._ledger.count("events_sent", len(events))
        response = await self._ingest.ingest(events)
        for result in response.results:
            if result.kept:
                self._ledger.count("kept")
            else:
                self._ledger.refuse(result.field)
        return response

    async def send_direct(self, event: Interaction) -> Acknowledged:
        """Send one act straight into Kafka; returns when all replicas have it."""
        self._ledger.count("events_sent")
        self._ledger.count("direct_sent")
        sent = self._direct.send(Activity(interaction=event), event.user_id, self._clock.now_ms())
        acknowledged = await asyncio.wrap_future(sent)
        self._ledger.count("kept")
        return acknowledged

    async def ask(
        self, user_id: str, *, preview: bool, request_id: str = "", where: Location | None = None
    ) -> RecommendResponse:
        """One answer for a user where the user is now, or at `where`; counted apart when it is a preview."""
        asked_at = time.monotonic()
        response = await self._scorer.recommend(
            RecommendRequest(
                request_id=request_id,
                user_id=user_id,
                slate_size=SLATE,
                surface="demo",
                location=where or self._recorded.location_of(user_id, self._clock.now_ms()),
                preview=preview,
                origin=ORIGIN_SIMULATED,
            ),
            deadline_s=ASK_DEADLINE_S,
        )
        answered_at = time.monotonic()
        for item in response.items:
            if not self._is_legal(item.item_id, asked_at):
                self._ledger.illegal.append(item.item_id)
        self._ledger.count("preview_requests" if preview else "requests")
        if not preview:
            took_ms = (answered_at - asked_at) * 1000
            self._ledger.answers.append(
                Answer(answered_at, took_ms, response.model_version, response.degraded, response.explored)
            )
        return response

    async def _send_what_is_due(self) -> None:
        while not self._stopping.is_set():
            batch = self._take_due()
            through_ingest: list[Interaction] = []
            straight: list[Interaction] = []
            for event in batch:
                if event.origin != ORIGIN_SIMULATED:
                    self._user_is_back(event)
                    if self._offered_as_probe(event):
                        continue
                    if event_hash(event.event_id) % REPEAT_EVERY == 0:
                        self._ledger.count("repeats_sent")
                        through_ingest.append(event)
                by_itself = event_hash(event.user_id) % DIRECT_SHARE == 0
                (straight if by_itself else through_ingest).append(event)
            sending = [self._or_count(1, self.send_direct(event)) for event in straight]
            if through_ingest:
                sending.append(self._or_count(len(through_ingest), self.send(through_ingest)))
            await asyncio.gather(*sending)
            if len(batch) < _BATCH:
                await asyncio.sleep(_TICK_S)

    async def _or_count(self, events: int, sending: Awaitable[object]) -> None:
        try:
            await sending
        except (grpc.aio.AioRpcError, BrokerUnavailable) as error:
            self._ledger.errors[_status(error)] += 1
            self._ledger.count("events_unanswered", events)

    def _take_due(self) -> list[Interaction]:
        now_ms = self._clock.now_ms()
        batch: list[Interaction] = []
        while self._due and self._due[0][0] <= now_ms and len(batch) < _BATCH:
            batch.append(heapq.heappop(self._due)[2])
        return batch

    def _user_is_back(self, event: Interaction) -> None:
        now_ms = _at_ms(event)
        if now_ms - self._last_asked.get(event.user_id, 0) < COMES_BACK_MS:
            return
        try:
            self._asks.put_nowait(event.user_id)
            self._last_asked[event.user_id] = now_ms
        except asyncio.QueueFull:
            self._ledger.count("requests_not_made")  # the askers are busy: a closed loop, and said so

    async def _ask_when_back(self, number: int) -> None:
        rng = np.random.default_rng((self._seed, number))
        asked = itertools.count()
        while (user_id := await self._next(self._asks)) is not None:
            try:
                response = await self.ask(user_id, preview=False, request_id=f"demo-{number}-{next(asked)}")
            except grpc.aio.AioRpcError as error:
                self._ledger.errors[_status(error)] += 1
                continue
            served_at_ms = response.served_at.ToMilliseconds()
            shown = Shown(
                response.request_id,
                user_id,
                tuple(item.item_id for item in response.items),
                served_at_ms,
                self._recorded.location_of(user_id, served_at_ms),
            )
            acts = self._people.acts(shown, rng)
            share = _watched_share(acts, len(shown.item_ids))
            self._ledger.rewards.append(Reward(time.monotonic(), response.model_version, share))
            for act in acts:
                heapq.heappush(self._due, (_at_ms(act), next(self._sequence), act))
            await asyncio.sleep(ASK_PAUSE_S)

    def _offered_as_probe(self, event: Interaction) -> bool:
        try:
            self._probes.put_nowait(event)
        except asyncio.QueueFull:
            return False
        return True

    async def _measure_freshness(self) -> None:
        while (event := await self._next(self._probes)) is not None:
            try:
                acknowledged = await self.send_direct(event)
                await self._wait_until_seen(event.user_id, acknowledged)
            except (grpc.aio.AioRpcError, BrokerUnavailable) as error:
                self._ledger.errors[_status(error)] += 1
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _wait_until_seen(self, user_id: str, acknowledged: Acknowledged) -> None:
        while time.monotonic() < acknowledged.monotonic_s + FRESH_TIMEOUT_S:
            cursor = (await self.ask(user_id, preview=True)).feature_cursor
            if cursor.partition == acknowledged.partition and cursor.offset >= acknowledged.offset:
                now = time.monotonic()
                self._ledger.fresh.append(Fresh(now, (now - acknowledged.monotonic_s) * 1000))
                return
        self._ledger.count("freshness_timeouts")

    async def _next(self, waiting: "asyncio.Queue[Waiting]") -> Waiting | None:
        """The next thing that waits; None when the demo stops."""
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(0.1):
                    return await waiting.get()
            except TimeoutError:
                continue
        return None


def _at_ms(event: Interaction) -> int:
    return event.occurred_at.ToMilliseconds()


def _watched_share(acts: Sequence[Interaction], slots: int) -> float:
    watched = sum(min(1.0, act.play_ms / act.duration_ms) for act in acts if act.play_ms and act.duration_ms)
    return watched / max(1, slots)


def _status(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
