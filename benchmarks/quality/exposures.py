"""How well what was really shown is ordered: user-level AUC and nDCG over each user's exposures.

The exposures are those of another policy: a figure says how like the outcomes the scores are ordered among what that
policy showed, and is no policy's value.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.quality.split import Floats, Longs, Split
from benchmarks.quality.statistics import Doubles, UserSums


def exposure_measures(split: Split, scores: Floats) -> Iterator[tuple[str, UserSums]]:
    """GAUC weighs users by their exposures and leaves out those whose outcomes are all alike; nDCG counts users alike.

    `long_view` is Events.good; `play` is Events.shares, each act's play time as a percentile among like lengths, and a
    pair of exposures counts when their percentiles differ.
    """
    users = split.events.users[split.asked]
    good = split.events.good[split.asked].astype(np.float64)
    share = split.events.shares[split.asked].astype(np.float64)
    bounds = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
    ends = np.append(bounds[1:], len(users))
    for name, gains in (("long_view", good), ("play", np.nan_to_num(share))):
        found = [_of_user(scores[one:end], gains[one:end]) for one, end in zip(bounds, ends, strict=True)]
        auc, ndcg = (np.array(column, np.float64) for column in zip(*found, strict=True))
        sizes = (ends - bounds).astype(np.float64)
        counted = np.isfinite(auc)
        yield f"gauc {name}", UserSums(np.where(counted, auc, 0.0) * sizes, np.where(counted, sizes, 0.0))
        counted = np.isfinite(ndcg)
        yield f"ndcg {name}", UserSums(np.where(counted, ndcg, 0.0), counted.astype(np.float64))


def _of_user(scores: Floats, gains: Doubles) -> tuple[float, float]:
    """(AUC, nDCG) of one user's exposures; NaN where their gains are all alike. Ties of scores count against us."""
    if gains.min() == gains.max():
        return float("nan"), float("nan")
    better = gains[:, None] > gains[None, :]
    auc = float((scores[:, None] > scores[None, :])[better].mean())
    order = np.lexsort((gains, -scores))  # of equal scores the lesser gain first
    discount = 1 / np.log2(np.arange(2, len(gains) + 2))
    return auc, float((gains[order] * discount).sum() / (np.sort(gains)[::-1] * discount).sum())


def percentiles_among_like(play_s: Doubles, length_s: Doubles, counted: Longs) -> Floats:
    """(N,) share of like-long acts with at most as much play; NaN where the length is unknown.

    Args:
        play_s: (N,) time played.
        length_s: (N,) of the video; 0 = unknown.
        counted: acts whose distribution is taken: those that may be learned from.
    """
    buckets = np.floor(2 * np.log2(np.maximum(length_s, 1.0))).astype(np.int64)
    shares = np.full(len(play_s), np.nan, np.float32)
    for bucket in np.unique(buckets[length_s > 0]):
        members = np.flatnonzero((buckets == bucket) & (length_s > 0))
        known = np.sort(play_s[np.intersect1d(members, counted)])
        if len(known):
            shares[members] = np.searchsorted(known, play_s[members], side="right") / len(known)
    return shares
