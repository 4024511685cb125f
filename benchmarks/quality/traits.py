"""What people alike take: popularity, moved by what is published of the user.

Letters used in this file
    I items   F traits   V values of a trait   b asked acts
"""

from typing import Final

import numpy as np

from benchmarks.quality.popularity import DAY_S
from benchmarks.quality.split import Floats, Longs, Split
from core.errors import InputError

_PRIOR: Final = 300.0  # acts of everybody that stand beside those of people alike


class Traits:
    """P(item), times what each trait of the user makes of it: a naive Bayes whose evidence is tempered, since traits
    that go together would else be counted twice.

    Args:
        half_life_days: of an act's weight, as in recent popularity.
        weight: of the sum over the traits, on the scale of logarithms.
    """

    name = "popularity-traits"

    def __init__(self, half_life_days: float, weight: float) -> None:
        self._half_life_s, self._weight = half_life_days * DAY_S, weight
        self._popular = np.empty(0, np.float32)  # (I,) logarithms
        self._moved: list[Floats] = []  # of each trait, (V, I)

    def fit(self, split: Split, seed: int) -> None:
        """Counts.

        Raises:
            InputError: the protocol says nothing of users.
        """
        traits = _traits(split)
        kept = split.learn & split.events.good
        at_s, items, users = split.events.at_s[kept], split.events.items[kept], split.events.users[kept]
        weights = 0.5 ** ((at_s.max(initial=0) - at_s) / self._half_life_s)
        counts = 1.0 + np.bincount(items, weights, len(split.items))
        shares = counts / counts.sum()
        self._popular = np.log(shares).astype(np.float32)
        self._moved = []
        for column in traits.T:
            values, known = column[users], column[users] >= 0
            pairs = values[known].astype(np.int64) * len(shares) + items[known]
            size = int(column.max(initial=-1)) + 1
            found = np.bincount(pairs, weights[known], size * len(shares)).reshape(size, len(shares))
            alike = (found + _PRIOR * shares) / (found.sum(axis=1, keepdims=True) + _PRIOR)
            self._moved.append((np.log(alike) - np.log(shares)).astype(np.float32))

    def scores(self, split: Split, asked: Longs) -> Floats:
        """(b, I) shares."""
        traits = _traits(split)[split.events.users[split.asked[asked]]]
        odds = np.repeat(self._popular[None], len(asked), axis=0)
        for column, moved in zip(traits.T, self._moved, strict=True):
            known = column >= 0
            odds[known] += np.float32(self._weight) * moved[column[known]]
        shares: Floats = np.exp(odds - odds.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares


def _traits(split: Split) -> Longs:
    if split.traits is None:
        raise InputError(f"{split.protocol}: found nothing said of users; ask a protocol with a snapshot of users")
    return split.traits
