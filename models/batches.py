"""The words all model code speaks: what goes into a generator and what comes out.

Letters used in this file
    B requests   T item tokens = HISTORY + POSITIVES   K beams   L code levels   E items near the history   R outcomes

`context_batch` is the one function that turns stored rows into model input: training, gate,
evaluation and the scorer call it, so that what a model learned from is what it is asked with. It
is pure and reads only what is handed in.

Source: OneRec-V2, arXiv:2508.20900 §3 (short and positive pathways, static features). Chosen here,
since the paper gives no feature lists: act kinds as bits, watch share and age in buckets, two
interest vectors, one token of place and hour.
"""

from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from core.geo import centre_of
from feature_repo.layouts import HISTORY, UserRows

LEVELS: Final = 3
POSITIVES: Final = 30  # newest positive exposures that are tokens; a row keeps more
TOKENS: Final = HISTORY + POSITIVES
ACTIONS: Final = 11  # kinds of act: bit (Action - 1) of the stored actions
WATCH_EDGES: Final = (1, 10, 25, 50, 75, 95, 105, 150)  # percent of the item's length
WATCH_SHARES: Final = len(WATCH_EDGES) + 2  # the last = not known
AGE_BUCKETS: Final = 48  # half octaves of seconds: the last begins at 137 days
PLACE_FEATURES: Final = 10
NEAR: Final = 256  # E: items that a request's neighbour evidence may name
EVIDENCE_SOURCES: Final = 2  # of evidence: seen together, alike in text

_KM_PER_DEGREE: Final = 111.195
_KM_SCALE: Final = 10.0  # a city's radius is about one
_FAR: Final = 10.0  # offsets are clipped to +-100 km
_HOUR_MS: Final = 3_600_000

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class ContextBatch(NamedTuple):
    """What a generator knows of B users at the moment of the request: its inputs, by name and order.

    Item tokens are the history, newest first, then the positives, newest first. A token whose item
    is not in the catalogue, or that is not used, is masked, and all its fields are 0.
    """

    codes: Ints  # (B, T, L) code path of the item
    mask: Flags  # (B, T) the token is there
    actions: Ints  # (B, T) bit (Action - 1) per kind of act; 0 for positives
    watch: Ints  # (B, T) bucket of the watch share
    age: Ints  # (B, T) bucket of the seconds since the act
    interests: Floats  # (B, 2, DIM) long term, short term; a zero vector is masked
    place: Floats  # (B, PLACE_FEATURES), see `_place`
    items: Ints  # (B, T) catalogue index
    near: Ints  # (B, E) catalogue index of the neighbours of the history, -1 = none; see models.evidence
    nearness: Floats  # (B, E, EVIDENCE_SOURCES) how near, by each source of evidence; 0 where there is none


class Beams(NamedTuple):
    """What a generator answers, best first by the sum of `masked_log_probs`.

    A dead beam (fewer than K items can be reached) has item -1, codes -1 and log-probabilities -inf;
    dead beams come last.
    """

    items: Ints  # (B, K) catalogue index
    codes: Ints  # (B, K, L)
    masked_log_probs: Floats  # (B, K, L) renormalised over the children with live items: the serving policy
    log_probs: Floats  # (B, K, L) over the whole codebook
    item_logits: Floats  # (B, K) what the item head says of the item; 0 without one
    values: Floats  # (B, K, R) odds of each of models.values.Value if the item is shown; 0 without a value head


def beam_difference(expected: Beams, found: Beams) -> float:
    """The largest difference of a log-probability, item logit or value between two answers to the same requests.

    Beams are compared by item, not by rank, since two of nearly equal score may swap. An item that only
    one answer has counts by how far it stands above the last beam of the other, infinitely if the other
    still had a beam free.
    """
    worst = 0.0
    for ours, theirs in ((expected, found), (found, expected)):
        same = (ours.items[:, :, None] == theirs.items[:, None, :]) & (ours.items >= 0)[:, :, None]
        request, rank, other = np.nonzero(same)
        for mine, yours in zip(ours[2:], theirs[2:], strict=True):
            worst = max(worst, float(np.abs(mine[request, rank] - yours[request, other]).max(initial=0.0)))
        request, rank = np.nonzero((ours.items >= 0) & ~same.any(2))
        last = theirs.masked_log_probs.sum(-1).min(1)
        above = ours.masked_log_probs[request, rank].sum(-1) - last[request]
        worst = max(worst, float(above.max(initial=0.0)))
    return worst


class KnownItems(Protocol):
    """What a context needs of the catalogue."""

    @property
    def codes(self) -> Ints:
        """(I, L) code path of every item."""
        ...

    @property
    def centre(self) -> tuple[float, float] | None:
        """Latitude and longitude of the middle of all located items; None when no item has a place."""
        ...

    def indices_of(self, keys: npt.NDArray[np.int64]) -> Ints:
        """Catalogue index per item key, -1 where unknown; any shape."""
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
        near=np.full((count, NEAR), -1, np.int32),  # a catalogue keeps no neighbours yet
        nearness=np.zeros((count, NEAR, EVIDENCE_SOURCES), np.float32),
    )


def take_rows(batch: ContextBatch, rows: npt.NDArray[np.int64] | slice) -> ContextBatch:
    """The context of some requests of the batch, in the order of `rows`."""
    return ContextBatch._make(field[rows] for field in batch)


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
    features[:, 1] = known
    middle_latitude, middle_longitude = centre if centre is not None else (0.0, 0.0)
    if centre is not None and known.any():
        north, east = _offset_km(middle_latitude, middle_longitude, latitude, longitude)
        features[:, 2] = np.where(known, np.clip(north / _KM_SCALE, -_FAR, _FAR), 0.0)
        features[:, 3] = np.where(known, np.clip(east / _KM_SCALE, -_FAR, _FAR), 0.0)
    for row in np.flatnonzero(places["home_cell"]):
        home_latitude, home_longitude = centre_of(int(places["home_cell"][row]))
        features[row, 4] = 1.0
        if known[row]:
            away = _offset_km(home_latitude, home_longitude, latitude[row], longitude[row])
            features[row, 5] = np.log1p(np.hypot(*away))
    features[:, 6] = np.log1p(places["radius_m"] / 1000.0)

    local_ms = now + (np.where(known, longitude, middle_longitude) * (_HOUR_MS / 15.0)).astype(np.int64)
    angle = (local_ms % (24 * _HOUR_MS)) * (2.0 * np.pi / (24 * _HOUR_MS))
    features[:, 7], features[:, 8] = np.sin(angle), np.cos(angle)
    features[:, 9] = (local_ms // (24 * _HOUR_MS) + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    return features


def _offset_km(
    latitude: float, longitude: float, latitudes: npt.ArrayLike, longitudes: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Kilometres north and east of a point, on the plane that touches the earth there: good to ~100 km."""
    north = (np.asarray(latitudes, np.float64) - latitude) * _KM_PER_DEGREE
    turn = (np.asarray(longitudes, np.float64) - longitude + 180.0) % 360.0 - 180.0
    return north, turn * _KM_PER_DEGREE * np.cos(np.radians(latitude))
