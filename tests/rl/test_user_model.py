"""Laws of user models and of the simulator: honest odds, stated expectations, events fit for the log."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ArtefactError, InputError
from core.validation import interaction_fault
from feature_repo.folds.user import EMPTY, rows_of
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED, Action, Interaction
from protos.events.v1.outcome_pb2 import Outcome
from rl.city import make_city
from rl.city_users import recorded_days
from rl.fitted_users import Fitted, FittedUsers, UserModelArguments, fit_users
from rl.rewards import duration_buckets, rewards
from rl.simulator import Slate, slate_acts
from rl.user_model import (
    ACTS,
    WATCH_BINS,
    WATCH_EDGES,
    Predicted,
    Viewers,
    draw,
    expected_rewards,
    watch_bins,
)
from rl.users_quality import users_quality
from tests.rl.loop import CONFIG, NOON_OF_DAY_TWO, World

FEW = UserModelArguments(watch_strength=0.01, act_strength=0.01)  # few exposures carry few weights


def viewers(world: World, people: int) -> Viewers:
    return Viewers(
        list(world.city.people.user_ids[:people]),
        rows_of([EMPTY] * people),
        np.full(people, NOON_OF_DAY_TWO),
        np.full((people, 2), np.nan),
    )


@pytest.fixture(scope="module")
def events(world: World) -> list[Interaction]:
    """A larger crowd in the same city: the same places, since people are drawn after them."""
    crowd = make_city(replace(CONFIG, people=300))
    assert crowd.places.items == world.city.places.items
    return recorded_days(crowd)


@pytest.fixture(scope="module")
def fitted(world: World, events: list[Interaction]) -> Fitted:
    return fit_users(events, world.serving.catalog, world.context, FEW, since_ms=0, until_ms=NOON_OF_DAY_TWO)


@given(st.floats(0.0, 5.0))
def test_a_share_lies_in_its_bin(share: float) -> None:
    edges = np.asarray(WATCH_EDGES)
    bin_ = int(watch_bins(share))
    assert (share == 0.0) == (bin_ == 0)
    assert share <= 0.0 or edges[bin_ - 1] < min(share, edges[-1]) <= edges[bin_]


def test_drawn_responses_have_the_predicted_odds() -> None:
    odds = np.random.default_rng(1).dirichlet(np.ones(WATCH_BINS))
    acts = np.array([0.3, 0.02, 0.0, 0.5, 1.0])
    drawn = draw(Predicted(np.tile(odds, (40_000, 1)), np.tile(acts, (40_000, 1))), np.random.default_rng(2))
    assert np.bincount(watch_bins(drawn.watch_share), minlength=WATCH_BINS) / 40_000 == pytest.approx(odds, abs=0.01)
    assert drawn.acts.mean(axis=0) == pytest.approx(acts, abs=0.01)
    assert ((drawn.watch_share >= 0) & (drawn.watch_share <= WATCH_EDGES[-1])).all()


def test_the_expected_reward_is_the_mean_of_simulated_rewards(world: World) -> None:
    """Same model, same table: draw many slates, value them as outcomes, compare with the expectation."""
    catalog, who = world.serving.catalog, viewers(world, 1)
    items = np.array([3, 14, 40, 77], np.int32)
    expected = expected_rewards(world.users, who, items[None], world.table)[0]
    predicted = world.users.predict(who, np.zeros(len(items), np.int64), items)
    rng, repeats = np.random.default_rng(4), 4_000
    total = np.zeros(len(items))
    for _ in range(repeats // 50):
        many = Predicted(np.repeat(predicted.watch, 50, axis=0), np.repeat(predicted.acts, 50, axis=0))
        drawn, which = draw(many, rng), np.repeat(items, 50)
        outcomes = []
        for item, share, done in zip(which, drawn.watch_share, drawn.acts, strict=True):
            seconds = catalog.durations_ms[item] / 1000
            outcome = Outcome(
                actions=sorted(act for act, was in zip(ACTS, done, strict=True) if was),
                duration_bucket=int(duration_buckets(seconds)),
                disliked=bool(done[ACTS.index(Action.ACTION_DISLIKE)]),
            )
            if share > 0:
                outcome.play_ms = round(share * seconds * 1000)
            outcomes.append(outcome)
        total += rewards(outcomes, world.table).reward.reshape(len(items), 50).sum(axis=1)
    assert total / repeats == pytest.approx(expected, abs=0.04)


def test_empty_slots_have_no_reward(world: World) -> None:
    found = expected_rewards(world.users, viewers(world, 2), np.array([[1, -1], [-1, -1]], np.int32), world.table)
    assert np.isnan(found).tolist() == [[False, True], [True, True]]


def test_a_person_is_judged_alone(world: World, fitted: Fitted) -> None:
    for model in (world.users, fitted.users):
        slates = np.arange(12, dtype=np.int32).reshape(4, 3)
        together = expected_rewards(model, viewers(world, 4), slates, world.table)
        alone = expected_rewards(model, viewers(world, 1), slates[:1], world.table)
        assert alone[0] == pytest.approx(together[0])


def test_a_fitted_model_beats_base_rates_on_a_later_day(
    world: World, events: list[Interaction], fitted: Fitted
) -> None:
    found = users_quality(
        fitted, events, world.serving.catalog, world.context, since_ms=NOON_OF_DAY_TWO, until_ms=1 << 62
    )
    assert found.exposures > 200
    assert found.watch_log_loss < found.watch_base_log_loss
    assert found.watched_predicted == pytest.approx(found.watched_found, abs=0.12)
    assert found.likes_predicted == pytest.approx(found.likes_found, abs=0.05)


def test_what_comes_after_the_days_changes_nothing(world: World, events: list[Interaction], fitted: Fitted) -> None:
    """Causal: the fit is the same whether the later events exist or not."""
    until = [event for event in events if event.occurred_at.ToMilliseconds() < NOON_OF_DAY_TWO]
    again = fit_users(until, world.serving.catalog, world.context, FEW, since_ms=0, until_ms=NOON_OF_DAY_TWO)
    assert again.table.digest() == fitted.table.digest()
    for one, other in zip(again.users.weights, fitted.users.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_survives_storage_and_refuses_what_is_not_its_own(world: World, fitted: Fitted, tmp_path: Path) -> None:
    path, catalog = tmp_path / "users.npz", world.serving.catalog
    fitted.users.save(path)
    items = np.arange(10, dtype=np.int32)
    who, nobody = np.zeros(10, np.int64), viewers(world, 1)
    loaded = FittedUsers.load(path, catalog).predict(nobody, who, items)
    np.testing.assert_array_equal(loaded.watch, fitted.users.predict(nobody, who, items).watch)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtefactError, match="no readable user model"):
        FittedUsers.load(path, catalog)


def test_days_without_exposures_are_said(world: World, events: list[Interaction]) -> None:
    with pytest.raises(InputError, match="found no exposure"):
        fit_users(events, world.serving.catalog, world.context, FEW, since_ms=0, until_ms=1)


def test_simulated_acts_are_fit_for_the_log_and_name_their_request(world: World) -> None:
    catalog = world.serving.catalog
    item_ids = [catalog.items[item].item_id for item in (5, 9, 60)] + ["an-item-of-tomorrow"]
    slate = Slate("request-7", NOON_OF_DAY_TWO, item_ids, world.city.location_of("person-0", NOON_OF_DAY_TWO))

    def acts(seed: int) -> list[Interaction]:
        numbers = itertools.count()
        return slate_acts(
            world.users,
            catalog,
            viewers(world, 1),
            slate,
            rng=np.random.default_rng(seed),
            new_id=lambda: f"act-{next(numbers)}",
        )

    assert acts(1) == acts(1)
    for seed in range(40):
        made = acts(seed)
        assert {act.request_id for act in made} == {"request-7"} and {act.origin for act in made} == {ORIGIN_SIMULATED}
        times = [act.occurred_at.ToMilliseconds() for act in made]
        assert times == sorted(times) and times[0] > NOON_OF_DAY_TWO
        assert not any(interaction_fault(act, act.occurred_at.ToMilliseconds()) for act in made)
        assert len({act.event_id for act in made}) == len(made)
        exposures = [act.item_id for act in made if act.action in (Action.ACTION_PLAY, Action.ACTION_VIEW)]
        assert exposures == item_ids  # every slot comes on screen once, top first
        assert made[-1].action == Action.ACTION_VIEW and made[-1].item_id == "an-item-of-tomorrow"
