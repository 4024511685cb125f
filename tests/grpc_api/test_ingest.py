"""IngestService over a real channel: one result per event, and a status for everything else."""

import math
import time

import grpc
import pytest

from protos.events.v1.interaction_pb2 import Action, Interaction, Location
from tests.grpc_api.conftest import IngestWorld
from tests.grpc_api.world import NOW_MS

MINUTE_MS = 60_000


def good(event_id: str = "e1", **changes: object) -> Interaction:
    event = Interaction(event_id=event_id, user_id="u", item_id="i", action=Action.ACTION_PLAY, play_ms=1000)
    event.occurred_at.FromMilliseconds(NOW_MS)
    event.MergeFrom(Interaction(**changes))  # type: ignore[arg-type]
    return event


def without(field: str) -> Interaction:
    event = good()
    event.ClearField(field)
    return event


def at(ms: int) -> Interaction:
    event = good()
    event.occurred_at.FromMilliseconds(ms)
    return event


BAD = {
    "unknown-action": (good(action=77), "action"),  # type: ignore[arg-type]
    "no-action": (without("action"), "action"),
    "no-user": (without("user_id"), "user_id"),
    "no-item": (without("item_id"), "item_id"),
    "no-event-id": (without("event_id"), "event_id"),
    "no-time": (without("occurred_at"), "occurred_at"),
    "six-minutes-ahead": (at(NOW_MS + 6 * MINUTE_MS), "occurred_at"),
    "negative-play": (good(play_ms=-1), "play_ms"),
    "play-of-two-days": (good(play_ms=48 * 3600 * 1000), "play_ms"),
    "latitude-91": (good(location=Location(latitude=91)), "location.latitude"),
    "longitude-minus-181": (good(location=Location(longitude=-181)), "location.longitude"),
    "latitude-nan": (good(location=Location(latitude=math.nan)), "location.latitude"),
    "order-without-currency": (good(value_micros=5), "currency"),
}


@pytest.mark.parametrize(("bad", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_event_is_named_and_the_good_ones_are_kept(
    ingest: IngestWorld, bad: Interaction, field: str
) -> None:
    answer = await ingest.client.ingest([good("first"), bad, good("last")])
    assert [result.kept for result in answer.results] == [True, False, True]
    assert [result.event_id for result in answer.results] == ["first", bad.event_id, "last"]
    assert answer.results[1].field == field
    assert "found" in answer.results[1].reason and "expected" in answer.results[1].reason
    assert [activity.interaction.event_id for activity, _, _ in ingest.sink.sent] == ["first", "last"]


@pytest.mark.parametrize(("bad", "field"), BAD.values(), ids=BAD.keys())
async def test_a_call_of_which_nothing_is_kept_is_invalid_and_says_why(
    ingest: IngestWorld, bad: Interaction, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([bad])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"events[0].{field}: found" in str(refused.value.details())
    assert not ingest.sink.sent


async def test_an_empty_call_is_invalid(ingest: IngestWorld) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_five_minutes_ahead_is_still_kept(ingest: IngestWorld) -> None:
    answer = await ingest.client.ingest([at(NOW_MS + 5 * MINUTE_MS)])
    assert answer.results[0].kept


async def test_too_many_events_exhaust_the_call(ingest: IngestWorld) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([good(str(i)) for i in range(11)])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "found 11 events, expected at most 10" in str(refused.value.details())
    assert not ingest.sink.sent


async def test_too_many_bytes_exhaust_the_call(ingest: IngestWorld) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([good(surface="s" * 5000)])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_kept_events_carry_the_platforms_time_and_their_place_in_the_log(ingest: IngestWorld) -> None:
    ingest.clock.advance(1234)
    answer = await ingest.client.ingest([good("a"), good("b")])
    assert [(result.partition, result.offset) for result in answer.results] == [(1, 0), (1, 1)]
    assert [(user_id, at_ms) for _, user_id, at_ms in ingest.sink.sent] == [("u", NOW_MS + 1234)] * 2


async def test_a_broker_that_fails_makes_the_call_unavailable(ingest: IngestWorld) -> None:
    ingest.sink.down = True
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([good()], deadline_s=0.3)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "event ids make it safe" in str(refused.value.details())


async def test_a_broker_that_stays_silent_makes_the_call_unavailable_in_time(ingest: IngestWorld) -> None:
    ingest.sink.silent = True
    started = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([good()], deadline_s=0.15)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 1.0


async def test_the_client_sends_again_while_the_broker_is_away(ingest: IngestWorld) -> None:
    ingest.sink.down = True
    failing_send = ingest.sink.send

    def send(activity, user_id, timestamp_ms):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ingest.sink.down = len(ingest.sink.sent) < 2
        return failing_send(activity, user_id, timestamp_ms)

    ingest.sink.send = send  # type: ignore[method-assign]
    answer = await ingest.client.ingest([good("again")])
    assert answer.results[0].kept
    assert [activity.interaction.event_id for activity, _, _ in ingest.sink.sent] == ["again"] * 3


async def test_an_unexpected_error_stays_inside(ingest: IngestWorld, caplog: pytest.LogCaptureFixture) -> None:
    def send(*_: object) -> None:
        raise KeyError("secret of the house")

    ingest.sink.send = send  # type: ignore[method-assign,assignment]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.client.ingest([good()])
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    assert refused.value.details() == "internal error"
    assert "secret of the house" in caplog.text
