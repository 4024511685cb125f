"""The untrained baselines say what they are named after."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.quality.averaged import Averaged
from benchmarks.quality.models import Model
from benchmarks.quality.neighbours import Mixture, NeighbourScores, Once
from benchmarks.quality.places import Near, Visits, VisitWeights
from benchmarks.quality.popularity import PersonalPopularity, Popularity, Rate
from benchmarks.quality.split import Split, good_sequences, ordered
from benchmarks.quality.traits import Traits
from core.errors import InputError
from models.neighbours import cooccurrence
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location
from tests.benchmarks.quality.worlds import ITEMS, USERS, walks

DAY_S = 86_400
HOUR_S = 3_600
SUNDAY_S = 1_333_843_200  # 2012-04-08 00:00 UTC


def one_user(items: list[int], at_s: list[int], good: list[bool] | None = None, zone: str = "UTC") -> Split:
    """A user whose last act is asked for; what came before may be learned from."""
    count = len(items)
    events = ordered(np.zeros(count, int), np.array(items), np.array(at_s), np.array(good or [True] * count))
    shelf = [Item(item_id=str(n), available=True) for n in range(6)]
    learn = np.arange(count) < count - 1
    return Split("one", "test", shelf, events, learn, np.array([count - 1]), mask_seen=False, zone=zone)


def best(model: Model, split: Split) -> int:
    model.fit(split, 0)
    return int(model.scores(split, np.arange(1))[0].argmax())


def test_popularity_counts_good_acts_and_forgets_by_halves() -> None:
    split = one_user([1, 1, 2, 3, 0], [0, 0, 10 * DAY_S, 10 * DAY_S, 11 * DAY_S], [True, True, True, False, True])
    plain, recent = Popularity(), Popularity(5.0)
    assert best(plain, split) == 1
    assert best(recent, split) == 2
    assert recent.scores(split, np.arange(1))[0, :4].tolist() == pytest.approx([0.0, 0.5, 1.0, 0.0])


def test_a_rate_is_drawn_to_the_mean_where_little_was_shown() -> None:
    split = one_user([1, 1, 1, 2, 3, 0], [0, 1, 2, 3, 4, 5], [True, True, False, True, False, True])
    model = Rate(1.0)
    model.fit(split, 0)
    rates = model.scores(split, np.arange(1))[0]
    assert rates[:4].tolist() == pytest.approx([0.6, 2.6 / 4, 1.6 / 2, 0.6 / 2])


def test_what_the_user_took_before_stands_first_then_what_everybody_takes() -> None:
    split = walks()
    model = PersonalPopularity(0.9)
    model.fit(split, 0)
    scores = model.scores(split, np.arange(USERS))
    for row, act in enumerate(split.asked):
        assert scores[row].argmax() == split.events.items[act - 1]
    assert (scores > 0).all()


def test_the_next_item_of_walks_is_the_nearest_neighbour() -> None:
    split = walks()
    table = Once(lambda one: cooccurrence(good_sequences(one), ITEMS, backwards=0.0))
    model = NeighbourScores("cooccurrence", table, 0.3)
    model.fit(split, 0)
    scores = model.scores(split, np.arange(USERS))
    assert (scores.argmax(axis=1) == split.events.items[split.asked]).mean() > 0.9


def test_a_mixture_is_the_weighted_sum_of_its_parts() -> None:
    split = walks()
    parts = [Popularity(), PersonalPopularity(0.5)]
    mixed, shares = (Mixture("mixture", parts, [2.0, 3.0], shares=flag) for flag in (False, True))
    mixed.fit(split, 0)
    one, other = (part.scores(split, np.arange(5)) for part in parts)
    np.testing.assert_allclose(mixed.scores(split, np.arange(5)), 2 * one + 3 * other, rtol=1e-6)
    expected = 2 * one / one.sum(1, keepdims=True) + 3 * other / other.sum(1, keepdims=True)
    np.testing.assert_allclose(shares.scores(split, np.arange(5)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (VisitWeights(visit=1.0), 1),
        (VisitWeights(visit=0.0, recent=1.0, fade=0.3), 4),
        (VisitWeights(visit=0.0, hour=1.0), 2),
        (VisitWeights(visit=0.0, again=1.0), 3),
    ],
    ids=["visit", "recent", "hour", "again"],
)
def test_each_part_of_the_visit_counter_speaks_for_its_place(weights: VisitWeights, expected: int) -> None:
    items = [1, 1, 1, 2, 4, 3, 4, 0]
    hours = [9, 10, 11, 20, 30, 33, 57, 24 * 7 + 20]
    split = one_user(items, [SUNDAY_S + hour * HOUR_S for hour in hours])
    assert best(Visits("visits", weights), split) == expected


def test_the_hour_is_read_on_the_clocks_of_the_place_and_only_where_it_is_known() -> None:
    items, hours = [1, 2, 0], [12, 20, 24 * 7 + 20]
    weights = VisitWeights(visit=0.0, hour=1.0, popular=0.0)
    split = one_user(items, [SUNDAY_S + hour * HOUR_S for hour in hours], zone="America/New_York")
    assert best(Visits("visits", weights), split) == 2
    unknown = split._replace(time_known=False)
    model = Visits("visits", weights)
    model.fit(unknown, 0)
    assert not model.scores(unknown, np.arange(1)).any()


def test_where_everybody_goes_next_counts_for_a_new_user() -> None:
    split = walks(steps=3)
    model = Visits("visits", VisitWeights(visit=0.0, others=1.0, popular=0.0))
    model.fit(split, 0)
    scores = model.scores(split, np.arange(USERS))
    known = scores.max(axis=1) > 0
    assert known.any()
    assert (scores.argmax(axis=1) == split.events.items[split.asked])[known].all()


def test_the_nearest_place_stands_first_and_nothing_is_near_without_a_place() -> None:
    split = one_user([0, 3], [0, 1])
    places = [
        Item(item_id=str(n), location=Location(latitude=40.0 + n / 100, longitude=-74.0), available=True)
        for n in range(5)
    ]
    placed = split._replace(items=[*places, Item(item_id="nowhere", available=True)])
    model = Near()
    model.fit(placed, 0)
    scores = model.scores(placed, np.arange(1))[0]
    assert np.argsort(-scores).tolist() == [0, 1, 2, 3, 4, 5]
    assert scores[5] == -np.inf
    assert scores[1] == pytest.approx(-1.112, abs=0.01)


@pytest.mark.parametrize(
    "make", [Popularity, lambda: PersonalPopularity(1.0), lambda: Visits("visits", VisitWeights())]
)
def test_a_baseline_without_anything_to_learn_from_still_answers(make: Callable[[], Model]) -> None:
    split = one_user([1, 2], [0, 1])._replace(learn=np.zeros(2, np.bool_))
    model = make()
    model.fit(split, 0)
    assert np.isfinite(model.scores(split, np.arange(1))).all()


class Says:
    """Odds of items, other ones for each seed."""

    name = "says"

    def __init__(self) -> None:
        self.seed = -1

    def fit(self, split: Split, seed: int) -> None:
        self.seed = seed

    def scores(self, split: Split, asked: np.ndarray) -> np.ndarray:
        odds = np.zeros((len(asked), ITEMS))
        odds[:, self.seed], odds[:, self.seed + 1] = 3.0, 1.0
        with np.errstate(divide="ignore"):
            return np.log(odds).astype(np.float32)


def test_an_average_is_the_mean_of_odds_of_trainings_with_seeds_of_their_own() -> None:
    parts, split = [Says(), Says()], walks()
    model = Averaged("averaged", parts)
    model.fit(split, seed=3)
    assert [part.seed for part in parts] == [6, 7]
    odds = np.exp(model.scores(split, np.arange(2)))
    np.testing.assert_allclose(odds[:, 6:9], np.tile([0.375, 0.5, 0.125], (2, 1)), rtol=1e-6)
    assert (odds[:, :6] == 0).all(), "what no part has found is not ranked"


def liked_by_kind() -> Split:
    """Users of kind 0 take item 1, of kind 1 item 2, and item 3 is taken most; the last user's kind is not known."""
    users = np.repeat(np.arange(USERS), 3)
    kinds = np.arange(USERS) % 2
    own = np.repeat(1 + kinds, 3)
    items = np.where(np.tile([True, True, False], USERS), own, 3)
    items[2::3] = np.where(np.arange(USERS) < USERS - 2, 3, 0)
    events = ordered(users, items, np.arange(len(users)) * HOUR_S, np.ones(len(users), np.bool_))
    shelf = [Item(item_id=str(n), available=True) for n in range(4)]
    asked = np.arange(2, len(users), 3)[-2:]
    learn = ~np.isin(np.arange(len(users)), asked)
    split = Split("kinds", "test", shelf, events, learn, asked, mask_seen=False)
    return split._replace(traits=np.where(np.arange(USERS) == USERS - 1, -1, kinds)[:, None])


def test_traits_move_popularity_to_what_people_alike_take() -> None:
    split = liked_by_kind()
    model, everybody = Traits(half_life_days=1e9, weight=1.0), Popularity()
    for each in (model, everybody):
        each.fit(split, 0)
    shares = model.scores(split, np.arange(2))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert shares[0, 1] > shares[0, 2] and shares[0, 1] / shares[0, 2] > shares[1, 1] / shares[1, 2]
    counts = everybody.scores(split, np.arange(2))[1]
    np.testing.assert_allclose(shares[1], (1 + counts) / (1 + counts).sum(), rtol=1e-4)


def test_traits_without_a_snapshot_are_refused() -> None:
    with pytest.raises(InputError, match="snapshot of users"):
        Traits(1.0, 1.0).fit(walks(), 0)
