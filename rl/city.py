"""A synthetic city: places with hours and prices, people who move, and what they did for some days.

Everything is a function of the configuration, seed included. The city lies on the Greenwich meridian,
so its local time is UTC. It is made to be checked: places have one kind each, people have tastes for
kinds, a reach in metres and a daily way, and the odds of every act follow from `attraction`, which is
the ground truth that a model can be held to.

Letters used in this file
    P places   N people   KINDS kinds of place   WAY waypoints of a day

What it is not: calibrated on any real city. Distances, hours and prices are plausible, no more.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.geo import EARTH_RADIUS_M, distances_m
from models.opening_hours import open_at, week_of
from protos.catalog.v1.catalog_pb2 import Item, OpeningHours
from protos.events.v1.interaction_pb2 import Location

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CURRENCY: Final = "EUR"
LOCATION_ACCURACY_M: Final = 30.0
CLOSED: Final = -3.0  # attraction of a closed door: a clip of it may still be watched, nobody walks there
WAY: Final = 8
_METRES_PER_DEGREE: Final = math.pi * EARTH_RADIUS_M / 180.0
_DAY_MS: Final = 24 * 3600 * 1000
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday; 0 = Monday


class Kind(NamedTuple):
    """A kind of place."""

    name: str
    share: float  # of all places
    opens: int  # minute of the local day
    closes: int  # beyond midnight when smaller than opens
    closed_on: int  # weekday 1 .. 7; 0 = never
    price: float  # median, EUR; 0 = free
    hours: tuple[float, ...]  # local hours at which people want it most


KINDS: Final = (
    Kind("cafe", 0.14, 7 * 60, 18 * 60, 0, 4.5, (8.5, 15.5)),
    Kind("bakery", 0.08, 6 * 60, 17 * 60, 7, 3.5, (7.5,)),
    Kind("lunch", 0.14, 11 * 60, 15 * 60, 0, 11.0, (12.5,)),
    Kind("restaurant", 0.14, 17 * 60, 23 * 60, 1, 28.0, (19.5,)),
    Kind("bar", 0.09, 17 * 60, 2 * 60, 0, 14.0, (22.0,)),
    Kind("grocery", 0.10, 8 * 60, 21 * 60, 7, 22.0, (18.0,)),
    Kind("clothes", 0.09, 10 * 60, 19 * 60, 7, 45.0, (16.0,)),
    Kind("books", 0.05, 9 * 60, 19 * 60, 7, 16.0, (14.0,)),
    Kind("gym", 0.06, 6 * 60, 22 * 60, 0, 12.0, (7.0, 18.5)),
    Kind("cinema", 0.04, 14 * 60, 24 * 60, 0, 13.0, (20.0,)),
    Kind("museum", 0.04, 10 * 60, 17 * 60, 1, 9.0, (13.0,)),
    Kind("park", 0.03, 0, 24 * 60, 0, 0.0, (11.0, 17.0)),
)


@dataclass(frozen=True)
class CityConfig:
    """The size of a city and of its past."""

    seed: int = 0
    """Decides everything that the other fields leave open."""
    places: int = 400
    """P"""
    people: int = 600
    """N"""
    days: int = 4
    """Days of recorded acts."""
    start_ms: int = 1_748_822_400_000
    """Midnight at which the days begin: Monday 2025-06-02, UTC."""
    centre: tuple[float, float] = (51.48, 0.0)
    """Latitude and longitude of the middle of the city."""
    radius_m: float = 3_500.0
    """Standard distance of districts from the centre."""
    districts: int = 7
    """Where places stand close together; the first is the centre."""


class Places(NamedTuple):
    """Everything that may be recommended."""

    items: tuple[Item, ...]  # (P,)
    kind: Ints  # (P,) index into KINDS
    latitude: Floats  # (P,)
    longitude: Floats  # (P,)
    price: Floats  # (P,) EUR; 0 = free
    quality: Floats  # (P,) what everybody thinks of it, mean 0
    weeks: npt.NDArray[np.int16]  # (P, 7, 2) opening hours, as of models.opening_hours


class People(NamedTuple):
    """Everybody who lives there."""

    user_ids: tuple[str, ...]  # (N,)
    taste: Floats  # (N, KINDS) how much above or below the mean a kind is liked
    reach_m: Floats  # (N,) the distance that takes 1 from attraction
    thrift: Floats  # (N,) how much a doubled price takes from attraction
    activity: Floats  # (N,) sessions a day
    minutes: Floats  # (N, 7, WAY) minute of the day of each waypoint, ascending
    way: Floats  # (N, 7, WAY, 2) latitude and longitude of each waypoint


class City(NamedTuple):
    """One city."""

    config: CityConfig
    places: Places
    people: People

    def person(self, user_id: str) -> int | None:
        """Index of a user; None for a stranger."""
        prefix = "person-"
        number = user_id.removeprefix(prefix)
        known = user_id.startswith(prefix) and number.isdigit() and int(number) < len(self.people.user_ids)
        return int(number) if known else None

    def whereabouts(self, person: int, at_ms: int) -> tuple[float, float]:
        """Where a person is at an instant, latitude and longitude; the week repeats for ever."""
        minute = at_ms % _DAY_MS / 60_000
        weekday = (at_ms // _DAY_MS + _EPOCH_WEEKDAY) % 7
        minutes, way = self.people.minutes[person, weekday], self.people.way[person, weekday]
        return float(np.interp(minute, minutes, way[:, 0])), float(np.interp(minute, minutes, way[:, 1]))

    def location_of(self, user_id: str, at_ms: int) -> Location | None:
        """Where a user's phone says it is; None for a stranger."""
        person = self.person(user_id)
        if person is None:
            return None
        latitude, longitude = self.whereabouts(person, at_ms)
        return Location(latitude=latitude, longitude=longitude, accuracy_m=LOCATION_ACCURACY_M)

    def attraction(self, person: int, at_ms: int, here: tuple[float, float]) -> Floats:
        """(P,) how much each place draws a person at an instant and a point: taste, hour, quality, price and distance.

        0 is indifferent; each `reach_m` of distance takes 1, and a closed door leaves at most CLOSED.
        """
        places, people = self.places, self.people
        hour = at_ms % _DAY_MS / 3_600_000
        value = people.taste[person, places.kind] + _appetite(hour)[places.kind] + places.quality
        value = value - people.thrift[person] * np.log2(np.maximum(places.price, 1.0) / 10.0)
        value = value - distances_m(*here, places.latitude, places.longitude) / people.reach_m[person]
        is_open = open_at(places.weeks, at_ms, 0)
        return np.asarray(np.where(is_open, value, np.minimum(value, CLOSED)))


