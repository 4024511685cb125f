"""Laws of user_watch and of the rank that rewards read."""

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import watch
from feature_repo.folds.watch import UNKNOWN_BUCKET, Rank, bucket_of, rank
from feature_repo.layouts import WATCH_BUCKETS, WATCH_PEERS
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import act

PLAYS = st.lists(st.integers(0, 100_000), max_size=40)


def after(plays: list[int], duration_ms: int = 20_000) -> watch.WatchState:
    state = watch.EMPTY
    for number, play_ms in enumerate(plays):
        state = watch.fold(
            state, act(f"e{number}", action=Action.ACTION_PLAY, play_ms=play_ms, duration_ms=duration_ms)
        )
    return state


def test_buckets_are_powers_of_two_seconds() -> None:
    assert [bucket_of(ms) for ms in (1, 999, 1_000, 1_999, 2_000, 15_999, 16_000)] == [0, 0, 0, 0, 1, 3, 4]
    assert bucket_of(24 * 3600 * 1000) == WATCH_BUCKETS - 1
    assert bucket_of(0) == bucket_of(-1) == UNKNOWN_BUCKET


@given(PLAYS, st.integers(0, 100_000), st.integers(0, 100_000))
def test_a_longer_play_never_ranks_lower(plays: list[int], one: int, other: int) -> None:
    state = after(plays)
    low, high = (rank(state.plays, 4, play_ms) for play_ms in sorted((one, other)))
    assert low.rank <= high.rank <= high.peers


@given(PLAYS, st.integers(0, 100_000))
def test_the_rank_counts_the_newest_peers(plays: list[int], play_ms: int) -> None:
    found = rank(after(plays).plays, 4, play_ms)
    peers = [watch.deciseconds(one) for one in plays[-WATCH_PEERS:]]
    mine = watch.deciseconds(play_ms)
    assert found == Rank(sum(one <= mine for one in peers), len(peers), peers.count(mine))


def test_an_empty_or_unknown_bucket_has_no_peers() -> None:
    assert rank(watch.EMPTY.plays, 4, 1_000) == Rank(0, 0, 0)
    assert rank(after([1_000]).plays, UNKNOWN_BUCKET, 1_000) == Rank(0, 0, 0)


def test_only_plays_of_known_length_count() -> None:
    assert watch.fold(watch.EMPTY, act(item="77", action=Action.ACTION_PLAY, play_ms=5_000)) is watch.EMPTY
    assert watch.fold(watch.EMPTY, act(action=Action.ACTION_LIKE)) is watch.EMPTY


def test_the_catalogue_tells_a_length_that_the_event_does_not() -> None:
    state = watch.fold(watch.EMPTY, act(item="1", action=Action.ACTION_PLAY, play_ms=5_000))
    assert state.counts[bucket_of(20_000)] == 1


@given(PLAYS)
def test_every_play_is_counted_for_ever(plays: list[int]) -> None:
    assert after(plays).counts[4] == len(plays)
