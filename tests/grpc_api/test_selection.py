"""Laws of the explored draw, held against plain enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_api.selection import draw, slot_log_probs

SCORES = st.lists(st.floats(-30.0, 0.0, width=32), min_size=1, max_size=5).map(np.array)
TEMPERATURES = st.floats(0.2, 3.0)


def plain(scores: np.ndarray, order: tuple[int, ...], temperature: float) -> float:
    """The definition, slot by slot, with exact sums."""
    weights = [math.exp(score / temperature) for score in scores]
    left, total = set(range(len(scores))), 0.0
    for chosen in order:
        total += math.log(weights[chosen] / math.fsum(weights[i] for i in left))
        left.remove(chosen)
    return total


@given(SCORES, TEMPERATURES, st.integers(1, 5))
def test_probabilities_of_all_ordered_slates_sum_to_one(scores: np.ndarray, temperature: float, slots: int) -> None:
    slates = itertools.permutations(range(len(scores)), min(slots, len(scores)))
    total = math.fsum(math.exp(slot_log_probs(scores, slate, temperature).sum()) for slate in slates)
    assert total == pytest.approx(1.0, abs=1e-9)


@given(SCORES, TEMPERATURES, st.integers(1, 5), st.integers(0, 2**32))
def test_logged_probability_is_that_of_the_definition(
    scores: np.ndarray, temperature: float, slots: int, seed: int
) -> None:
    drawn = draw(scores, slots, np.random.default_rng(seed), temperature)
    assert len(set(drawn.order)) == len(drawn.order) == min(slots, len(scores))
    assert drawn.slate_log_prob == pytest.approx(plain(scores, tuple(drawn.order), temperature), rel=1e-9, abs=1e-9)
    assert drawn.slot_log_probs.sum() == drawn.slate_log_prob
    assert (drawn.slot_log_probs <= 0.0).all()


def test_slates_come_as_often_as_their_probability_says() -> None:
    scores = np.log(np.array([0.6, 0.3, 0.1]))
    rng = np.random.default_rng(11)
    draws = 20_000
    seen = dict.fromkeys(itertools.permutations(range(3), 2), 0)
    for _ in range(draws):
        seen[tuple(draw(scores, 2, rng).order)] += 1
    for order, count in seen.items():
        expected = math.exp(plain(scores, order, 1.0))
        assert count / draws == pytest.approx(expected, abs=4 * math.sqrt(expected / draws))


def test_far_apart_scores_do_not_underflow() -> None:
    log_probs = slot_log_probs(np.array([0.0, -2000.0, -1000.0]), [0, 2, 1])
    assert log_probs == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    assert slot_log_probs(np.array([0.0, -1000.0]), [1, 0]) == pytest.approx([-1000.0, 0.0])


def test_a_lone_candidate_is_certain() -> None:
    drawn = draw(np.array([-3.0]), 5, np.random.default_rng(0))
    assert drawn.order == [0]
    assert drawn.slate_log_prob == 0.0
