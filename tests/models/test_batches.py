"""When two answers to the same requests differ, and by how much."""

import math

import numpy as np
import pytest

from models.batches import Beams, beam_difference


def two_beams(first: float, second: float, items: tuple[int, int] = (7, 8)) -> Beams:
    """One request; each item's three log-probabilities are equal."""
    log_probs = np.array([[[first] * 3, [second] * 3]], np.float32)
    return Beams(
        np.array([items], np.int32),
        np.zeros((1, 2, 3), np.int32),
        log_probs,
        log_probs,
        np.zeros((1, 2), np.float32),
        np.zeros((1, 2, 3), np.float32),
    )


def test_beams_that_swap_at_equal_score_do_not_differ() -> None:
    assert beam_difference(two_beams(-1.0, -1.0), two_beams(-1.0, -1.0, (8, 7))) == 0


def test_another_log_prob_or_another_item_is_a_difference() -> None:
    assert beam_difference(two_beams(-1.0, -2.0), two_beams(-1.0, -2.5)) == pytest.approx(0.5)
    assert beam_difference(two_beams(-1.0, -2.0), two_beams(-1.0, -2.0, (7, 9))) == 0  # the last place, equal score
    assert beam_difference(two_beams(-1.0, -2.0), two_beams(-1.0, -2.0, (9, 8))) == pytest.approx(3.0)
    assert beam_difference(two_beams(-1.0, -2.0), two_beams(-1.0, -np.inf, (7, -1))) == math.inf


def test_dead_beams_are_no_difference() -> None:
    assert beam_difference(two_beams(-1.0, -np.inf, (7, -1)), two_beams(-1.0, -np.inf, (7, -1))) == 0
