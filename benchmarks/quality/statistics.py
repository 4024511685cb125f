"""How sure a figure is: resampling of users for the tests, seeds for the training, Holm's rule for many comparisons.

Letters used in this file
    U users   R resamples   C comparisons

A user may be asked for more than once, so users are drawn and not acts. A metric is a sum over a user's acts divided by
their number, both over the users drawn.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (percentile intervals); Holm, Scand. J. Statist. 1979.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES: Final = 2_000
LEVEL: Final = 0.95
_AT_ONCE: Final = 100

Doubles = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and where it lies with LEVEL certainty."""

    mean: float
    low: float
    high: float
    p: float  # two-sided: twice the share of resamples on the other side of 0, at least 1 / (R + 1)


class UserSums(NamedTuple):
    """A metric's ingredients per user, in one order of users."""

    sums: Doubles  # (U,)
    counts: Doubles  # (U,) what they are divided by


def by_user(values: Doubles, users: npt.NDArray[np.integer], weights: Doubles | None = None) -> UserSums:
    """Sums of the users that occur, ordered by user.

    Args:
        values: one per act, or NaN = the act has no value and does not count.
        weights: how much each act counts; None = all alike.
    """
    _, places = np.unique(users, return_inverse=True)
    counted = np.isfinite(values)
    heavy = counted.astype(np.float64) if weights is None else np.where(counted, weights, 0.0)
    count = int(places.max(initial=-1)) + 1
    sums = np.bincount(places, np.where(counted, values, 0.0) * heavy, count).astype(np.float64)
    return UserSums(sums, np.bincount(places, heavy, count).astype(np.float64))


def value_of(metric: UserSums) -> float:
    """The metric on the users as they are."""
    return float(_ratio(metric.sums.sum(), metric.counts.sum()))


def resampled(metrics: Sequence[UserSums], seed: int) -> list[Doubles]:
    """Per metric (R,) its value on users drawn with replacement: all on the same draws, so that differences are paired.

    Raises:
        ValueError: the metrics are not of the same users.
    """
    users = len(metrics[0].sums)
    if any(len(metric.sums) != users for metric in metrics):
        raise ValueError("found metrics of different users, expected several answers to one question")
    columns = np.stack([column for metric in metrics for column in metric], axis=1)
    times = _times_drawn(users, seed)
    totals = np.concatenate([times[at : at + _AT_ONCE] @ columns for at in range(0, RESAMPLES, _AT_ONCE)])
    return [_ratio(totals[:, 2 * one], totals[:, 2 * one + 1]) for one in range(len(metrics))]


def interval(mean: float, drawn: Doubles) -> Interval:
    """Percentiles of the resamples around the mean."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    other = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Interval(mean, float(low), float(high), float(min(1.0, (2 * other + 1) / (len(drawn) + 1))))


def mean_of_seeds(runs: Sequence[UserSums]) -> UserSums:
    """Per user the mean over runs with different seeds."""
    return UserSums(np.mean([run.sums for run in runs], axis=0), runs[0].counts)


def holm(p_values: Sequence[float]) -> list[float]:
    """(C) adjusted p-values, in the given order: one below a level holds at that level beside all the others."""
    adjusted = np.empty(len(p_values))
    order = np.argsort(p_values, kind="stable")
    least = 0.0
    for place, comparison in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[comparison]))
        adjusted[comparison] = least
    return [float(value) for value in adjusted]


@lru_cache(maxsize=4)
def _times_drawn(users: int, seed: int) -> npt.NDArray[np.uint8]:
    """(R, U) how often each resample holds each user."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(users, size=users) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=users).astype(np.uint8) for draw in draws])


def _ratio(sums: npt.ArrayLike, counts: npt.ArrayLike) -> Doubles:
    above, below = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
