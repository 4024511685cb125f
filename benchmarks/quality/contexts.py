"""Asked acts as the generator's model input: the acts before each, and the evidence of their neighbours.

Letters used in this file
    q asked acts   T tokens   I items
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from benchmarks.quality.split import Flags, Floats, Ints, Longs, Split, histories, local_s, seen_pairs
from feature_repo.layouts import DIM
from models import visits
from models.batches import (
    AGE_BUCKETS,
    PLACE_FEATURES,
    WATCH_EDGES,
    WATCH_SHARES,
    ContextBatch,
)
from models.contexts import AREA, HOUR, KNOWN, area_features, hour_features
from models.evidence import Lent, Neighbours, near_items
from models.own_pairs import own_pairs

_GOOD = 1  # the first bit of `actions`


def contexts(
    split: Split,
    acts: Longs,
    codes: Ints,
    tokens: int,
    tables: Sequence[Neighbours],
    own: sparse.csr_array | None = None,
    seen: Flags | None = None,
    lent: Lent | None = None,
) -> ContextBatch:
    """What is known just before each act, and of the act its time where the protocol tells it.

    Args:
        acts: (q,) event indices, each with at least one act of its user before it that is seen.
        codes: (I, L).
        tables: of neighbours, counted from what may be learned; none = no evidence but that of visits.
        own: (q, I), see models.own_pairs.
        seen: (N,) acts that may stand in a history, those to learn from when a model is trained; None = all.
        lent: what items borrow that came after the tables were counted; None = nothing.
    """
    events = split.events
    before = histories(events, acts, tokens, seen)
    mask = before >= 0
    items = np.where(mask, events.items[before], 0).astype(np.int32)
    now_s = events.at_s[acts] if split.time_known else events.at_s[before[:, 0]]
    age_s = np.maximum(now_s[:, None] - events.at_s[before], 0)
    shares = events.shares[before]
    percent = np.where(np.isnan(shares), 0.0, shares) * 100
    watch = np.where(np.isnan(shares), WATCH_SHARES - 1, np.searchsorted(WATCH_EDGES, percent, side="right"))
    points = _points(split)
    near, nearness = _evidence(split, acts, points, tables, own, seen, lent)
    return ContextBatch(
        codes=codes[items] * mask[..., None],
        mask=mask,
        actions=(events.good[before] * mask * _GOOD).astype(np.int32),
        watch=(watch * mask).astype(np.int32),
        age=(np.minimum(2.0 * np.log2(1.0 + age_s), AGE_BUCKETS - 1) * mask).astype(np.int32),
        interests=np.zeros((len(acts), 2, DIM), np.float32),
        place=_place(split, before[:, 0], points, now_s),
        items=items,
        near=near,
        nearness=nearness,
    )


def own_evidence(split: Split, acts: Longs, popularity_power: float, recency: float) -> sparse.csr_array:
    """(q, I) what acts that may be learned from have themselves added to the counts of co-occurrence."""
    events = split.events
    counted = np.flatnonzero(split.learn & events.good)
    ends = np.flatnonzero(np.diff(events.users[counted])) + 1
    sequences = np.split(events.items[counted], ends)
    starts = np.concatenate([[0], ends])
    places = np.searchsorted(counted, acts)
    which = np.searchsorted(starts, places, side="right") - 1
    occurs = np.bincount(events.items[counted], minlength=len(split.items))
    return own_pairs(
        sequences, list(zip(which, places - starts[which], strict=True)), occurs, popularity_power, recency
    )


def learnable(split: Split) -> Longs:
    """The acts that a generator is trained to name: good ones to learn from, with another to learn from before them."""
    acts = np.flatnonzero(split.learn & split.events.good)
    return acts[histories(split.events, acts, 1, split.learn)[:, 0] >= 0]


def _place(split: Split, newest: Longs, points: npt.NDArray[np.float64], now_s: Longs) -> Floats:
    """(q, PLACE_FEATURES) where the user was last and, where it is known, the hour; zeros where items have no place."""
    features = np.zeros((len(newest), PLACE_FEATURES), np.float32)
    if np.isnan(points).all():
        return features
    here = points[split.events.items[newest]]
    known = ~np.isnan(here[:, :1])
    middle = np.nanmean(points, axis=0)
    features[:, KNOWN] = known[:, 0]
    features[:, AREA] = np.where(known, area_features((middle[0], middle[1]), here[:, 0], here[:, 1]), 0.0)
    if split.time_known:
        features[:, HOUR] = hour_features(local_s(now_s, split.zone) * 1000)
    return features


def _evidence(
    split: Split,
    acts: Longs,
    points: npt.NDArray[np.float64],
    tables: Sequence[Neighbours],
    own: sparse.csr_array | None,
    seen: Flags | None,
    lent: Lent | None,
) -> tuple[Ints, Floats]:
    events = split.events
    good = events.good if seen is None else events.good & seen
    before = histories(events, acts, visits.DEPTH, good)
    items = np.where(before >= 0, events.items[before], -1)
    when = visits.Visits(
        visit=(before >= 0) & ~np.isnan(points[items, 0]),
        at_ms=local_s(events.at_s[before], split.zone) * 1000,
        now_ms=local_s(events.at_s[acts], split.zone) * 1000 if split.time_known else None,
    )
    return near_items(items, tables, _not_named(split, acts, seen is None), own, when, lent)


def _points(split: Split) -> npt.NDArray[np.float64]:
    """(I, 2) latitude and longitude, NaN without a place."""
    found = [
        (item.location.latitude, item.location.longitude) if item.HasField("location") else (np.nan, np.nan)
        for item in split.items
    ]
    return np.array(found, np.float64).reshape(-1, 2)


def _not_named(split: Split, acts: Longs, asked: bool) -> list[Ints] | None:
    """Per act the items that are no answer: what the user had, where that is left out, and of acts that are asked for
    what is no candidate."""
    never = np.empty(0, np.int32)
    if asked and split.ranked is not None:
        never = np.flatnonzero(~split.ranked).astype(np.int32)
    if not split.mask_seen:
        return [never] * len(acts) if len(never) else None
    rows, items = seen_pairs(split.events, acts)
    had = np.split(items, np.searchsorted(rows, np.arange(1, len(acts))))
    return [np.concatenate([each, never]) for each in had] if len(never) else had
