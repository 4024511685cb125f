"""Laws of the demos' input: nothing of the live days leaks into what is learned from, and time runs forward."""

from itertools import pairwise
from typing import NamedTuple

import pytest

from core.ids import event_hash
from infra.demo.kuairand import LIVE_SHARE, KuaiRand
from infra.demo.recorded import Recorded
from infra.demo.town import TRAINING_DAYS, Town
from protos.events.v1.interaction_pb2 import ORIGIN_CLIENT, ORIGIN_SIMULATED, Interaction

SEED = 3
DAY_MS = 24 * 3600 * 1000


class Input(NamedTuple):
    """A scenario's input and its times, read once."""

    recorded: Recorded
    past_ms: list[int]
    live_ms: list[int]


@pytest.fixture(scope="module")
def kuairand() -> Input:
    return _input(KuaiRand().recorded())


@pytest.fixture(scope="module")
def town() -> Input:
    return _input(Town(SEED).recorded())


@pytest.fixture(scope="module", params=["kuairand", "town"])
def given(request: pytest.FixtureRequest) -> Input:
    found: Input = request.getfixturevalue(request.param)
    return found


def _input(recorded: Recorded) -> Input:
    return Input(recorded, [_at_ms(event) for event in recorded.past], [_at_ms(event) for event in recorded.live])


def _at_ms(event: Interaction) -> int:
    return event.occurred_at.ToMilliseconds()


def test_the_past_ends_strictly_before_the_live_days_begin(given: Input) -> None:
    assert max(given.past_ms) < given.recorded.live_start_ms <= min(given.live_ms)


def test_everything_is_in_order_of_time(given: Input) -> None:
    for times in (given.past_ms, given.live_ms, [_at_ms(event) for event in given.recorded.imported]):
        assert len(times) > 1_000
        assert all(earlier <= later for earlier, later in pairwise(times))


def test_no_act_is_told_twice(given: Input) -> None:
    ids = [event.event_id for event in (*given.recorded.past, *given.recorded.live)]
    assert len(set(ids)) == len(ids)


def test_the_whole_past_of_the_live_users_is_imported_and_is_part_of_the_past(given: Input) -> None:
    recorded = given.recorded
    live = {event.user_id for event in recorded.live}
    imported = {event.event_id for event in recorded.imported}
    assert {event.event_id for event in recorded.past if event.user_id in live} <= imported
    assert imported <= {event.event_id for event in recorded.past}


def test_recorded_acts_are_not_called_simulated(given: Input) -> None:
    """The demo answers recorded acts with requests, and its own acts not."""
    assert not any(event.origin == ORIGIN_SIMULATED for event in (*given.recorded.past, *given.recorded.live))


def test_live_users_are_chosen_by_their_hash_alone(kuairand: Input) -> None:
    recorded = kuairand.recorded
    users = {event.user_id for event in (*recorded.imported, *recorded.live)}
    assert all(event_hash(user_id) % LIVE_SHARE == 0 for user_id in users)
    others = {event.user_id for event in recorded.past} - users
    assert others and not any(event_hash(user_id) % LIVE_SHARE == 0 for user_id in others)


def test_nothing_is_learned_from_acts_of_nominal_time_and_context_may_be_older(kuairand: Input) -> None:
    """Of imported acts nobody knows when they were, nor how long anything was watched."""
    start_ms = kuairand.recorded.training_start_ms
    assert min(kuairand.past_ms) < start_ms < kuairand.recorded.live_start_ms
    real = [event.origin == ORIGIN_CLIENT for event in kuairand.recorded.past]
    learned = [at_ms >= start_ms for at_ms in kuairand.past_ms]
    assert not any(since and not client for since, client in zip(learned, real, strict=True))
    assert sum(learned) > 0.9 * sum(real)


def test_the_town_goes_live_after_its_training_days(town: Input) -> None:
    recorded = town.recorded
    assert recorded.live_start_ms == recorded.training_start_ms + TRAINING_DAYS * DAY_MS
    assert min(town.past_ms) >= recorded.training_start_ms
    assert sum(map(len, recorded.sequences)) <= len(recorded.past)


def test_everybody_in_town_is_somewhere_and_moves(town: Input) -> None:
    recorded = town.recorded
    noon, night = recorded.live_start_ms + DAY_MS // 2, recorded.live_start_ms + 3 * 3_600_000
    users = sorted({event.user_id for event in recorded.live})
    moved = sum(recorded.location_of(user_id, noon) != recorded.location_of(user_id, night) for user_id in users)
    assert all(recorded.location_of(user_id, noon) is not None for user_id in users)
    assert moved > len(users) / 2


def test_the_town_is_judged_by_its_own_people() -> None:
    assert Town(SEED).judge_arguments() == ("--city", str(SEED))
    assert KuaiRand().judge_arguments() == ()
