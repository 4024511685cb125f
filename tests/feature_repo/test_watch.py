"""Laws of user_watch and of the rank that rewards read."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import watch
from feature_repo.folds.entries import LATE_MS
from feature_repo.folds.watch import NO_PLAYS, UNKNOWN_BUCKET, Rank, bucket_of, plays_of, rank
from feature_repo.layouts import WATCH, WATCH_BUCKETS, WATCH_PEERS
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import START_MS, Entry, after, interaction, part, play

PLAYS = st.lists(st.integers(0, 100_000), max_size=40)


def watched(plays: list[int], duration_ms: int = 20_000) -> np.ndarray:
    acts = [
        interaction(f"e{n}", action=Action.ACTION_PLAY, play_ms=play_ms, duration_ms=duration_ms)
        for n, play_ms in enumerate(plays)
    ]
    return part(after(*acts), "watch")


def test_buckets_are_powers_of_two_seconds() -> None:
    assert [bucket_of(ms) for ms in (1, 999, 1_000, 1_999, 2_000, 15_999, 16_000)] == [0, 0, 0, 0, 1, 3, 4]
    assert bucket_of(24 * 3600 * 1000) == WATCH_BUCKETS - 1
    assert bucket_of(0) == bucket_of(-1) == UNKNOWN_BUCKET


@given(PLAYS, st.integers(0, 100_000), st.integers(0, 100_000))
def test_a_longer_play_never_ranks_lower(plays: list[int], one: int, other: int) -> None:
    row = watched(plays)
    low, high = (rank(plays_of(row), 4, play_ms) for play_ms in sorted((one, other)))
    assert low.rank <= high.rank <= high.peers


@given(PLAYS, st.integers(0, 100_000))
def test_the_rank_counts_the_newest_peers(plays: list[int], play_ms: int) -> None:
    found = rank(plays_of(watched(plays)), 4, play_ms)
    peers = [watch.deciseconds(one) for one in plays[-WATCH_PEERS:]]
    mine = watch.deciseconds(play_ms)
    assert found == Rank(sum(one <= mine for one in peers), len(peers), peers.count(mine))


def test_an_empty_or_unknown_bucket_has_no_peers() -> None:
    assert plays_of(np.zeros(1, WATCH)[0]) == NO_PLAYS
    assert rank(NO_PLAYS, 4, 1_000) == Rank(0, 0, 0)
    assert rank(plays_of(watched([1_000])), UNKNOWN_BUCKET, 1_000) == Rank(0, 0, 0)


def test_only_plays_of_known_length_count() -> None:
    for act in (interaction("a", "77", Action.ACTION_PLAY, play_ms=5_000), interaction("b", "1", Action.ACTION_LIKE)):
        assert not any(part(after(act), "watch").tobytes())


def test_the_catalogue_tells_a_length_that_the_event_does_not() -> None:
    row = part(after(interaction("a", "1", Action.ACTION_PLAY, play_ms=5_000)), "watch")
    assert row["count"][bucket_of(20_000)] == 1


@given(PLAYS)
def test_every_play_is_counted_for_ever(plays: list[int]) -> None:
    assert watched(plays)["count"][4] == len(plays)


def test_peers_follow_the_log_and_a_late_play_is_none() -> None:
    def record(event: str, at_ms: int, recorded_ms: int) -> Entry:
        return Entry(recorded_ms, (interaction(event, "1", Action.ACTION_PLAY, at_ms, play_ms=int(event) * 100),))

    now_ms = START_MS + LATE_MS
    state, _ = play([record("3", now_ms, now_ms), record("2", START_MS, now_ms), record("1", START_MS - 1, now_ms)])
    assert plays_of(part(state, "watch"))[4] == (3, 2)  # one day old counts, a millisecond more does not
    assert part(state, "watch")["updated_ms"] == now_ms
    assert part(state, "history")["applied"] == 3
