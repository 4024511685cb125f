"""What everybody takes, what everybody takes lately, and what this user took before."""

from typing import Final

import numpy as np

from benchmarks.quality.split import Floats, Longs, Split, histories

DAY_S: Final = 86_400.0
_TIE: Final = 1e-6  # of the largest count: orders what a personal count leaves equal


class Popularity:
    """Good acts per item, decayed by their age at the end of what may be learned from.

    Args:
        half_life_days: infinity = plain counts.
    """

    def __init__(self, half_life_days: float = np.inf) -> None:
        self.name = "popularity" if np.isinf(half_life_days) else "popularity-recent"
        self._half_life_s = half_life_days * DAY_S
        self._counts = np.empty(0, np.float32)

    def fit(self, split: Split, seed: int) -> None:
        """Counts."""
        kept = split.learn & split.events.good
        at_s = split.events.at_s[kept]
        weights = 0.5 ** ((at_s.max(initial=0) - at_s) / self._half_life_s)
        self._counts = np.bincount(split.events.items[kept], weights, len(split.items)).astype(np.float32)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """The same for everybody."""
        return np.repeat(self._counts[None], len(asked), axis=0)


class PersonalPopularity:
    """How often the user took each item before, newer times counting more; then what everybody takes.

    Args:
        recency: weight of an act by its place before the newest, to this power; 1 = plain counts.
    """

    name = "popularity-personal"

    def __init__(self, recency: float = 1.0, last: int = 200) -> None:
        self._recency, self._last = recency, last
        self._everybody = Popularity()

    def fit(self, split: Split, seed: int) -> None:
        """Counts."""
        self._everybody.fit(split, seed)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """The user's own count, and a share of everybody's that only orders equals."""
        scores = self._everybody.scores(split, asked)
        scores *= _TIE / max(float(scores.max(initial=0)), 1.0)
        before = histories(split.events, split.asked[asked], self._last, split.events.good)
        rows, places = np.nonzero(before >= 0)
        np.add.at(scores, (rows, split.events.items[before[rows, places]]), self._recency**places)
        return scores


class Rate:
    """Share of an item's exposures that turned out good, drawn to the mean of all by `prior` exposures."""

    name = "rate"

    def __init__(self, prior: float) -> None:
        self._prior = prior
        self._rates = np.empty(0, np.float32)

    def fit(self, split: Split, seed: int) -> None:
        """Counts the exposures of the log; of lists from before it no outcome is known beside their order."""
        shown = split.events.items[split.learn]
        good = split.events.items[split.learn & split.events.good]
        shows, goods = (np.bincount(items, minlength=len(split.items)) for items in (shown, good))
        mean = len(good) / max(len(shown), 1)
        self._rates = ((goods + self._prior * mean) / (shows + self._prior)).astype(np.float32)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """The same for everybody."""
        return np.repeat(self._rates[None], len(asked), axis=0)
