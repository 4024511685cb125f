"""What a user model is: given a person and an item, the odds of what would be watched and done.

Letters used in this file
    n exposures (a person, an item, an instant)   W bins of watch share   A kinds of act

One seam for every user model: the one fitted on recorded days (`rl.fitted_users`) and the one of the
synthetic city (`rl.city_users`). The simulator draws acts from it, the gate takes expectations.

A user model is a stated assumption, not the truth: a policy that the gate lets pass is not worse
*under this model*. What it leaves out is said where each model is defined.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from feature_repo.layouts import WATCH_BUCKETS, UserRows
from protos.events.v1.interaction_pb2 import Action
from rl.rewards import BONUSES, DISLIKE_PENALTY, GlobalTable, duration_buckets, table_percentile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

# Shares of an item's length. Bin 0 is "not played"; bin b > 0 is (edge[b-1], edge[b]], spread evenly.
WATCH_EDGES: Final = (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 1.1, 2.0)
WATCH_BINS: Final = len(WATCH_EDGES)
ACTS: Final = (  # the kinds of act a model speaks of besides playing, one column of `Predicted.acts` each
    Action.ACTION_CLICK,
    Action.ACTION_LIKE,
    Action.ACTION_ORDER,
    Action.ACTION_CHECK_IN,
    Action.ACTION_DISLIKE,
)
UNKNOWN_DURATION_MS: Final = 30_000  # how long an item of unknown length is taken to be when watched
_POINTS_PER_BIN: Final = 8  # where a bin's mean percentile is taken


class Viewers(NamedTuple):
    """B people at the moment of a request."""

    user_ids: Sequence[str]
    rows: UserRows  # (B,) as a scorer would read them
    at_ms: npt.NDArray[np.int64]  # (B,) platform clock
    locations: Floats  # (B, 2) latitude and longitude, NaN where unknown


class Predicted(NamedTuple):
    """The odds of n exposures."""

    watch: Floats  # (n, WATCH_BINS) sums to 1
    acts: Floats  # (n, A) probability of each of ACTS


class Responses(NamedTuple):
    """What n exposures led to."""

    watch_share: Floats  # (n,) of the item's length; 0 = not played
    acts: npt.NDArray[np.bool_]  # (n, A)


class UserModel(Protocol):
    """Knows how people respond. Pure: the same viewers and items have the same odds."""

    def predict(self, viewers: Viewers, who: npt.NDArray[np.int64], items: Ints) -> Predicted:
        """The odds of n exposures.

        Args:
            viewers: B people.
            who: (n,) row of `viewers` per exposure.
            items: (n,) catalogue index per exposure.
        """
        ...

    def durations_s(self, items: Ints) -> Floats:
        """Length of items by catalogue index; any shape; -1 where unknown."""
        ...


def draw(predicted: Predicted, rng: np.random.Generator) -> Responses:
    """One response per exposure, drawn with the predicted odds; exposures are independent."""
    count = len(predicted.watch)
    bins = (rng.random((count, 1)) > np.cumsum(predicted.watch, axis=1)).sum(axis=1).clip(max=WATCH_BINS - 1)
    edges = np.asarray(WATCH_EDGES)
    low = edges[np.maximum(bins - 1, 0)]
    share = np.where(bins == 0, 0.0, low + rng.random(count) * (edges[bins] - low))
    return Responses(share, rng.random(predicted.acts.shape) < predicted.acts)


def watch_bins(share: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The bin of each watch share; 0 for what was not played, the last for two replays and more."""
    return np.searchsorted(np.asarray(WATCH_EDGES), np.asarray(share), side="left").clip(max=WATCH_BINS - 1)


def expected_rewards(model: UserModel, viewers: Viewers, slates: Ints, table: GlobalTable) -> npt.NDArray[np.float64]:
    """The reward that `rl.rewards` would give on average, per slot. (B, S); NaN at empty slots.

    The percentile is the global table's, not the person's own: peers move with every play, and an
    estimate must not depend on who was asked first.

    Args:
        slates: (B, S) catalogue index, -1 = empty slot.
    """
    who, _ = np.nonzero(slates >= 0)
    items = slates[slates >= 0]
    predicted = model.predict(viewers, who, items)
    quality = _mean_quality(table)[duration_buckets(model.durations_s(items))]
    weights = np.array([BONUSES[act].value if act in BONUSES else 0.0 for act in ACTS])
    weights[ACTS.index(Action.ACTION_DISLIKE)] = -DISLIKE_PENALTY.value
    result = np.full(slates.shape, np.nan)
    result[slates >= 0] = (predicted.watch * quality).sum(axis=1) + predicted.acts @ weights
    return result


def _mean_quality(table: GlobalTable) -> Floats:
    """(WATCH_BUCKETS + 1, WATCH_BINS): mean percentile of a watch bin per duration bucket; last row unknown.

    A bucket's items are taken to be as long as the middle of the bucket.
    """
    edges = np.asarray(WATCH_EDGES)
    steps = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN
    shares = edges[:-1, None] + steps * np.diff(edges)[:, None]  # (WATCH_BINS - 1, points)
    quality = np.zeros((WATCH_BUCKETS + 1, WATCH_BINS))
    for bucket in range(WATCH_BUCKETS + 1):
        known = bucket < WATCH_BUCKETS
        seconds = 1.5 * 2.0**bucket if known else UNKNOWN_DURATION_MS / 1000.0
        percentiles = table_percentile(table, bucket if known else -1, shares * seconds)
        quality[bucket, 1:] = percentiles.mean(axis=1)
    return quality
