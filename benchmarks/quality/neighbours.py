"""Untrained evidence: what stands beside the last items in other people's sequences, and what reads like them."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from scipy import sparse

from benchmarks.quality.models import Model
from benchmarks.quality.split import Floats, Longs, Split, histories
from models.evidence import Neighbours
from models.neighbours import matrix_of

LAST: Final = 20  # acts of the history that are read


class Once:
    """A table of neighbours that is counted once for each split, however many models ask for it."""

    def __init__(self, count: Callable[[Split], Neighbours]) -> None:
        self._count = count
        self._made: tuple[Split, sparse.csr_array] | None = None

    def matrix(self, split: Split) -> sparse.csr_array:
        """(I, I) of the split; of the last split only, for they are large."""
        if self._made is None or self._made[0] is not split:
            self._made = split, matrix_of(self._count(split))
        return self._made[1]


class NeighbourScores:
    """Sum over the last acts of recency^place times the weight of the item as their neighbour.

    Args:
        table: from what may be learned.
        recency: how much less each older act counts.
    """

    def __init__(self, name: str, table: Once, recency: float) -> None:
        self.name = name
        self._table, self._recency = table, recency
        self._matrix: sparse.csr_array | None = None

    def fit(self, split: Split, seed: int) -> None:
        """Takes the table of the split."""
        self._matrix = self._table.matrix(split)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """0 for whatever is no neighbour."""
        assert self._matrix is not None, "fit comes first"
        before = histories(split.events, split.asked[asked], LAST, split.events.good)
        rows, places = np.nonzero(before >= 0)
        pairs = (rows, split.events.items[before[rows, places]])
        weights = (self._recency**places).astype(np.float32)
        read = sparse.csr_array((weights, pairs), shape=(len(asked), len(split.items)))
        return np.asarray((read @ self._matrix).toarray(), np.float32)


class Mixture:
    """A weighted sum of models.

    Args:
        parts: fitted with the mixture.
        weights: one per part.
        shares: whether each answer of a part is first divided by its sum over the items; scores are not negative then.
    """

    def __init__(self, name: str, parts: Sequence[Model], weights: Sequence[float], *, shares: bool = False) -> None:
        self.name = name
        self._parts, self._shares = list(zip(parts, weights, strict=True)), shares

    def fit(self, split: Split, seed: int) -> None:
        """Fits the parts."""
        for part, _ in self._parts:
            part.fit(split, seed)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """The sum."""
        total = np.zeros((len(asked), len(split.items)), np.float32)
        for part, weight in self._parts:
            scores = part.scores(split, asked)
            if self._shares:
                scores = scores / np.maximum(scores.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
            total += np.float32(weight) * scores
        return total


class NewItems:
    """A model whose scores of new items count so many times as much.

    Args:
        model: fitted with it; its scores are not negative.
    """

    def __init__(self, name: str, model: Model, times: float) -> None:
        self.name = name
        self._model, self._times = model, times

    def fit(self, split: Split, seed: int) -> None:
        """Fits the model."""
        self._model.fit(split, seed)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """Those of the model."""
        scores = self._model.scores(split, asked)
        scores[:, len(split.items) - split.new :] *= np.float32(self._times)
        return scores