def make_city(config: CityConfig) -> City:
    """The city that `config` describes; equal configurations give equal cities."""
    rng = np.random.default_rng((config.seed, 1))
    districts = rng.normal(0.0, config.radius_m, (config.districts, 2))
    districts[0] = 0.0
    return City(config, _places(config, districts, rng), _people(config, districts, rng))


def _places(config: CityConfig, districts: Floats, rng: np.random.Generator) -> Places:
    count = config.places
    share = np.array([kind.share for kind in KINDS])
    flavour = rng.dirichlet(share * 30.0, config.districts)  # districts differ in what they offer
    at = rng.choice(config.districts, count, p=_district_weights(config.districts))
    kind = np.array([rng.choice(len(KINDS), p=flavour[district]) for district in at])
    latitude, longitude = _degrees(config, districts[at] + rng.normal(0.0, 450.0, (count, 2)))
    median = np.array([KINDS[index].price for index in kind])
    price = np.round(median * np.exp(rng.normal(0.0, 0.35, count)), 1)
    quality = rng.normal(0.0, 0.6, count)
    chain = rng.integers(0, 60, count)
    duration_ms = rng.integers(8, 61, count) * 1000
    items = tuple(
        _item(index, int(kind[index]), int(chain[index]), float(price[index]), int(duration_ms[index]), where)
        for index, where in enumerate(zip(latitude.tolist(), longitude.tolist(), strict=True))
    )
    return Places(items, kind, latitude, longitude, price, quality, np.stack([week_of(item)[:7] for item in items]))


def _item(number: int, kind: int, chain: int, price: float, duration_ms: int, where: tuple[float, float]) -> Item:
    described = KINDS[kind]
    level = "free" if price == 0 else "cheap" if price < 8 else "fair" if price < 25 else "dear"
    item = Item(
        item_id=f"place-{number}",
        author_id=f"{described.name}-chain-{chain}",
        tags=[described.name, level],
        title=f"{described.name} {number}",
        duration_ms=duration_ms,  # a short clip about the place: the feed shows places as videos
        location=Location(latitude=where[0], longitude=where[1]),
        available=True,
    )
    if price > 0:
        item.price_micros, item.currency = round(price * 1_000_000), CURRENCY
    for weekday in range(1, 8):
        if weekday != described.closed_on:
            item.opening_hours.append(
                OpeningHours(weekday=weekday, open_minute=described.opens, close_minute=described.closes)
            )
    return item


