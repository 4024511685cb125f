"""How the people of the synthetic city act: the recorded days, and the user model for a served slate.

One rule for both: the odds of watching and of every act follow from `City.attraction`, so what a model
learns from the recorded days is what it is judged by when it recommends.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import ORIGIN_CLIENT, Action, Interaction, Location
from rl.city import CURRENCY, LOCATION_ACCURACY_M, City, sessions
from rl.user_model import ACTS, Floats, Ints, Predicted, Viewers, draw

SHOWN: Final = 3  # places that a person looks at in a session of the recorded days
CURIOSITY: Final = 1.5  # temperature of what they come across: the recorded days are no perfect recommender
WALK_MS: Final = 15 * 60 * 1000  # from an order to the visit
_AFTER_MS: Final = 2_000

# log-odds of an act at attraction 0, and what one unit of attraction adds
_ODDS: Final = {
    Action.ACTION_CLICK: (-1.5, 0.9),
    Action.ACTION_LIKE: (-3.5, 0.8),
    Action.ACTION_ORDER: (-4.0, 1.1),
    Action.ACTION_CHECK_IN: (-4.0, 1.1),
    Action.ACTION_DISLIKE: (-5.0, -0.25),
}
# attraction at which half of the people watch more than the lower edge of each bin
_WATCH_AT: Final = np.array([-4.0, -2.5, -1.2, -0.2, 0.7, 1.6, 3.5])


def odds(attraction: Floats) -> Predicted:
    """The odds of exposures whose items draw that much; (n,) -> n exposures."""
    beyond = _sigmoid(attraction[:, None] - _WATCH_AT)  # (n, bins - 1) P(bin > b)
    watch = -np.diff(beyond, axis=1, prepend=1.0, append=0.0)
    acts = np.stack([_sigmoid(base + slope * attraction) for base, slope in (_ODDS[act] for act in ACTS)], axis=1)
    return Predicted(watch, acts)


class CityUsers:
    """The people of a city as a `rl.user_model.UserModel`. A stranger is indifferent to everything."""

    def __init__(self, city: City, catalog: Catalog) -> None:
        self._city = city
        numbers = {item.item_id: number for number, item in enumerate(city.places.items)}
        self._place = np.array([numbers.get(item.item_id, -1) for item in catalog.items], np.int64)
        self._durations_s = np.where(catalog.durations_ms > 0, catalog.durations_ms / 1000.0, -1.0)

    def predict(self, viewers: Viewers, who: npt.NDArray[np.int64], items: Ints) -> Predicted:
        """As in `rl.user_model.UserModel`; the viewer's location is used where it is known, else the daily way."""
        attraction = np.zeros(len(items))
        places = self._place[items]
        for viewer in np.unique(who).tolist():
            person, at_ms = self._city.person(viewers.user_ids[viewer]), int(viewers.at_ms[viewer])
            if person is None:
                continue
            latitude, longitude = viewers.locations[viewer].tolist()
            here = (latitude, longitude) if latitude == latitude else self._city.whereabouts(person, at_ms)
            known = (who == viewer) & (places >= 0)
            attraction[known] = self._city.attraction(person, at_ms, here)[places[known]]
        return odds(attraction)

    def durations_s(self, items: Ints) -> Floats:
        """As in `rl.user_model.UserModel`."""
        return np.asarray(self._durations_s[items])


def recorded_days(city: City) -> list[Interaction]:
    """What the people did in the days of `city.config`, in order of time; a visit may end after the last day.

    Event ids repeat with the seed, so that a second replay of the same city is recognised as such.
    """
    rng = np.random.default_rng((city.config.seed, 3))
    opened = list(sessions(city))
    shown = np.empty((len(opened), SHOWN), np.int64)
    attraction = np.empty((len(opened), SHOWN))
    for row, (person, at_ms) in enumerate(opened):
        drawn = city.attraction(person, at_ms, city.whereabouts(person, at_ms))
        noisy = drawn / CURIOSITY + rng.gumbel(size=len(drawn))
        shown[row] = np.argpartition(-noisy, SHOWN)[:SHOWN]
        attraction[row] = drawn[shown[row]]
    responses = draw(odds(attraction.ravel()), rng)
    share, acts = responses.watch_share.reshape(-1, SHOWN), responses.acts.reshape(-1, SHOWN, len(ACTS))

    numbers = itertools.count()
    events: list[Interaction] = []
    for row, (person, at_ms) in enumerate(opened):
        events += _session(
            city, person, at_ms, shown[row], share[row], acts[row], lambda: f"city-{city.config.seed}-{next(numbers)}"
        )
    events.sort(key=lambda event: (event.occurred_at.seconds, event.occurred_at.nanos))
    return events


def _session(
    city: City,
    person: int,
    at_ms: int,
    shown: npt.NDArray[np.int64],
    shares: Floats,
    acts: npt.NDArray[np.bool_],
    new_id: Callable[[], str],
) -> Iterator[Interaction]:
    """A person opens the app, comes across some places and acts on them one after the other."""
    user_id, here, now_ms = city.people.user_ids[person], city.whereabouts(person, at_ms), at_ms
    for place, share, done in zip(shown.tolist(), shares.tolist(), acts.tolist(), strict=True):
        item = city.places.items[place]
        play_ms = round(share * item.duration_ms)
        if play_ms:
            now_ms += play_ms
            event = _event(new_id(), user_id, item.item_id, Action.ACTION_PLAY, now_ms, here)
            event.play_ms, event.duration_ms = play_ms, item.duration_ms
            yield event
        else:
            now_ms += _AFTER_MS
            yield _event(new_id(), user_id, item.item_id, Action.ACTION_VIEW, now_ms, here)
        for action in itertools.compress(ACTS, done):
            now_ms += _AFTER_MS
            if action == Action.ACTION_CHECK_IN:
                there = (item.location.latitude, item.location.longitude)
                yield _event(new_id(), user_id, item.item_id, action, now_ms + WALK_MS, there)
                continue
            event = _event(new_id(), user_id, item.item_id, action, now_ms, here)
            if action == Action.ACTION_ORDER and item.HasField("price_micros"):
                event.value_micros, event.currency = item.price_micros, CURRENCY
            yield event


def _event(
    event_id: str, user_id: str, item_id: str, action: Action.ValueType, at_ms: int, where: tuple[float, float]
) -> Interaction:
    event = Interaction(
        event_id=event_id,
        user_id=user_id,
        item_id=item_id,
        action=action,
        location=Location(latitude=where[0], longitude=where[1], accuracy_m=LOCATION_ACCURACY_M),
        surface="city",
        origin=ORIGIN_CLIENT,
    )
    event.occurred_at.FromMilliseconds(at_ms)
    return event


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
