"""Laws of the demo's outside world, with the platform replaced by doubles that write down what reaches them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest

from core.clock import FixedClock
from core.ids import event_hash
from core.producer import Acknowledged
from infra.demo.ledger import Ledger
from infra.demo.people import Shown
from infra.demo.recorded import Recorded
from infra.demo.traffic import COMES_BACK_MS, DIRECT_SHARE, REPEAT_EVERY, Traffic
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import ORIGIN_CLIENT, ORIGIN_SIMULATED, Action, Interaction, Location
from protos.ingest.v1.ingest_pb2 import EventResult, IngestResponse
from protos.scoring.v1.recommend_pb2 import RecommendedItem, RecommendRequest, RecommendResponse

NOW_MS = 1_650_000_000_000
PARTITION = 3
HERE = Location(latitude=51.5, longitude=0.1)


def act(number: int, user_id: str, at_ms: int = NOW_MS) -> Interaction:
    event = Interaction(
        event_id=f"event-{number}", user_id=user_id, item_id="7", action=Action.ACTION_VIEW, origin=ORIGIN_CLIENT
    )
    event.occurred_at.FromMilliseconds(at_ms)
    return event


def goes_direct(user_id: str) -> bool:
    return event_hash(user_id) % DIRECT_SHARE == 0


@dataclass
class Door:
    """IngestService."""

    refused: frozenset[str] = frozenset()
    closed: bool = False
    events: list[Interaction] = field(default_factory=list)

    async def ingest(self, events: Sequence[Interaction]) -> IngestResponse:
        if self.closed:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, "closed")
        self.events += events
        results = [EventResult(event_id=one.event_id, kept=one.event_id not in self.refused) for one in events]
        for result in results:
            result.field = "" if result.kept else "action"
        return IngestResponse(results=results)


@dataclass
class Log:
    """The producer straight into Kafka; acknowledges at once."""

    events: list[Interaction] = field(default_factory=list)

    def send(self, activity: Activity, user_id: str, timestamp_ms: int) -> "Future[Acknowledged]":
        assert (activity.interaction.user_id, timestamp_ms) == (user_id, NOW_MS)
        self.events.append(activity.interaction)
        acknowledged: Future[Acknowledged] = Future()
        acknowledged.set_result(Acknowledged(PARTITION, 100 + len(self.events), time.monotonic()))
        return acknowledged


@dataclass
class Scorer:
    """RecommendService: its features include everything after `behind` previews."""

    behind: int = 0
    requests: list[RecommendRequest] = field(default_factory=list)

    async def recommend(self, request: RecommendRequest, *, deadline_s: float) -> RecommendResponse:
        self.requests.append(request)
        response = RecommendResponse(
            request_id=request.request_id, items=[RecommendedItem(item_id="7"), RecommendedItem(item_id="8")]
        )
        response.model_version = 2
        response.served_at.FromMilliseconds(NOW_MS)
        previews = sum(one.preview for one in self.requests)
        seen = previews > self.behind
        response.feature_cursor.partition, response.feature_cursor.offset = PARTITION, 1_000_000 if seen else 0
        return response


@dataclass
class Crowd:
    """People: everybody plays half of the first item and likes it."""

    slates: list[Shown] = field(default_factory=list)

    def acts(self, shown: Shown, rng: np.random.Generator) -> list[Interaction]:
        self.slates.append(shown)
        acts = []
        for action in (Action.ACTION_PLAY, Action.ACTION_LIKE):
            done = act(0, shown.user_id)
            done.event_id, done.action = f"{shown.request_id}-{action}", action
            done.request_id, done.origin = shown.request_id, ORIGIN_SIMULATED
            acts.append(done)
        acts[0].play_ms, acts[0].duration_ms = 5_000, 10_000
        return acts


class World:
    """Traffic with all that it touches."""

    def __init__(
        self,
        live: Sequence[Interaction] = (),
        *,
        door: Door | None = None,
        scorer: Scorer | None = None,
        is_legal: Callable[[str, float], bool] = lambda item_id, asked_at_s: True,
    ) -> None:
        self.ledger, self.log, self.crowd = Ledger(), Log(), Crowd()
        self.door, self.scorer = door or Door(), scorer or Scorer()
        recorded = Recorded("tiny", "", [], [], [], [], 0, [], live, NOW_MS, 1.0, lambda user_id, at_ms: HERE)
        self.traffic = Traffic(
            recorded,
            self.crowd,  # type: ignore[arg-type]
            clock=FixedClock(NOW_MS),  # type: ignore[arg-type]
            ledger=self.ledger,
            ingest=self.door,  # type: ignore[arg-type]
            scorer=self.scorer,  # type: ignore[arg-type]
            direct=self.log,  # type: ignore[arg-type]
            is_legal=is_legal,
            seed=0,
        )

    def sent(self) -> Counter[str]:
        return Counter(event.event_id for event in (*self.door.events, *self.log.events))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.traffic.run())
        try:
            async with asyncio.timeout(5):
                yield
        finally:
            self.traffic.stop()
            await running

    async def until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            await asyncio.sleep(0.01)


def crowded() -> list[Interaction]:
    return [act(number, f"user-{number % 40}") for number in range(600)]


async def test_every_recorded_act_is_sent_and_some_are_sent_twice() -> None:
    live = crowded()
    world = World(live)
    ids = {event.event_id for event in live}
    async with world.running():
        await world.until(lambda: ids <= world.sent().keys())
    counts = {event_id: count for event_id, count in world.sent().items() if event_id in ids}
    twice = {event_id for event_id, count in counts.items() if count == 2}
    assert set(counts.values()) == {1, 2}
    assert twice and all(event_hash(event_id) % REPEAT_EVERY == 0 for event_id in twice)
    assert world.ledger.counts["repeats_sent"] == len(twice)
    assert world.ledger.counts["events_sent"] == world.ledger.counts["kept"] == world.sent().total()


async def test_every_fifth_user_skips_the_door() -> None:
    """Repeats come through the door as a client's would; the few acts that time freshness skip it for everybody."""
    live = crowded()
    world = World(live)
    ids = {event.event_id for event in live}
    async with world.running():
        await world.until(lambda: ids <= world.sent().keys())
    assert 0 < len({event.user_id for event in live if goes_direct(event.user_id)}) < 20
    at_the_door = [event for event in world.door.events if goes_direct(event.user_id)]
    assert all(event_hash(event.event_id) % REPEAT_EVERY == 0 for event in at_the_door if event.event_id in ids)
    assert not any(event.origin == ORIGIN_SIMULATED for event in at_the_door)
    others = sum(not goes_direct(event.user_id) for event in world.log.events)
    assert others <= len(world.ledger.fresh)
    assert world.ledger.counts["direct_sent"] == len(world.log.events) > 20