def _people(config: CityConfig, districts: Floats, rng: np.random.Generator) -> People:
    count = config.people
    weights = _district_weights(config.districts)
    home_xy = districts[rng.choice(config.districts, count)] + rng.normal(0.0, 1_100.0, (count, 2))
    work_xy = districts[rng.choice(config.districts, count, p=weights)] + rng.normal(0.0, 500.0, (count, 2))
    liked = rng.dirichlet(np.full(len(KINDS), 0.6), count)
    minutes, way = _ways(config, districts, home_xy, work_xy, rng)
    return People(
        user_ids=tuple(f"person-{number}" for number in range(count)),
        taste=2.5 * (np.sqrt(liked * len(KINDS)) - np.sqrt(liked * len(KINDS)).mean(axis=1, keepdims=True)),
        reach_m=np.exp(rng.normal(math.log(900.0), 0.4, count)),
        thrift=rng.gamma(2.0, 0.12, count),
        activity=rng.gamma(3.0, 1.3, count) + 0.5,
        minutes=minutes,
        way=way,
    )


def _ways(
    config: CityConfig, districts: Floats, home_xy: Floats, work_xy: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The week of everybody: home, work on Monday to Friday, going out on some evenings and at weekends."""
    count = len(home_xy)
    works = rng.random(count) < 0.8
    leaves, returns = rng.normal(7.75 * 60, 45, count), rng.normal(17.25 * 60, 45, count)
    minutes = np.empty((count, 7, WAY))
    way_xy = np.empty((count, 7, WAY, 2))
    for weekday in range(7):
        out_xy = districts[rng.choice(config.districts, count, p=_district_weights(config.districts))]
        out_xy = out_xy + rng.normal(0.0, 400.0, (count, 2))
        at_work = works & (weekday < 5)
        start = np.where(at_work, leaves, rng.normal(11 * 60, 60, count)).clip(5 * 60, 14 * 60)
        day_xy = np.where(at_work[:, None], work_xy, out_xy)
        end = np.where(at_work, returns, rng.normal(17 * 60, 60, count)).clip(15 * 60, 20 * 60)
        goes_out = rng.random(count) < (0.6 if weekday in (4, 5) else 0.25)
        evening_xy = np.where(goes_out[:, None], out_xy, home_xy)
        home_again = np.where(goes_out, rng.normal(22.5 * 60, 40, count), end + 100).clip(21.75 * 60, 23.9 * 60)
        zero, stops = np.zeros(count), (home_xy, home_xy, day_xy, day_xy, evening_xy, evening_xy, home_xy, home_xy)
        times = (zero, start, start + 30, end, end + 30, home_again - 30, home_again, zero + 1440)
        minutes[:, weekday], way_xy[:, weekday] = np.stack(times, axis=1), np.stack(stops, axis=1)
    latitude, longitude = _degrees(config, way_xy)
    return minutes, np.stack([latitude, longitude], axis=-1)


def sessions(city: City) -> Iterator[tuple[int, int]]:
    """(person, at_ms) of every time somebody opens the app in the recorded days, in order of time."""
    config = city.config
    rng = np.random.default_rng((config.seed, 2))
    hours = np.array(
        [0.3, 0.1, 0.1, 0.1, 0.1, 0.3, 1, 2, 2, 1.2, 1, 1.5, 3, 2, 1.2, 1.2, 1.5, 2.5, 3, 3.5, 3.5, 3, 2, 1]
    )
    per_day = rng.poisson(city.people.activity, (config.days, config.people))
    day, person = np.nonzero(per_day)
    day, person = (np.repeat(values, per_day[day, person]) for values in (day, person))
    hour = rng.choice(24, len(day), p=hours / hours.sum())
    at_ms = config.start_ms + day * _DAY_MS + hour * 3_600_000 + rng.integers(0, 3_600_000, len(day))
    for index in np.argsort(at_ms, kind="stable"):
        yield int(person[index]), int(at_ms[index])


def _appetite(hour: float) -> Floats:
    """(KINDS,) how much the hour adds to a kind: 1.5 at its best hour, -1 far from it."""
    away = np.array([min(min(abs(hour - best), 24 - abs(hour - best)) for best in kind.hours) for kind in KINDS])
    return np.asarray(2.5 * np.exp(-0.5 * (away / 2.0) ** 2) - 1.0)


def _district_weights(count: int) -> Floats:
    """The centre holds most, then less and less."""
    weights = 1.0 / np.arange(1, count + 1)
    return np.asarray(weights / weights.sum())


def _degrees(config: CityConfig, metres: Floats) -> tuple[Floats, Floats]:
    """Latitudes and longitudes of points given as metres east and north of the centre."""
    latitude = config.centre[0] + metres[..., 1] / _METRES_PER_DEGREE
    stretch = _METRES_PER_DEGREE * math.cos(math.radians(config.centre[0]))
    return latitude, config.centre[1] + metres[..., 0] / stretch
