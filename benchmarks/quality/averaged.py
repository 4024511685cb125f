"""Several trainings of one model asked together: each has codes of its own, so their mistakes differ.

What it costs is what the parts cost: as many trainings, graphs and answers.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.quality.models import Model
from benchmarks.quality.split import Floats, Longs, Split


class Averaged:
    """The mean of the parts' distributions over items, where -inf is no item at all.

    Args:
        parts: scores are log-odds; part k of n is trained with seed n * seed + k.
    """

    def __init__(self, name: str, parts: Sequence[Model]) -> None:
        self.name = name
        self._parts = parts

    def fit(self, split: Split, seed: int) -> None:
        """Trains every part."""
        for place, part in enumerate(self._parts):
            part.fit(split, len(self._parts) * seed + place)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """Log of the mean probability."""
        odds = [_softmax(part.scores(split, asked)) for part in self._parts]
        with np.errstate(divide="ignore"):  # what no part has found
            return np.log(np.mean(odds, axis=0, dtype=np.float32), dtype=np.float32)


def _softmax(scores: Floats) -> Floats:
    """Rows that sum to 1, or to 0 where nothing was found."""
    best = scores.max(axis=1, keepdims=True)
    weights: Floats = np.exp(scores - np.where(np.isneginf(best), 0, best))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    return weights
