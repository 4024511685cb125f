"""Laws of the synthetic city: the seed decides, near is likelier than far, closed doors stay closed."""

from dataclasses import replace

import numpy as np
import pytest

from core.geo import distance_m, distances_m
from core.validation import interaction_fault
from models.items import item_fault
from models.opening_hours import open_at
from protos.events.v1.interaction_pb2 import Action
from rl.city import KINDS, City, CityConfig, make_city, sessions
from rl.city_users import odds, recorded_days
from rl.user_model import WATCH_BINS

SMALL = CityConfig(seed=3, places=80, people=60, days=2)
NOON = SMALL.start_ms + 12 * 3_600_000


@pytest.fixture(scope="module")
def city() -> City:
    return make_city(SMALL)


def test_equal_seeds_give_equal_cities_and_days(city: City) -> None:
    again = make_city(SMALL)
    assert again.places.items == city.places.items
    assert recorded_days(again) == recorded_days(city)


def test_another_seed_is_another_city(city: City) -> None:
    other = make_city(replace(SMALL, seed=4))
    assert other.places.items != city.places.items
    assert recorded_days(other) != recorded_days(city)


def test_everything_is_fit_for_catalogue_and_log(city: City) -> None:
    assert [item_fault(item) for item in city.places.items] == [None] * SMALL.places
    events = recorded_days(city)
    ids = {event.event_id for event in events}
    assert len(ids) == len(events) > 500
    assert not any(interaction_fault(event, event.occurred_at.ToMilliseconds()) for event in events)
    times = [event.occurred_at.ToMilliseconds() for event in events]
    assert times == sorted(times) and times[0] >= SMALL.start_ms


def test_nearer_draws_more_when_all_else_is_equal(city: City) -> None:
    place = int(np.flatnonzero(open_at(city.places.weeks, NOON, 0))[0])
    latitude, longitude = float(city.places.latitude[place]), float(city.places.longitude[place])
    draws = [city.attraction(0, NOON, (latitude + north, longitude))[place] for north in (0.0, 0.001, 0.005, 0.02, 0.1)]
    assert draws == sorted(draws, reverse=True) and draws[0] > draws[-1]


def test_people_act_near_where_they_are(city: City) -> None:
    """Their places lie nearer than a place drawn at random, and the nearby moves with them."""
    place_of = {item.item_id: index for index, item in enumerate(city.places.items)}
    chosen, random = [], []
    for event in recorded_days(city):
        if event.action in (Action.ACTION_CLICK, Action.ACTION_ORDER):
            away = distances_m(
                event.location.latitude, event.location.longitude, city.places.latitude, city.places.longitude
            )
            chosen.append(away[place_of[event.item_id]])
            random.append(away.mean())
    assert np.mean(chosen) < 0.6 * np.mean(random)


def test_nobody_orders_at_a_closed_door(city: City) -> None:
    closed = ~open_at(city.places.weeks, NOON, 0)
    assert closed.any()
    predicted = odds(city.attraction(0, NOON, city.whereabouts(0, NOON))[closed])
    assert predicted.acts[:, 2].max() < 1e-3


def test_odds_rise_with_attraction_except_dislike() -> None:
    predicted = odds(np.linspace(-10.0, 5.0, 40))
    assert predicted.watch.shape[1] == WATCH_BINS
    assert predicted.watch.sum(axis=1) == pytest.approx(1.0) and (predicted.watch >= 0).all()
    assert (np.diff(predicted.watch @ np.arange(WATCH_BINS)) > 0).all()
    assert (np.diff(predicted.acts[:, :-1], axis=0) > 0).all() and (np.diff(predicted.acts[:, -1]) < 0).all()


def test_people_move_during_the_day_and_sleep_at_home(city: City) -> None:
    night, morning = SMALL.start_ms + 3 * 3_600_000, SMALL.start_ms + 10 * 3_600_000
    away = [
        distance_m(*city.whereabouts(person, night), *city.whereabouts(person, morning))
        for person in range(SMALL.people)
    ]
    assert np.median(away) > 500.0
    next_night = night + 24 * 3_600_000
    assert city.whereabouts(0, night) == city.whereabouts(0, next_night)
    assert city.whereabouts(0, morning) == city.whereabouts(0, morning + 7 * 24 * 3_600_000)


def test_a_stranger_is_nowhere(city: City) -> None:
    assert city.location_of("person-0", NOON) is not None
    assert city.location_of("somebody", NOON) is None
    assert city.location_of(f"person-{SMALL.people}", NOON) is None


def test_the_app_is_opened_in_order_of_time(city: City) -> None:
    times = [at_ms for _, at_ms in sessions(city)]
    assert times == sorted(times)
    assert SMALL.start_ms <= times[0] and times[-1] < SMALL.start_ms + SMALL.days * 24 * 3_600_000


def test_every_kind_is_there(city: City) -> None:
    whole = make_city(CityConfig())
    assert set(whole.places.kind.tolist()) == set(range(len(KINDS)))
