"""Laws of the rollouts: contexts as they were read, probabilities as they were logged, each outcome once."""

import numpy as np
import pytest

from protos.events.v1.outcome_pb2 import Outcome
from rl.dataset import NOT_IN_LOG, OTHER_TOKENIZER, UNKNOWN_ITEM, Rollouts, is_held_out, rollouts
from rl.rewards import rewards
from tests.rl.loop import PARTITIONS, World, row_bytes


def read(world: World, outcomes: list[Outcome] | None = None, records: int | None = None) -> Rollouts:
    return rollouts(
        world.outcomes if outcomes is None else outcomes,
        world.log[:records],
        world.serving.catalog,
        world.context,
        world.table,
        partitions=PARTITIONS,
        max_positives=500,
    )


@pytest.fixture(scope="module")
def found(world: World) -> Rollouts:
    return read(world)


def test_contexts_are_bit_for_bit_what_the_scorer_had_read(world: World, found: Rollouts) -> None:
    checked = 0
    for part in (found.batch, found.held_out):
        for row, request_id in enumerate(part.request_ids):
            assert row_bytes(part.viewers, row) == world.read[request_id]
            checked += 1
    assert checked == len(world.read) > 50


def test_log_probabilities_are_the_logged_ones(world: World, found: Rollouts) -> None:
    logged = {(one.request_id, one.item_id): list(one.masked_log_probs) for one in world.outcomes}
    items = world.serving.catalog.items
    for row, slot in np.argwhere(found.batch.items >= 0)[:200]:
        item_id = items[found.batch.items[row, slot]].item_id
        assert found.batch.log_probs[row, slot].tolist() == logged[found.batch.request_ids[row], item_id]


def test_repeats_change_nothing(world: World, found: Rollouts) -> None:
    again = read(world, [*world.outcomes, *world.outcomes[:40]])
    assert again.repeats == 40 and again.outcomes == found.outcomes
    assert again.batch.request_ids == found.batch.request_ids
    np.testing.assert_array_equal(again.batch.advantage, found.batch.advantage)


def test_order_of_outcomes_changes_nothing(world: World, found: Rollouts) -> None:
    shuffled = read(world, world.outcomes[::-1])
    np.testing.assert_array_equal(shuffled.batch.items, found.batch.items)
    np.testing.assert_array_equal(shuffled.batch.reward, found.batch.reward)


def test_held_out_users_teach_nothing(found: Rollouts) -> None:
    assert found.held_out.user_ids and all(map(is_held_out, found.held_out.user_ids))
    assert found.batch.user_ids and not any(map(is_held_out, found.batch.user_ids))


def test_what_cannot_be_used_is_counted_by_reason(world: World) -> None:
    outcomes = [Outcome.FromString(one.SerializeToString()) for one in world.outcomes]
    outcomes[0].item_id = "place-of-another-town"
    outcomes[1].tokenizer_version = 7
    assert read(world, outcomes).dropped == {UNKNOWN_ITEM: 1, OTHER_TOKENIZER: 1}
    short = read(world, records=len(world.log) // 2)
    assert short.dropped[NOT_IN_LOG] > 0


def test_an_item_that_was_not_generated_has_no_known_probability(world: World) -> None:
    outcomes = [Outcome.FromString(one.SerializeToString()) for one in world.outcomes]
    for one in outcomes:
        del one.codes[:], one.masked_log_probs[:]
    batch = read(world, outcomes).batch
    assert np.isnan(batch.log_probs).all() and (batch.items >= 0).any()


def test_advantages_are_of_the_windows_rewards(world: World, found: Rollouts) -> None:
    shown = found.batch.items >= 0
    assert ((found.batch.advantage[shown] > 0) <= (found.batch.reward[shown] > found.tau)).all()
    everything = rewards(world.outcomes, world.table).reward
    assert 0.0 < float((everything > found.tau).mean()) <= 0.25
    assert not found.batch.advantage[~shown].any()


def test_examples_hold_no_simulated_act(world: World, found: Rollouts) -> None:
    """The only simulated acts answer requests of the afternoon; no example may be from then."""
    assert 0 < len(found.positives.items) <= 500
    assert (found.positives.items >= 0).all()


def test_nothing_gives_nothing(world: World) -> None:
    empty = read(world, [])
    assert empty.outcomes == 0 and not empty.batch.user_ids and not len(empty.positives.items)
