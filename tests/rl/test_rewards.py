"""Laws of the duration-aware reward."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ArtefactError
from feature_repo.folds.watch import bucket_of
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.outcome_pb2 import Outcome
from rl.rewards import (
    MIN_PEERS,
    GlobalTable,
    advantages,
    duration_buckets,
    fit_global_table,
    load_global_table,
    mid_rank,
    rewards,
    save_global_table,
    table_percentile,
    threshold,
)

_rng = np.random.default_rng(20220425)
_DURATIONS = _rng.uniform(2.0, 300.0, 20_000)
TABLE = fit_global_table(_DURATIONS, np.round(_DURATIONS * _rng.beta(0.4, 0.8, 20_000), 1))

plays = st.integers(0, 600_000)
peer_lists = st.lists(plays, min_size=0, max_size=24)


def outcome(play_ms: int | None, peers: list[int] = [], *, actions: tuple[int, ...] = (), bucket: int = 5) -> Outcome:  # noqa: B006
    """What attribution would write for a play among `peers`."""
    made = Outcome(actions=actions, duration_bucket=bucket, disliked=Action.ACTION_DISLIKE in actions)
    if play_ms is not None:
        made.play_ms = play_ms
        made.rank = sum(peer <= play_ms for peer in peers)
        made.ties = sum(peer == play_ms for peer in peers)
        made.peers = len(peers)
    return made


def value(made: Outcome, table: GlobalTable = TABLE) -> float:
    return float(rewards([made], table).reward[0])


@given(shorter=plays, longer=plays, peers=peer_lists)
def test_longer_play_of_the_same_item_is_never_worth_less(shorter: int, longer: int, peers: list[int]) -> None:
    shorter, longer = sorted((shorter, longer))
    assert value(outcome(shorter, peers)) <= value(outcome(longer, peers))


@given(play=plays, peers=peer_lists)
def test_not_playing_is_never_worth_more_than_playing(play: int, peers: list[int]) -> None:
    assert value(outcome(None, peers)) == 0.0 <= value(outcome(play, peers))


@given(made=st.lists(st.tuples(plays, peer_lists), min_size=1, max_size=8))
def test_a_reward_does_not_depend_on_other_outcomes(made: list[tuple[int, list[int]]]) -> None:
    outcomes = [outcome(play, peers) for play, peers in made]
    together = rewards(outcomes, TABLE).reward
    assert together.tolist() == [value(alone) for alone in outcomes]


@given(play=plays, peers=st.lists(plays, min_size=MIN_PEERS, max_size=24))
def test_with_enough_peers_other_users_do_not_matter(play: int, peers: list[int]) -> None:
    other_world = GlobalTable(TABLE.play_s * 7.0)
    assert value(outcome(play, peers), TABLE) == value(outcome(play, peers), other_world)


@given(play=plays, peers=st.lists(plays, max_size=MIN_PEERS - 1))
def test_with_few_peers_only_the_frozen_table_decides(play: int, peers: list[int]) -> None:
    assert value(outcome(play, peers)) == value(outcome(play, []))
    assert rewards([outcome(play, peers)], TABLE).from_table[0]


def test_unknown_duration_reads_the_row_of_all_plays() -> None:
    unknown = outcome(30_000, [1000] * 24, bucket=-1)
    assert value(unknown) == pytest.approx(table_percentile(TABLE, [-1], [30.0])[0])


def test_ties_count_half() -> None:
    assert mid_rank(10, 10, 10) == 0.5
    assert mid_rank([4, 10], [0, 0], [10, 10]).tolist() == [0.4, 1.0]
    assert np.isnan(mid_rank(0, 0, 0))


def test_an_explicit_dislike_outweighs_the_best_watch() -> None:
    assert value(outcome(10**6, [1] * 20, actions=(Action.ACTION_DISLIKE,))) <= 0.0


def test_every_bonus_raises_the_reward() -> None:
    for action in (Action.ACTION_LIKE, Action.ACTION_ORDER, Action.ACTION_CHECK_IN, Action.ACTION_SHARE):
        assert value(outcome(None, actions=(action,))) > value(outcome(None))


@given(st.floats(0.0, 400.0), st.floats(0.0, 400.0), st.integers(-1, 11))
def test_the_table_is_monotone_and_bounded(one: float, other: float, bucket: int) -> None:
    low, high = table_percentile(TABLE, bucket, sorted((one, other)))
    assert 0.0 <= low <= high <= 1.0


def test_the_table_is_uniform_on_the_plays_it_was_fitted_on() -> None:
    durations = np.full(4000, 20.0)
    own = _rng.exponential(8.0, 4000)
    table = fit_global_table(durations, own)
    assert np.quantile(table_percentile(table, 4, own), [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.01)


def test_the_table_survives_storage_and_refuses_another_shape(tmp_path: Path) -> None:
    save_global_table(TABLE, tmp_path / "rewards.npz")
    assert load_global_table(tmp_path / "rewards.npz").digest() == TABLE.digest()
    np.savez(tmp_path / "other.npz", play_s=np.zeros((3, 3)), reward_version=1)
    with pytest.raises(ArtefactError, match="expected"):
        load_global_table(tmp_path / "other.npz")
    with pytest.raises(ArtefactError, match="not a reward table"):
        load_global_table(tmp_path / "missing.npz")


def test_buckets_are_powers_of_two_seconds() -> None:
    assert duration_buckets([0.0, 0.5, 1.0, 7.9, 8.0, 1e9]).tolist() == [-1, 0, 0, 2, 3, 11]


@given(st.integers(1, 24 * 3600 * 1000))
def test_buckets_are_those_that_the_watch_view_keeps(duration_ms: int) -> None:
    assert int(duration_buckets(duration_ms / 1000.0)) == bucket_of(duration_ms)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200))
def test_tau_selects_somebody_unless_all_are_equal(values: list[int]) -> None:
    reward = np.asarray(values, dtype=np.float32) / 20
    chosen = advantages(reward, np.zeros(len(reward), np.bool_), threshold(reward)) > 0
    assert chosen.any() == (len(set(values)) > 1)
    assert not chosen.any() or reward[chosen].min() > reward[~chosen].max()


def test_tie_collapse_still_selects_the_tied_best() -> None:
    reward = np.asarray([1.0] * 60 + [0.5] * 40, dtype=np.float32)
    assert advantages(reward, np.zeros(100, np.bool_), threshold(reward)).sum() == 60


def test_without_ties_a_quarter_is_positive() -> None:
    reward = _rng.permutation(1000).astype(np.float32)
    assert advantages(reward, np.zeros(1000, np.bool_), threshold(reward)).sum() == pytest.approx(250, abs=1)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50))
def test_only_an_explicit_dislike_is_negative(window: list[tuple[float, bool]]) -> None:
    reward = np.asarray([entry[0] for entry in window], dtype=np.float32)
    disliked = np.asarray([entry[1] for entry in window])
    assert ((advantages(reward, disliked, threshold(reward)) < 0) == disliked).all()
