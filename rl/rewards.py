"""Outcome to number: how good was it to have shown this item? One file, versioned, pure.

A reward is `quality + bonuses - penalty`:

* quality is the duration-aware percentile of DARS (OneRec-V2, arXiv:2508.20900, duration-aware reward shaping):
  where this play stands among the user's own earlier plays of items about as long. Attribution has
  stamped rank, ties and peers into the outcome as of serving time, so nothing is looked up here and
  nothing later can leak in. Ties count half (mid-rank): with the paper's inclusive `<=` a first play
  or a row of complete plays would all score 1 and no threshold could tell them apart.
* fewer than MIN_PEERS peers say too little about a percentile; then a global table per duration
  bucket decides. The table is fitted once on the training days and frozen under its own digest: the
  same outcome has the same reward in every replay, whatever other users did meanwhile.
* an item that was not played has quality 0. That alone is never a negative: only an explicit
  dislike is.

A changed constant below is a new REWARD_VERSION. Left out: distance and order value. Both stand in
the outcome, and enter with weights once they can be measured on real orders.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import ArtefactError
from feature_repo.layouts import WATCH_BUCKETS
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.outcome_pb2 import Outcome

REWARD_VERSION: Final = 1
MIN_PEERS: Final = 8  # a percentile among fewer moves by more than 1/8 for one play
TABLE_POINTS: Final = 101  # quantiles kept per bucket: whole percents
MIN_TABLE_PLAYS: Final = 200  # plays a bucket needs for a row of its own; else the row of all plays stands in
TOP_SHARE: Final = 0.25  # DARS: the best quarter of a window is positive


class Weight(NamedTuple):
    """What one kind of act adds to a reward, and why."""

    value: float
    reason: str


BONUSES: Final[dict[int, Weight]] = {
    Action.ACTION_CLICK: Weight(0.1, "an interest, cheap to show"),
    Action.ACTION_LIKE: Weight(0.3, "explicit, yet one tap: a third of a full watch"),
    Action.ACTION_COMMENT: Weight(0.3, "costs more than a like, but may be a complaint"),
    Action.ACTION_FOLLOW: Weight(0.5, "the user asks for more of the same author"),
    Action.ACTION_SHARE: Weight(0.5, "the user vouches for it to others"),
    Action.ACTION_ADD_TO_CART: Weight(0.5, "halfway to an order"),
    Action.ACTION_CHECK_IN: Weight(1.0, "the user went there: as good as the best watch"),
    Action.ACTION_ORDER: Weight(1.0, "the user paid: as good as the best watch"),
}
DISLIKE_PENALTY: Final = Weight(1.0, "the explicit negative outweighs any watch: play time before it was not liked")


class GlobalTable(NamedTuple):
    """Play-time quantiles per duration bucket over all users of the training days; frozen."""

    play_s: NDArray[np.float32]  # (WATCH_BUCKETS + 1, TABLE_POINTS) ascending; the last row is all plays

    def digest(self) -> str:
        """Identity of the table: reward version and content."""
        return hashlib.sha256(bytes([REWARD_VERSION]) + self.play_s.tobytes()).hexdigest()[:16]


class Rewards(NamedTuple):
    """Rewards of N outcomes, in their order."""

    reward: NDArray[np.float32]  # (N,) quality + bonuses - penalty
    quality: NDArray[np.float32]  # (N,) duration-aware percentile, 0 .. 1
    disliked: NDArray[np.bool_]  # (N,) the explicit negative
    from_table: NDArray[np.bool_]  # (N,) played, and the global table decided


def duration_buckets(duration_s: ArrayLike) -> NDArray[np.int64]:
    """`floor(log2(duration + 1e-6))` clipped to the buckets of the watch view; -1 where not positive."""
    seconds = np.asarray(duration_s, dtype=np.float64)
    bucket = np.floor(np.log2(np.maximum(seconds, 0.0) + 1e-6)).astype(np.int64)
    return np.where(seconds > 0, np.clip(bucket, 0, WATCH_BUCKETS - 1), -1)


def fit_global_table(duration_s: ArrayLike, play_s: ArrayLike) -> GlobalTable:
    """The table of the given plays, seconds; not-played exposures are to be left out by the caller.

    Raises:
        ValueError: there are no plays at all.
    """
    buckets, plays = duration_buckets(duration_s), np.asarray(play_s, dtype=np.float64)
    if not len(plays):
        raise ValueError("found no plays, expected the plays of the training days; the table cannot be empty")
    points = np.linspace(0.0, 1.0, TABLE_POINTS)
    rows = np.tile(np.quantile(plays, points), (WATCH_BUCKETS + 1, 1))
    for bucket in range(WATCH_BUCKETS):
        own = plays[buckets == bucket]
        if len(own) >= MIN_TABLE_PLAYS:
            rows[bucket] = np.quantile(own, points)
    return GlobalTable(rows.astype(np.float32))


def save_global_table(table: GlobalTable, path: Path) -> None:
    """Write the table with the reward version it belongs to."""
    np.savez(path, play_s=table.play_s, reward_version=np.int64(REWARD_VERSION))


def load_global_table(path: Path) -> GlobalTable:
    """Read a table.

    Raises:
        ArtefactError: the file is missing, damaged or of another reward version.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            version, play_s = int(stored["reward_version"]), stored["play_s"]
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ArtefactError(f"{path}: not a reward table ({error}); fit and publish one again") from None
    if version != REWARD_VERSION or play_s.shape != (WATCH_BUCKETS + 1, TABLE_POINTS):
        raise ArtefactError(
            f"{path}: found reward version {version} and shape {play_s.shape}, expected {REWARD_VERSION} and "
            f"{(WATCH_BUCKETS + 1, TABLE_POINTS)}; fit the table again"
        )
    return GlobalTable(play_s.astype(np.float32))


