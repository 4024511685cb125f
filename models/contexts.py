"""Stored rows -> model input.

Letters used in this file
    B requests   T item tokens = HISTORY + POSITIVES   I items   L code levels

`context_batch` is the one function that does it: training, gate, evaluation and the scorer call it, so
that what a model learned from is what it is asked with. It is pure and reads only what is handed in.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from core.geo import centre_of
from feature_repo.layouts import HISTORY, UserRows
from models.batches import (
    AGE_BUCKETS,
    PLACE_FEATURES,
    POSITIVES,
    TOKENS,
    WATCH_EDGES,
    WATCH_SHARES,
    ContextBatch,
    Floats,
    Ints,
)
from models.evidence import Lent, Neighbours, near_items
from models.visits import Visits, weekend

_KM_PER_DEGREE: Final = 111.195
_KM_SCALE: Final = 10.0  # a city's radius is about one
_FAR: Final = 10.0  # offsets are clipped to +-100 km
_HOUR_MS: Final = 3_600_000
KNOWN: Final = 1  # of the place features
AREA: Final = slice(2, 4)
HOUR: Final = slice(7, 10)


class KnownItems(Protocol):
    """What a context needs of the catalogue."""

    @property
    def codes(self) -> Ints:
        """(I, L) code path of every item."""
        ...

    @property
    def locations(self) -> npt.NDArray[np.float64]:
        """(I, 2) latitude and longitude, NaN without a place."""
        ...

    @property
    def centre(self) -> tuple[float, float] | None:
        """Latitude and longitude of the middle of all located items; None when no item has a place."""
        ...

    def indices_of(self, keys: npt.NDArray[np.int64]) -> Ints:
        """Catalogue index per item key, -1 where unknown; any shape."""
        ...

    @property
    def neighbours(self) -> Sequence[Neighbours]:
        """A table for each source of evidence; none = no evidence."""
        ...

    @property
    def lent(self) -> Lent | None:
        """What items borrow that came after the tables were counted; None while none borrows."""
        ...


def _watch_table() -> Ints:
    table = np.searchsorted(np.array(WATCH_EDGES), np.arange(256), side="right").astype(np.int32)
    table[255] = WATCH_SHARES - 1
    return table


_WATCH_BUCKET: Final = _watch_table()
_HISTORY_RANKS: Final = np.arange(HISTORY)
_POSITIVE_RANKS: Final = np.arange(POSITIVES)


def context_batch(
    rows: UserRows,
    catalog: KnownItems,
    now_ms: npt.ArrayLike,
    locations: npt.ArrayLike | None = None,
) -> ContextBatch:
    """Model input of B requests. A row depends on nothing but its own user, time and place.

    Args:
        rows: B users; all zeros where a user is not known.
        catalog: the one the model was exported with, or a later state of it.
        now_ms: scalar or (B,), platform clock at the request.
        locations: (B, 2) latitude and longitude of the request, NaN where unknown; all unknown when absent.
    """
    history = rows.history
    count = len(history)
    now = np.broadcast_to(np.asarray(now_ms, np.int64), (count,))
    users = np.arange(count)[:, None]

    acts = history["length"].astype(np.int64)[:, None] - 1 - _HISTORY_RANKS
    likes = history["positive_length"].astype(np.int64)[:, None] - 1 - _POSITIVE_RANKS
    used = np.concatenate([acts, likes], axis=1) >= 0
    acts, likes = np.maximum(acts, 0), np.maximum(likes, 0)

    keys = np.concatenate([history["item"][users, acts], history["positive_item"][users, likes]], axis=1)
    items = catalog.indices_of(keys)
    mask = used & (items >= 0)
    at_s = np.concatenate([history["at_s"][users, acts], history["positive_at_s"][users, likes]], axis=1)
    age_s = np.maximum(now[:, None] // 1000 - at_s, 0)
    age = np.minimum(2.0 * np.log2(1.0 + age_s), AGE_BUCKETS - 1).astype(np.int32)
    actions = np.zeros((count, TOKENS), np.int32)
    actions[:, :HISTORY] = history["actions"][users, acts]
    watch = np.full((count, TOKENS), WATCH_SHARES - 1, np.int32)
    watch[:, :HISTORY] = _WATCH_BUCKET[history["watch"][users, acts]]

    interests = np.empty((count, 2, rows.interests["long_term"].shape[-1]), np.float32)
    interests[:, 0] = rows.interests["long_term"]
    interests[:, 1] = rows.interests["short_term"]
    known = np.where(mask, items, np.int32(-1))
    had = np.where(np.isnan(catalog.locations[known, 0]), known, -1)  # a place is worth coming back to
    east_ms = 0 if catalog.centre is None else int(catalog.centre[1] * (_HOUR_MS / 15.0))  # of a city's clocks
    liked = slice(HISTORY, None)
    visits = Visits(
        visit=(known >= 0)[:, liked] & (had < 0)[:, liked],
        at_ms=1000 * at_s[:, liked].astype(np.int64) + east_ms,
        now_ms=now + east_ms,
    )
    near, nearness = near_items(known[:, liked], catalog.neighbours, list(had), visits=visits, lent=catalog.lent)
    where = np.full((count, 2), np.nan) if locations is None else np.asarray(locations, np.float64).reshape(count, 2)
    return ContextBatch(
        codes=catalog.codes[np.where(mask, items, 0)] * mask[:, :, None],
        mask=mask,
        actions=actions * mask,
        watch=watch * mask,
        age=age * mask,
        interests=interests,
        place=_place(rows, catalog.centre, now, where),
        items=np.where(mask, items, 0).astype(np.int32),
        near=near,
        nearness=nearness,
    )


def _place(
    rows: UserRows, centre: tuple[float, float] | None, now: npt.NDArray[np.int64], here: npt.NDArray[np.float64]
) -> Floats:
    """(B, PLACE_FEATURES): what place and hour say.

    0 the request names its place; 1 the place is known, from the request or else the last one stored;
    2, 3 its offset north and east of the catalogue's centre, tens of km; 4 home is known; 5 log(1 + km
    from home); 6 log(1 + km of the usual radius); 7, 8 sine and cosine of the local hour; 9 local weekend.
    What is not known is 0. Local time is UTC + longitude / 15 h, of the place, else of the centre, else UTC.
    """
    places = rows.places
    features = np.zeros((len(now), PLACE_FEATURES), np.float32)
    named = ~np.isnan(here[:, 0])
    stored = places["last_cell"] != 0
    latitude = np.where(named, here[:, 0], places["last_latitude"])
    longitude = np.where(named, here[:, 1], places["last_longitude"])
    known = named | stored
    features[:, 0] = named
    features[:, KNOWN] = known
    middle_longitude = centre[1] if centre is not None else 0.0
    if centre is not None and known.any():
        features[:, AREA] = np.where(known[:, None], area_features(centre, latitude, longitude), 0.0)
    for row in np.flatnonzero(places["home_cell"]):
        home_latitude, home_longitude = centre_of(int(places["home_cell"][row]))
        features[row, 4] = 1.0
        if known[row]:
            away = _offset_km(home_latitude, home_longitude, latitude[row], longitude[row])
            features[row, 5] = np.log1p(np.hypot(*away))
    features[:, 6] = np.log1p(places["radius_m"] / 1000.0)

    local_ms = now + (np.where(known, longitude, middle_longitude) * (_HOUR_MS / 15.0)).astype(np.int64)
    features[:, HOUR] = hour_features(local_ms)
    return features


def area_features(
    middle: tuple[float, float], latitudes: npt.ArrayLike, longitudes: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """(B, 2) offset north and east of the middle, tens of km."""
    return np.clip(np.stack(_offset_km(*middle, latitudes, longitudes), axis=-1) / _KM_SCALE, -_FAR, _FAR)


def hour_features(local_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(B, 3) sine and cosine of the local hour, and whether it is weekend."""
    angle = (local_ms % (24 * _HOUR_MS)) * (2.0 * np.pi / (24 * _HOUR_MS))
    return np.stack([np.sin(angle), np.cos(angle), weekend(local_ms)], axis=-1)


def _offset_km(
    latitude: float, longitude: float, latitudes: npt.ArrayLike, longitudes: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Kilometres north and east of a point, on the plane that touches the earth there: good to ~100 km."""
    north = (np.asarray(latitudes, np.float64) - latitude) * _KM_PER_DEGREE
    turn = (np.asarray(longitudes, np.float64) - longitude + 180.0) % 360.0 - 180.0
    return north, turn * _KM_PER_DEGREE * np.cos(np.radians(latitude))
