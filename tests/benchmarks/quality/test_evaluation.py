"""Ranks count ties against the model, and one pass tells both ranks: with seen items and without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.evaluation import evaluate
from benchmarks.quality.split import Floats, Longs, Split
from core.errors import ContractError
from models.metrics import NOT_RANKED
from tests.benchmarks.quality.worlds import ITEMS, walks


class Table:
    """Says what it was given."""

    name = "table"

    def __init__(self, scores: Floats) -> None:
        self.table = scores

    def fit(self, split: Split, seed: int) -> None:
        """Nothing to learn."""

    def scores(self, split: Split, asked: Longs) -> Floats:
        """The rows asked for."""
        return self.table[asked]


def plain_rank(scores: list[float], target: int, left_out: set[int]) -> int:
    if scores[target] == -np.inf or target in left_out:
        return int(NOT_RANKED)
    others = [score for item, score in enumerate(scores) if item != target and item not in left_out]
    return 1 + sum(score >= scores[target] for score in others)


@given(st.integers(0, 1000), st.booleans())
def test_ranks_are_those_of_a_plain_loop(seed: int, few: bool) -> None:
    split = walks(seed, steps=4)
    rng = np.random.default_rng(seed)
    if few:
        split = split._replace(ranked=rng.random(ITEMS) < 0.7)
    scores = rng.integers(0, 4, (len(split.asked), ITEMS)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    found = evaluate(Table(scores), split, batch=7)
    if split.ranked is not None:
        scores[:, ~split.ranked] = -np.inf
    for row, act in enumerate(split.asked):
        own = scores[row].tolist()
        target = int(split.events.items[act])
        seen = {int(split.events.items[other]) for other in range(act - 3, act)}
        assert found.ranks[row] == plain_rank(own, target, set())
        assert found.ranks_masked[row] == plain_rank(own, target, seen)


def test_a_model_that_says_the_same_of_everything_is_last() -> None:
    split = walks()
    found = evaluate(Table(np.zeros((len(split.asked), ITEMS), np.float32)), split)
    assert (found.ranks == ITEMS).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(broken: float) -> None:
    split = walks()
    scores = np.zeros((len(split.asked), ITEMS), np.float32)
    scores[0, 0] = broken
    with pytest.raises(ContractError, match="not finite"):
        evaluate(Table(scores), split)
