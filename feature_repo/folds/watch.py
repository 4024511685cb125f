"""user_watch: a person's own play times per duration bucket, for duration-aware rewards.

OneRec-V2 (arXiv:2508.20900) §3: a play is judged against the same person's plays of items of similar
length, bucket F(d) = floor(log2(d + 1e-6)) with d in seconds. The paper gives neither the base of the
logarithm, the unit, nor the length of the history: base 2, seconds and the newest WATCH_PEERS plays
are fixed here, because stored buckets are state. Peers are the newest plays in order of the log.

Play times are kept in tenths of a second and compared as kept; they are rounded as they are folded.
"""

import math
import struct
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple, TypeAlias

from feature_repo.folds.act import Act
from feature_repo.layouts import WATCH_BUCKETS, WATCH_PEERS

Plays: TypeAlias = tuple[tuple[int, ...], ...]  # WATCH_BUCKETS times play_ds, oldest first

UNKNOWN_BUCKET: Final = -1
_DS_MOST: Final = 0xFFFF
_COUNT_MOST: Final = 0xFFFF_FFFF
_ROW: Final = struct.Struct(f"<q{WATCH_BUCKETS}I{WATCH_BUCKETS}B{WATCH_BUCKETS * WATCH_PEERS}H")


class WatchState(NamedTuple):
    """One row, opened."""

    updated_ms: int
    counts: tuple[int, ...]  # (WATCH_BUCKETS,) plays ever
    plays: Plays


class Rank(NamedTuple):
    """Where a play stands among its peers."""

    rank: int  # peers that are <= the play
    peers: int
    ties: int  # peers equal to the play


EMPTY: Final = WatchState(0, (0,) * WATCH_BUCKETS, ((),) * WATCH_BUCKETS)


def bucket_of(duration_ms: int) -> int:
    """The duration bucket, 0 .. WATCH_BUCKETS-1; UNKNOWN_BUCKET when the duration is not known."""
    if duration_ms <= 0:
        return UNKNOWN_BUCKET
    return min(WATCH_BUCKETS - 1, max(0, math.floor(math.log2(duration_ms / 1000.0 + 1e-6))))


def deciseconds(play_ms: int) -> int:
    """A play time as it is kept and compared."""
    return min(_DS_MOST, (play_ms + 50) // 100)


def fold(state: WatchState, act: Act) -> WatchState:
    """The state after `act`; unchanged when it is no play or the item's duration is unknown."""
    bucket = bucket_of(act.duration_ms)
    if act.play_ms < 0 or bucket == UNKNOWN_BUCKET:
        return state
    counts, plays = list(state.counts), list(state.plays)
    counts[bucket] = min(_COUNT_MOST, counts[bucket] + 1)
    plays[bucket] = (*plays[bucket], deciseconds(act.play_ms))[-WATCH_PEERS:]
    return WatchState(max(state.updated_ms, act.at_ms), tuple(counts), tuple(plays))


def rank(plays: Plays, bucket: int, play_ms: int) -> Rank:
    """Where a play of `play_ms` stands among the user's plays in `bucket`."""
    if bucket == UNKNOWN_BUCKET:
        return Rank(0, 0, 0)
    peers = sorted(plays[bucket])
    play_ds = deciseconds(play_ms)
    not_above = bisect_right(peers, play_ds)
    return Rank(not_above, len(peers), not_above - bisect_left(peers, play_ds))


def pack(state: WatchState) -> bytes:
    """The row of a state."""
    flat: list[int] = []
    for peers in state.plays:
        flat += peers
        flat += (0,) * (WATCH_PEERS - len(peers))
    return _ROW.pack(state.updated_ms, *state.counts, *map(len, state.plays), *flat)


def unpack(row: bytes) -> WatchState:
    """The state that `row` holds."""
    flat = _ROW.unpack(row)
    first = 1 + 2 * WATCH_BUCKETS
    lengths = flat[1 + WATCH_BUCKETS : first]
    plays = tuple(
        flat[first + bucket * WATCH_PEERS : first + bucket * WATCH_PEERS + length]
        for bucket, length in enumerate(lengths)
    )
    return WatchState(flat[0], flat[1 : 1 + WATCH_BUCKETS], plays)