async def test_an_act_is_not_sent_before_its_time() -> None:
    world = World([act(1, "user-1"), act(2, "user-1", NOW_MS + 1)])
    async with world.running():
        await world.until(lambda: world.sent()["event-1"] > 0)
        await asyncio.sleep(0.1)
    assert "event-2" not in world.sent()


async def test_kept_and_refused_acts_are_counted_apart() -> None:
    world = World(door=Door(refused=frozenset({"event-2", "event-5"})))
    response = await world.traffic.send([act(number, "user-1") for number in range(6)])
    assert len(response.results) == 6
    assert world.ledger.counts == {"events_sent": 6, "kept": 4, "refused": 2}
    assert world.ledger.refusals == {"action": 2}


async def test_acts_without_an_answer_are_counted_and_do_not_end_the_traffic() -> None:
    world = World(crowded()[:50], door=Door(closed=True))
    async with world.running():
        await world.until(lambda: world.ledger.counts["events_unanswered"] > 20)
    counts = world.ledger.counts
    assert world.ledger.errors["UNAVAILABLE"] > 0
    assert counts["events_sent"] == counts["kept"] + counts["events_unanswered"]
    assert counts["kept"] == len(world.log.events)


async def test_acts_on_a_slate_come_back_naming_the_request() -> None:
    users = [f"user-{number}" for number in range(4)]
    world = World([act(number, user_id) for number, user_id in enumerate(users)])

    def acted() -> list[Interaction]:
        return [one for one in (*world.door.events, *world.log.events) if one.origin == ORIGIN_SIMULATED]

    async with world.running():
        await world.until(lambda: len(acted()) == 2 * len(users))
        await asyncio.sleep(0.1)
    asked = {request.request_id: request for request in world.scorer.requests if not request.preview}
    assert sorted(request.user_id for request in asked.values()) == users
    assert all(request.location == HERE and request.origin == ORIGIN_SIMULATED for request in asked.values())
    assert Counter(one.request_id for one in acted()) == dict.fromkeys(asked, 2)
    assert all(one.user_id == asked[one.request_id].user_id for one in acted())
    assert [shown.item_ids for shown in world.crowd.slates] == [("7", "8")] * len(users)
    assert world.ledger.counts["requests"] == len(world.ledger.answers) == len(users)
    # half of the first item, nothing of the second
    assert [(one.model_version, one.watched_share) for one in world.ledger.rewards] == [(2, 0.25)] * len(users)


async def test_a_user_who_stays_is_asked_for_once_and_again_after_a_pause() -> None:
    minutes = COMES_BACK_MS // 60_000
    live = [act(number, "user-1", NOW_MS - (minutes - number) * 60_000) for number in range(minutes + 1)]
    world = World(live)
    async with world.running():
        await world.until(lambda: world.ledger.counts["requests"] == 2)
        await asyncio.sleep(0.1)
    assert world.ledger.counts["requests"] == 2


async def test_requests_that_the_askers_had_no_time_for_are_said() -> None:
    users = 60
    world = World([act(number, f"user-{number}") for number in range(users)])
    counts = world.ledger.counts
    async with world.running():
        await world.until(lambda: counts["requests"] + counts["requests_not_made"] == users)
    assert counts["requests"] > 0 and counts["requests_not_made"] > 0


async def test_freshness_ends_with_the_first_answer_that_includes_the_act() -> None:
    world = World([act(1, "user-1")], scorer=Scorer(behind=2))
    async with world.running():
        await world.until(lambda: len(world.ledger.fresh) == 1)
    assert world.ledger.counts["preview_requests"] == 3
    assert [event.event_id for event in world.log.events if event.origin == ORIGIN_CLIENT] == ["event-1"]
    assert 0.0 <= world.ledger.fresh[0].took_ms < 5_000


@pytest.mark.parametrize("preview", [False, True])
async def test_an_item_that_may_not_be_shown_is_caught_in_every_answer(preview: bool) -> None:
    world = World(is_legal=lambda item_id, asked_at_s: item_id != "8" or asked_at_s < 0)
    await world.traffic.ask("user-1", preview=preview)
    assert world.ledger.illegal == ["8"]
    assert world.ledger.counts == {"preview_requests" if preview else "requests": 1}
    assert len(world.ledger.answers) == (0 if preview else 1)
