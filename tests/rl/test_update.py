"""Laws of the update: it moves towards what was good, stays near, and leaves what serves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import ArtefactError, InputError
from models.context_processor import context_tensors
from models.generator import Generator
from models.losses import item_loss
from models.registry import folder_of
from models.trie_tensors import trie_tensors
from protos.registry.v1.manifest_pb2 import ModelManifest
from rl.dataset import Rollouts, rollouts
from rl.update import UpdateArguments, Updated, load_weights, update
from tests.models.shelves import set_available
from tests.rl.loop import PARTITIONS, World

ARGS = UpdateArguments(steps=25, requests=32, examples=64, max_positives=400)


@pytest.fixture(scope="module")
def found(world: World) -> Rollouts:
    return rollouts(
        world.outcomes,
        world.log,
        world.serving.catalog,
        world.context,
        world.table,
        partitions=PARTITIONS,
        max_positives=ARGS.max_positives,
    )


@pytest.fixture(scope="module")
def serving(world: World) -> Generator:
    return load_weights(folder_of(world.home, 1), world.serving.manifest)


def run(world: World, serving: Generator, found: Rollouts, args: UpdateArguments = ARGS) -> Updated:
    return update(serving, found.batch, found.positives, world.serving.catalog, args)


def test_an_update_moves_towards_what_was_good_and_stays_near(
    world: World, serving: Generator, found: Rollouts
) -> None:
    report = run(world, serving, found).report
    assert report.steps == ARGS.steps
    assert report.supervised_loss_after < report.supervised_loss_before
    assert 0.0 < report.kl < 0.5
    assert np.isfinite(report.gradient_norm_max)


def test_what_was_shown_and_liked_becomes_more_likely(world: World, serving: Generator, found: Rollouts) -> None:
    """By the policy's part of the loss: at its usual weight the supervised part, which knows also of what was not
    shown, moves these few shown items as much."""
    report = run(world, serving, found, replace(ARGS, policy_weight=1.0)).report
    assert report.positives > 0
    assert report.liked_log_prob_before is not None and report.liked_log_prob_after is not None
    assert report.liked_log_prob_after > report.liked_log_prob_before + 0.005


def test_the_item_head_learns_of_newer_choices(world: World, serving: Generator, found: Rollouts) -> None:
    catalog, items = world.serving.catalog, torch.from_numpy(found.positives.items)
    context, codes = context_tensors(found.positives.context), torch.from_numpy(catalog.codes)

    def nats(generator: Generator) -> float:
        with torch.no_grad():
            said = generator.decode(context, codes[items.clamp(min=0)], trie_tensors(catalog.trie), codes).item_logits
            assert said is not None
            return float(item_loss(said, items))

    taught, alone = (run(world, serving, found, replace(ARGS, item_loss=weight)) for weight in (1.0, 0.0))
    assert nats(taught.generator) < min(nats(serving), nats(alone.generator))
    assert all(
        torch.equal(before, after)
        for before, after in zip(serving.item_head.parameters(), alone.generator.item_head.parameters(), strict=True)
    )


def test_an_update_leaves_the_value_head_as_it_was(world: World, serving: Generator, found: Rollouts) -> None:
    before, after = (each.value_head.state_dict() for each in (serving, run(world, serving, found).generator))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_serving_weights_are_left_alone(world: World, serving: Generator, found: Rollouts) -> None:
    before = {name: weight.clone() for name, weight in serving.named_parameters()}
    updated = run(world, serving, found).generator
    assert all(torch.equal(weight, before[name]) for name, weight in serving.named_parameters())
    assert any(not torch.equal(weight, before[name]) for name, weight in updated.named_parameters())


def test_equal_input_gives_equal_weights(world: World, serving: Generator, found: Rollouts) -> None:
    one, other = (run(world, serving, found).generator.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_disliked_item_becomes_less_likely(world: World, serving: Generator, found: Rollouts) -> None:
    """All shown items disliked: a shown item's probability falls, and by a bounded step."""
    disliked = found.batch._replace(advantage=np.where(found.batch.items >= 0, -1.0, 0.0).astype(np.float32))
    updated = update(serving, disliked, found.positives, world.serving.catalog, replace(ARGS, policy_weight=1.0))
    before, after = updated.report.disliked_log_prob_before, updated.report.disliked_log_prob_after
    assert before is not None and after is not None and after < before
    assert updated.report.gradient_norm_max < 100.0


def test_nothing_to_learn_from_is_said(world: World, serving: Generator, found: Rollouts) -> None:
    indifferent = found.batch._replace(advantage=np.zeros_like(found.batch.advantage))
    with pytest.raises(InputError, match="found 0 requests with an advantage"):
        update(serving, indifferent, found.positives, world.serving.catalog, ARGS)


def test_time_ends_an_update(world: World, serving: Generator, found: Rollouts) -> None:
    ticks = iter(range(0, 10_000, 15))
    report = update(
        serving,
        found.batch,
        found.positives,
        world.serving.catalog,
        replace(ARGS, update_s=40.0),
        monotonic_s=lambda: float(next(ticks)),
    ).report
    assert report.steps == 3


def test_an_unreachable_item_teaches_nothing(world: World, serving: Generator, found: Rollouts) -> None:
    """An item taken off the shelf since has no legal path: its slots are left out, not turned into -1e9."""
    from models.catalog_files import load_catalog

    catalog = load_catalog(folder_of(world.home, 1))
    for item in np.unique(found.batch.items[found.batch.items >= 0])[::2]:
        set_available(catalog, catalog.items[item].item_id, False)
    report = update(serving, found.batch, found.positives, catalog, ARGS).report
    assert np.isfinite([report.gradient_norm_max, report.kl, report.supervised_loss_after]).all()
    assert report.positives < int((found.batch.advantage > 0).sum())


def test_a_version_without_weights_or_shape_is_refused(world: World) -> None:
    with pytest.raises(ArtefactError, match="found no weights to go on from"):
        load_weights(world.home, world.serving.manifest)
    with pytest.raises(ArtefactError, match="found no weights to go on from"):
        load_weights(folder_of(world.home, 1), ModelManifest(training_arguments_json="{}"))
