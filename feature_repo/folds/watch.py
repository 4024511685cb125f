"""user_watch: a person's own play times per duration bucket, for duration-aware rewards.

OneRec-V2 (arXiv:2508.20900) §3: a play is judged against the same person's plays of items of similar
length, bucket F(d) = floor(log2(d + 1e-6)) with d in seconds. The paper gives neither the base of the
logarithm, the unit, nor the length of the history: base 2, seconds and the newest WATCH_PEERS plays
are fixed here, because stored buckets are state. Peers are the newest plays in order of the log.

Play times are kept in tenths of a second and compared as kept.
"""

import math
from bisect import bisect_left, bisect_right
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feature_repo.folds.compiled import compiled, signed
from feature_repo.layouts import WATCH_BUCKETS, WATCH_PEERS

Plays: TypeAlias = tuple[tuple[int, ...], ...]  # WATCH_BUCKETS times play_ds, oldest first

UNKNOWN_BUCKET: Final = -1
NO_PLAYS: Final[Plays] = ((),) * WATCH_BUCKETS
_DS_MOST: Final = 0xFFFF
_COUNT_MOST: Final = 0xFFFF_FFFF


class Rank(NamedTuple):
    """Where a play stands among its peers."""

    rank: int  # peers that are <= the play
    peers: int
    ties: int  # peers equal to the play


@compiled
def bucket_of(duration_ms: int) -> int:
    """The duration bucket, 0 .. WATCH_BUCKETS-1; UNKNOWN_BUCKET when the duration is not known."""
    if duration_ms <= 0:
        return UNKNOWN_BUCKET
    return int(min(WATCH_BUCKETS - 1, max(0, math.floor(math.log2(duration_ms / 1000.0 + 1e-6)))))


@compiled
def deciseconds(play_ms: int) -> int:
    """A play time as it is kept and compared."""
    return min(_DS_MOST, (play_ms + 50) // 100)


@compiled
def fold(row: Any, entry: Any) -> None:
    """`row` (WATCH) after an act; unchanged when it is no play or the item's duration is unknown."""
    bucket = bucket_of(entry.duration_ms)
    if entry.play_ms < 0 or bucket == UNKNOWN_BUCKET:
        return
    length = signed(row.length[bucket])
    if length == WATCH_PEERS:
        length -= 1
        for place in range(length):
            row.play_ds[bucket, place] = row.play_ds[bucket, place + 1]
    row.play_ds[bucket, length] = deciseconds(entry.play_ms)
    row.length[bucket] = length + 1
    row.count[bucket] = min(_COUNT_MOST, signed(row.count[bucket]) + 1)
    row.updated_ms = max(row.updated_ms, entry.at_ms)


def plays_of(row: NDArray[np.void] | np.void) -> Plays:
    """The play times that a row holds."""
    lengths = row["length"].tolist()
    return tuple(tuple(peers[:length]) for peers, length in zip(row["play_ds"].tolist(), lengths, strict=True))


def rank(plays: Plays, bucket: int, play_ms: int) -> Rank:
    """Where a play of `play_ms` stands among the user's plays in `bucket`."""
    if bucket == UNKNOWN_BUCKET:
        return Rank(0, 0, 0)
    peers = sorted(plays[bucket])
    play_ds = deciseconds(play_ms)
    not_above = bisect_right(peers, play_ds)
    return Rank(not_above, len(peers), not_above - bisect_left(peers, play_ds))
