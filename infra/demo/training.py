"""The first version: tokenizer, catalogue and generator from the first days, published as version 1.

Everything is learned from interactions before the first live day; the live day's good exposures are what
quality is measured on, and they are looked at after training.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from core.clock import Clock
from core.settings import Streams
from feature_repo.folds.context import FoldContext
from feature_repo.services import generator_v1
from infra.demo.recorded import Recorded
from models.artefact import load_artefact
from models.batches import Ints, take_rows
from models.catalog import Catalog, save_catalog
from models.dataset import Samples, example_contexts, folded_samples
from models.examples import Examples
from models.export import export_generator
from models.generator import Generator
from models.golden import Golden, save_golden
from models.metrics import popularity, ranks_in_scores, recall_at
from models.registry import GOLDEN_FILE, MODEL_FILE, WEIGHTS_FILE, publish, stage
from models.train_generator import Progress, TrainArguments, target_ranks, train_generator
from models.train_semantic_ids import SemanticIdArgs, train_semantic_ids
from protos.registry.v1.manifest_pb2 import DataRange, ModelManifest
from rl.candidate import REWARDS_FILE, USERS_FILE
from rl.fitted_users import Fitted, UserModelArguments, fit_users
from rl.rewards import save_global_table

BEAM_WIDTH: Final = 32
GOLDEN_REQUESTS: Final = 32
TEST_EXPOSURES: Final = 2_000
RESAMPLES: Final = 1_000
DAY_MS: Final = 24 * 3600 * 1000
_HALF_LIVES_H: Final = (12.0, 24.0, 72.0, float("inf"))  # tried for the popularity baseline, as any dial of ours


@dataclass(frozen=True)
class FirstArguments:
    """What decides version 1, besides the data; stored in its manifest."""

    semantic_ids: SemanticIdArgs = field(default_factory=SemanticIdArgs)
    generator: TrainArguments = field(default_factory=lambda: TrainArguments(epochs=4, train_s=60.0))
    users: UserModelArguments = field(default_factory=UserModelArguments)
    beam_width: int = BEAM_WIDTH
    """Paths kept per level; at most this many candidates per request."""


class FirstVersion(NamedTuple):
    """What was published."""

    version: int
    catalog: Catalog
    fitted: Fitted  # the user model of the same days, and their reward table
    metrics: dict[str, float]
    health: list[str]  # of the semantic ids, for people


def train_first_version(
    recorded: Recorded,
    arguments: FirstArguments,
    *,
    registry: Path,
    streams: Streams,
    clock: Clock,
    say: Callable[[str], None],
    progress: Callable[[Progress], None],
) -> FirstVersion:
    """Version 1 is published in `registry`, verified, with its quality on the first live day."""
    say("semantic ids")
    learned = train_semantic_ids(recorded.items, recorded.sequences, arguments.semantic_ids)
    catalog = learned.catalog
    context = FoldContext(
        catalog, arguments.semantic_ids.version, 1000 * streams.horizon_s, streams.location_resolution
    )

    say("contexts, folded as a worker would")
    samples = folded_samples(recorded.past, context, since_ms=recorded.training_start_ms)
    examples = Examples(*example_contexts(samples, catalog))
    say(f"generator: {len(examples.items):,} examples")
    trained = train_generator(examples, catalog.codes, arguments.generator, progress=progress)

    say("quality on the first live day")
    metrics = {"loss": trained.curve[-1].loss, "train_s": trained.seconds, "examples": float(len(examples.items))}
    metrics |= quality(recorded, context, catalog, trained.generator, samples, arguments.beam_width)

    say("user model and reward table of the same days, for the gates to come")
    fitted = fit_users(
        recorded.past,
        catalog,
        context,
        arguments.users,
        since_ms=recorded.training_start_ms,
        until_ms=recorded.live_start_ms,
    )

    say("export to ONNX, held against torch")
    staged = stage(registry)
    fitted.users.save(staged / USERS_FILE)
    save_global_table(fitted.table, staged / REWARDS_FILE)
    golden = take_rows(examples.context, np.linspace(0, len(examples.items) - 1, GOLDEN_REQUESTS).astype(np.int64))
    beams = export_generator(
        trained.generator, staged / MODEL_FILE, golden, catalog.trie, beam_width=arguments.beam_width
    )
    save_golden(Golden(golden, beams), staged / GOLDEN_FILE)
    save_catalog(catalog, staged)
    torch.save(trained.generator.state_dict(), staged / WEIGHTS_FILE)
    version = publish(registry, staged, _manifest(recorded, arguments, catalog, metrics, clock))
    load_artefact(registry, version, threads=1)
    return FirstVersion(version, catalog, fitted, metrics, learned.health.lines())


def quality(
    recorded: Recorded,
    context: FoldContext,
    catalog: Catalog,
    generator: Generator,
    before: Samples,
    beam_width: int,
) -> dict[str, float]:
    """Recall@10 of the next good item on the first live day: the generator's beams against popularity.

    Popularity counts good exposures before the live day; its half-life is the one that did best on the last
    day before. Both see every item of the catalogue.
    """
    day = (recorded.live_start_ms, recorded.live_start_ms + DAY_MS)
    known = chain(recorded.imported, recorded.live)
    samples = folded_samples(known, context, since_ms=day[0], until_ms=day[1])
    batch, targets = example_contexts(samples, catalog)
    chosen = np.random.default_rng(0).permutation(len(targets))[:TEST_EXPOSURES]
    examples = Examples(take_rows(batch, chosen), targets[chosen])
    ranks = target_ranks(generator, examples, catalog.trie, beam_width=beam_width)
    items = catalog.indices_of(before.items)
    good = items >= 0
    counts = _popularity(items[good], before.at_ms[good], len(catalog), day[0])
    theirs = ranks_in_scores(counts, targets[chosen, 0])
    low, high = _interval((ranks <= 10).astype(np.float64) - (theirs <= 10))
    return {
        "recall_at_10": recall_at(ranks, 10),
        "recall_at_10_popularity": recall_at(theirs, 10),
        "recall_difference_low": low,
        "recall_difference_high": high,
        "test_exposures": float(len(chosen)),
    }


def _interval(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    drawn = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _popularity(items: Ints, at_ms: npt.NDArray[np.int64], count: int, now_ms: int) -> npt.NDArray[np.float64]:
    last_day = at_ms >= now_ms - DAY_MS

    def recall(half_life_h: float) -> float:
        scores = popularity(items, at_ms, count=count, now_ms=now_ms - DAY_MS, half_life_h=half_life_h)
        return recall_at(ranks_in_scores(scores, items[last_day]), 10)

    best = max(_HALF_LIVES_H, key=recall)
    return popularity(items, at_ms, count=count, now_ms=now_ms, half_life_h=best)


def _manifest(
    recorded: Recorded, arguments: FirstArguments, catalog: Catalog, metrics: dict[str, float], clock: Clock
) -> ModelManifest:
    config = arguments.generator.config
    manifest = ModelManifest(
        tokenizer_version=arguments.semantic_ids.version,
        feature_service=generator_v1.name,
        catalog_digest=catalog.digest(),
        numeric_precision="float32",
        training_arguments_json=json.dumps(asdict(arguments)),
        metrics=metrics,
        beam_width=arguments.beam_width,
        levels=arguments.semantic_ids.levels,
        codebook_size=config.codebook_size,
    )
    manifest.created_at.FromMilliseconds(clock.now_ms())
    seen = DataRange(source=recorded.name)
    seen.start_at.CopyFrom(recorded.past[0].occurred_at)
    seen.end_at.FromMilliseconds(recorded.live_start_ms)
    manifest.data_ranges.append(seen)
    return manifest
