"""Laws of the gate: an honest update may pass, a damaged model never does and the reason is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.clock import FixedClock
from core.errors import ContractError
from models.artefact import load_artefact
from models.export import replace_weights
from models.generator import Generator
from models.golden import Golden, save_golden
from models.registry import GOLDEN_FILE, MODEL_FILE, WEIGHTS_FILE, current, folder_of, load_manifest, rollback
from models.values import BEAM_ALONE
from protos.registry.v1.manifest_pb2 import ModelManifest
from rl.candidate import publish_or_refuse, stage_candidate
from rl.dataset import Rollouts, rollouts
from rl.gate import MIN_CONTEXTS, REWARD_MARGIN, Judged, judge, paired_difference, reasons
from rl.log import Span
from rl.update import UpdateArguments, Updated, load_weights, update
from tests.rl.loop import PARTITIONS, World

ARGS = UpdateArguments(steps=15, requests=32, examples=64, max_positives=400, learning_rate=3e-5)
SPANS = [Span("outcomes.v1", 0, 3, 90)]
CLOCK = FixedClock(1_748_990_000_000)


@pytest.fixture(scope="module")
def found(world: World) -> Rollouts:
    read = rollouts(
        world.outcomes,
        world.log,
        world.serving.catalog,
        world.context,
        world.table,
        partitions=PARTITIONS,
        max_positives=ARGS.max_positives,
    )
    everybody = np.arange(len(read.batch.user_ids))
    return read._replace(held_out=read.batch.take(everybody))  # the city is small; the law is not about the split


@pytest.fixture(scope="module")
def updated(world: World, found: Rollouts) -> Updated:
    serving = load_weights(folder_of(world.home, 1), world.serving.manifest)
    return update(serving, found.batch, found.positives, world.serving.catalog, ARGS)


def staged(world: World, updated: Updated) -> tuple[Path, ModelManifest]:
    return stage_candidate(world.home, world.serving, updated, ARGS, SPANS, clock=CLOCK)


def judged(world: World, found: Rollouts, candidate: Path, manifest: ModelManifest) -> Judged:
    return judge(
        world.serving,
        candidate,
        manifest,
        found.held_out,
        world.users,
        world.table,
        rng=np.random.default_rng(0),
        weights=BEAM_ALONE,
    )


def damaged(world: World, updated: Updated, damage: Callable[[Generator], None]) -> tuple[Path, ModelManifest]:
    """A candidate whose weights were damaged before the export, its golden batch recorded afterwards."""
    folder, manifest = staged(world, updated)
    generator = load_weights(folder, manifest)
    with torch.no_grad():
        damage(generator)
    golden, trie = world.serving.golden.batch, world.serving.catalog.trie
    beams = replace_weights(folder_of(world.home, 1) / MODEL_FILE, folder / MODEL_FILE, generator, golden, trie)
    save_golden(Golden(golden, beams), folder / GOLDEN_FILE)
    torch.save(generator.state_dict(), folder / WEIGHTS_FILE)
    return folder, manifest


def failed(found: Judged) -> list[str]:
    return [check.name for check in found.verdict.checks if not check.passed]


def test_a_small_update_passes_and_is_published_with_its_verdict(
    world: World, found: Rollouts, updated: Updated
) -> None:
    folder, manifest = staged(world, updated)
    verdict = judged(world, found, folder, manifest)
    assert verdict.verdict.passed, reasons(verdict.verdict)
    assert [check.name for check in verdict.verdict.checks] == ["files", "parity", "legality", "reward", "coverage"]
    version = publish_or_refuse(world.home, folder, manifest, verdict)
    assert version is not None and current(world.home) == version
    published = load_manifest(world.home, version)
    assert published.parent_version == 1 and published.gate.passed
    assert published.metrics["update_kl"] > 0 and published.data_ranges[0].end_offset == 90
    load_artefact(world.home, version, threads=1)
    again = load_weights(folder_of(world.home, version), published)  # the next turn can go on from it
    assert isinstance(again, Generator)
    with pytest.raises(ContractError, match="expected 1 from which this one was learned"):
        publish_or_refuse(world.home, *staged(world, updated), verdict)
    rollback(world.home, 1)


def test_a_model_that_forgot_everything_is_refused_for_its_reward(
    world: World, found: Rollouts, updated: Updated
) -> None:
    """Heads and evidence turned upside down: what was likeliest is least likely."""

    def upside_down(generator: Generator) -> None:
        for head in generator.heads:
            head.neg_()
        generator.prior.gain.neg_()

    folder, manifest = damaged(world, updated, upside_down)
    verdict = judged(world, found, folder, manifest)
    assert "reward" in failed(verdict) and "parity" not in failed(verdict)
    assert verdict.difference is not None and verdict.difference.mean < -REWARD_MARGIN
    assert any(line.startswith("reward: REFUSED: found -") for line in reasons(verdict.verdict))
    assert publish_or_refuse(world.home, folder, manifest, verdict) is None
    assert current(world.home) == 1


def test_a_model_that_says_the_same_to_everybody_is_refused_for_coverage(
    world: World, found: Rollouts, updated: Updated
) -> None:
    def deaf(generator: Generator) -> None:
        for name, weight in generator.named_parameters():
            if name.endswith("cross.w_o") or name == "prior.gain":
                weight.zero_()

    assert "coverage" in failed(judged(world, found, *damaged(world, updated, deaf)))


def test_weights_that_are_no_numbers_are_refused(world: World, found: Rollouts, updated: Updated) -> None:
    def broken(generator: Generator) -> None:
        generator.heads[2].fill_(float("nan"))

    try:
        folder, manifest = damaged(world, updated, broken)
    except Exception as error:  # an export that already refuses is as good
        assert "differs from torch" in str(error)
    else:
        assert failed(judged(world, found, folder, manifest))


def test_a_graph_that_is_not_its_weights_is_refused_for_parity(world: World, found: Rollouts, updated: Updated) -> None:
    folder, manifest = staged(world, updated)
    (folder / MODEL_FILE).write_bytes((folder_of(world.home, 1) / MODEL_FILE).read_bytes())
    assert "parity" in failed(judged(world, found, folder, manifest))


def test_missing_files_and_other_catalogues_are_refused_by_name(
    world: World, found: Rollouts, updated: Updated
) -> None:
    folder, manifest = staged(world, updated)
    (folder / MODEL_FILE).unlink()
    verdict = judged(world, found, folder, manifest)
    assert failed(verdict) == ["files"] and MODEL_FILE in verdict.verdict.checks[0].reason


def test_too_few_held_out_requests_are_no_judgement(world: World, found: Rollouts, updated: Updated) -> None:
    few = found._replace(held_out=found.held_out.take(np.arange(MIN_CONTEXTS - 1)))
    assert failed(judged(world, few, *staged(world, updated))) == ["contexts"]


def test_the_same_weights_differ_by_nothing(world: World, found: Rollouts, updated: Updated) -> None:
    serving = load_weights(folder_of(world.home, 1), world.serving.manifest)
    verdict = judged(world, found, *staged(world, updated._replace(generator=serving)))
    assert verdict.verdict.passed and verdict.difference == (0.0, 0.0, 0.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(12)
    users = [f"user-{number // 3}" for number in range(240)]
    covered = 0
    for _ in range(100):
        own = np.repeat(rng.normal(0.02, 0.1, 80), 3)  # requests of one user are alike
        found = paired_difference(np.zeros(240), own + rng.normal(0.0, 0.02, 240), users, rng)
        covered += found.low <= 0.02 <= found.high
    assert covered >= 85


def test_no_slate_at_all_passes_no_margin() -> None:
    nothing = np.full(3, np.nan)
    assert paired_difference(nothing, nothing, ["a", "b", "c"], np.random.default_rng(0)).low == float("-inf")
