"""Intervals hold what they should, pairs are paired, and many comparisons are judged together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.statistics import UserSums, by_user, holm, interval, mean_of_seeds, resampled, value_of


def alike(values: np.ndarray) -> UserSums:
    return UserSums(values.astype(np.float64), np.ones(len(values)))


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    metric = alike(np.random.default_rng(1).random(900))
    found = interval(value_of(metric), resampled([metric], 0)[0])
    error = metric.sums.std() / 30
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.15 * error)


def test_a_difference_of_pairs_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(400)
    one, other = alike(hard + 0.02 + 0.01 * rng.random(400)), alike(hard)
    ours, theirs = resampled([one, other], 0)
    gain = interval(value_of(one) - value_of(other), ours - theirs)
    assert 0 < gain.low < gain.high
    assert gain.p < 0.01
    assert interval(value_of(one), ours).low < interval(value_of(other), theirs).high


def test_nothing_gained_is_not_significant() -> None:
    one = alike(np.random.default_rng(3).random(300))
    ours, theirs = resampled([one, one], 0)
    assert interval(0.0, ours - theirs).p == 1.0


def test_users_with_many_acts_are_drawn_whole() -> None:
    values, users = np.array([1.0, 1.0, 0.0, np.nan]), np.array([7, 7, 9, 9])
    metric = by_user(values, users)
    assert metric.sums.tolist() == [2.0, 0.0]
    assert metric.counts.tolist() == [2.0, 1.0]
    assert value_of(metric) == pytest.approx(2 / 3)
    assert set(np.round(resampled([metric], 0)[0], 6)) <= {0.0, 0.666667, 1.0}


def test_seeds_are_averaged_user_by_user() -> None:
    mean = mean_of_seeds([alike(np.array([0.0, 1.0])), alike(np.array([1.0, 1.0]))])
    assert mean.sums.tolist() == [0.5, 1.0]


def test_metrics_of_different_users_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different users"):
        resampled([alike(np.ones(2)), alike(np.ones(3))], 0)


def test_holm_gives_the_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_flatters(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(one >= p for one, p in zip(adjusted, p_values, strict=True))
    assert max(adjusted) <= 1
    for one in range(len(p_values)):
        for other in range(len(p_values)):
            assert p_values[one] > p_values[other] or adjusted[one] <= adjusted[other]
