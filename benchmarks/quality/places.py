"""Where people go again: their visits counted by recency, hour of week and what they did after the last place.

Each act of the history gives weight to its own place: one part for having been there, one that fades with its age in
acts, one for the same hour of the week, one when the act before it was at the place where the user is now. Two more
parts know other people: where they went from the last place, and what is popular.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy import sparse

from benchmarks.quality.split import Floats, Longs, Split, histories, local_s
from models.item_vectors import positions_km

_LAST: Final = 400  # acts of the history that are read: more than all but a few users have
_HOUR_S: Final = 3_600
_DAY_S: Final = 24 * _HOUR_S


@dataclass(frozen=True)
class VisitWeights:
    """How much each part counts; the visit counter alone has weight on `visit`."""

    visit: float = 1.0
    recent: float = 0.0
    hour: float = 0.0
    again: float = 0.0
    """Of what the user did after being where they are now."""
    others: float = 0.0
    """Of what everybody did after the last place."""
    popular: float = 0.01
    fade: float = 0.9
    """How much less each older act counts in `recent`."""


class Visits:
    """A weighted count of the user's own history; see the module."""

    def __init__(self, name: str, weights: VisitWeights) -> None:
        self.name = name
        self._weights = weights
        self._popular = np.empty(0, np.float32)
        self._moves: sparse.csr_array | None = None

    def fit(self, split: Split, seed: int) -> None:
        """Counts what everybody did."""
        kept = np.flatnonzero(split.learn & split.events.good)
        users, items = split.events.users[kept], split.events.items[kept]
        counts = np.bincount(items, minlength=len(split.items))
        self._popular = (counts / max(counts.max(initial=0), 1)).astype(np.float32)
        follows = users[1:] == users[:-1]
        moves = (np.ones(follows.sum(), np.float32), (items[:-1][follows], items[1:][follows]))
        table = sparse.coo_array(moves, shape=(len(split.items),) * 2).tocsr()
        leaving = np.maximum(np.asarray(table.sum(axis=1)).ravel(), 1.0)
        self._moves = (sparse.diags_array(1 / leaving) @ table).tocsr().astype(np.float32)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """Sums of the parts; each part's weights sum to at most 1 over a history."""
        assert self._moves is not None, "fit comes first"
        acts, weights = split.asked[asked], self._weights
        before = histories(split.events, acts, _LAST, split.events.good)
        known = before >= 0
        length = np.maximum(known.sum(axis=1, keepdims=True), 1)
        places = np.where(known, split.events.items[before], -1)
        here = places[:, :1]
        after_here = np.zeros(known.shape)
        after_here[:, :-1] = (places[:, 1:] == here) & known[:, 1:]
        each = weights.visit / length + weights.again * after_here / np.maximum(after_here.sum(1, keepdims=True), 1)
        each = each + weights.recent * (1 - weights.fade) * weights.fade ** np.arange(_LAST)
        if weights.hour and split.time_known:
            near = _hour_likeness(split, acts, before)
            each = each + weights.hour * near / np.maximum((near * known).sum(1, keepdims=True), 1.0)
        rows, columns = np.nonzero(known)
        scores = np.tile(np.float32(weights.popular) * self._popular, (len(acts), 1))
        np.add.at(scores, (rows, places[rows, columns]), each[rows, columns].astype(np.float32))
        left = known[:, 0]
        scores[left] += np.float32(weights.others) * self._moves[here[left, 0]].toarray()
        return scores


class Near:
    """The nearer to where the user was last, the better; after an act without a place, no item is ranked."""

    name = "near"

    def __init__(self) -> None:
        self._points = np.empty((0, 3))

    def fit(self, split: Split, seed: int) -> None:
        """Learns nothing: looks up where the places are."""
        placed = [row for row, item in enumerate(split.items) if item.HasField("location")]
        self._points = np.full((len(split.items), 3), np.nan)
        if placed:
            self._points[placed] = positions_km([split.items[row] for row in placed])

    def scores(self, split: Split, asked: Longs) -> Floats:
        """Minus the distance in km, through the earth."""
        newest = histories(split.events, split.asked[asked], 1)[:, 0]
        here = np.where(newest[:, None] >= 0, self._points[split.events.items[newest]], np.nan)
        away = np.linalg.norm(here[:, None] - self._points, axis=2)
        return np.where(np.isnan(away), -np.inf, -away).astype(np.float32)


class _When(NamedTuple):
    hour: Floats  # of the day, 0 .. 24
    weekend: Longs


def _hour_likeness(split: Split, acts: Longs, before: Longs) -> Floats:
    """(b, L) 0 .. 1: how near in the hour of the day, half as much from a weekday to a weekend."""
    asked, past = _when(split, acts), _when(split, np.maximum(before, 0))
    apart = np.abs(asked.hour[:, None] - past.hour)
    apart = np.minimum(apart, 24 - apart)
    same = np.where(asked.weekend[:, None] == past.weekend, 1.0, 0.5)
    return np.asarray(np.exp(-((apart / 1.5) ** 2) / 2) * same, np.float32)


def _when(split: Split, acts: Longs) -> _When:
    at_s = local_s(split.events.at_s[acts], split.zone)
    day = at_s // _DAY_S
    return _When((at_s % _DAY_S / _HOUR_S).astype(np.float32), ((day + 3) % 7 >= 5).astype(np.int64))