def mid_rank(rank: ArrayLike, ties: ArrayLike, peers: ArrayLike) -> NDArray[np.float64]:
    """Percentile 0 .. 1 of a play with `rank` peers at or below it, `ties` of them equal; NaN without peers."""
    ranks, tied, count = (np.asarray(values, dtype=np.float64) for values in (rank, ties, peers))
    return np.where(count > 0, (ranks - tied / 2.0) / np.maximum(count, 1.0), np.nan)


def table_percentile(table: GlobalTable, bucket: ArrayLike, play_s: ArrayLike) -> NDArray[np.float64]:
    """Percentile 0 .. 1 of plays in the global table, ties counted half. Bucket -1 reads the row of all plays.

    Between two quantiles the percentile is interpolated; inside a run of equal quantiles (many plays
    of exactly 0 s) it is the middle of the run.
    """
    buckets, plays = np.broadcast_arrays(np.asarray(bucket, dtype=np.int64), np.asarray(play_s, dtype=np.float32))
    result = np.empty(plays.shape, dtype=np.float64)
    points = np.linspace(0.0, 1.0, TABLE_POINTS)
    for row in np.unique(buckets):
        quantiles, chosen = table.play_s[row], buckets == row
        own = plays[chosen]
        below = np.searchsorted(quantiles, own, side="left")
        above = np.searchsorted(quantiles, own, side="right")
        middle = points[np.minimum(below, TABLE_POINTS - 1)] + points[np.maximum(above - 1, 0)]
        exact = above > below
        result[chosen] = np.where(exact, middle / 2.0, np.interp(own, quantiles, points))
    return result


def rewards(outcomes: Sequence[Outcome], table: GlobalTable) -> Rewards:
    """The rewards of `outcomes`, each a pure function of that outcome and the frozen table."""
    count = len(outcomes)
    played = np.fromiter((outcome.HasField("play_ms") for outcome in outcomes), np.bool_, count)
    play_s = np.fromiter((outcome.play_ms for outcome in outcomes), np.float64, count) / 1000.0
    bucket = np.fromiter((outcome.duration_bucket for outcome in outcomes), np.int64, count)
    peers = np.fromiter((outcome.peers for outcome in outcomes), np.int64, count)
    rank = np.fromiter((outcome.rank for outcome in outcomes), np.int64, count)
    ties = np.fromiter((outcome.ties for outcome in outcomes), np.int64, count)
    disliked = np.fromiter((outcome.disliked for outcome in outcomes), np.bool_, count)
    bonus = np.fromiter(
        (sum(BONUSES[action].value for action in outcome.actions if action in BONUSES) for outcome in outcomes),
        np.float64,
        count,
    )

    from_table = played & ((peers < MIN_PEERS) | (bucket < 0))
    quality = np.zeros(count)
    quality[played] = mid_rank(rank, ties, peers)[played]
    quality[from_table] = table_percentile(table, bucket[from_table], play_s[from_table])
    reward = quality + bonus - DISLIKE_PENALTY.value * disliked
    return Rewards(reward.astype(np.float32), quality.astype(np.float32), disliked, from_table)


def threshold(reward: NDArray[np.float32]) -> float:
    """tau of one window of outcomes: above it lies the best quarter, or as near as ties allow.

    Rewards are discrete. When more than a quarter of the window shares the best value, the plain
    quantile equals that value and selects nobody (tie collapse); then tau is the next lower value, so
    that the tied best are all selected. A window of one single value has nothing above it: `inf`.
    """
    if not len(reward):
        return float("inf")
    tau = float(np.quantile(reward, 1.0 - TOP_SHARE, method="lower"))
    if np.any(reward > tau):
        return tau
    lower = reward[reward < tau]
    return float(lower.max()) if len(lower) else float("inf")


def advantages(reward: NDArray[np.float32], disliked: NDArray[np.bool_], tau: float) -> NDArray[np.float32]:
    """+1 for the best of the window, -1 for an explicit dislike, 0 for the rest. (N,) float32

    Source: DARS, OneRec-V2 (arXiv:2508.20900). Kept: assigned directly, no mean or deviation;
    short play alone is never a negative. Ours: bonuses count before the threshold, and tau belongs to
    a stated window (the outcomes of one update), so that a replay gives the same labels.
    """
    positive = (reward > tau) & ~disliked
    return positive.astype(np.float32) - disliked.astype(np.float32)
