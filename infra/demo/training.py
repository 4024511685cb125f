"""The first version: tokenizer, catalogue and generator from the first days, published as version 1.

Everything is learned from interactions before the first live day; the live day's good exposures are what
quality is measured on, and they are looked at after training.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from core.clock import Clock
from core.settings import Streams
from feature_repo.folds.context import FoldContext
from feature_repo.services import generator_v1
from infra.demo.first_quality import (
    asked,
    generator_quality,
    selection_quality,
    user_model_quality,
    value_quality,
)
from infra.demo.recorded import Recorded
from models.artefact import load_artefact
from models.batches import Ints, take_rows
from models.catalog import Catalog
from models.catalog_files import save_catalog
from models.dataset import example_contexts, folded_samples
from models.examples import Examples
from models.export import export_generator
from models.generator import begun
from models.generator_config import GeneratorConfig
from models.golden import Golden, save_golden
from models.neighbours import neighbour_tables
from models.registry import GOLDEN_FILE, MODEL_FILE, WEIGHTS_FILE, publish, stage
from models.train_arguments import TrainArguments
from models.train_generator import Progress, train_generator
from models.train_semantic_ids import SemanticIdArgs, train_semantic_ids
from models.train_value_head import ValueArguments, train_value_head
from models.values import SelectionWeights
from protos.registry.v1.manifest_pb2 import DataRange, ModelManifest
from rl.candidate import REWARDS_FILE, USERS_FILE
from rl.fitted_users import Fitted, UserModelArguments, fit_users, sample_of_users
from rl.rewards import save_global_table
from rl.shown import shown_of_log

BEAM_WIDTH: Final = 32
CODES: Final = 256  # of a level
GOLDEN_REQUESTS: Final = 32


@dataclass(frozen=True)
class FirstArguments:
    """What decides version 1, besides the data; stored in its manifest."""

    semantic_ids: SemanticIdArgs = field(default_factory=lambda: SemanticIdArgs(codebook_size=CODES))
    generator: TrainArguments = field(
        default_factory=lambda: TrainArguments(
            config=GeneratorConfig(codebook_size=CODES, prior=True), epochs=4, train_s=90.0, averaged=0.5
        )
    )
    values: ValueArguments = field(default_factory=ValueArguments)
    value_users: int = 4_000
    """Users whose exposures the value head learns from; a sample by hash when there are more."""
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
    weights: SelectionWeights,
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
    catalog.neighbours = neighbour_tables(catalog.items, [_known(catalog, keys) for keys in recorded.earlier])
    samples = folded_samples(recorded.past, context, since_ms=recorded.training_start_ms)
    examples = Examples(*example_contexts(samples, catalog))
    say(f"generator: {len(examples.items):,} examples")
    rows = len(catalog)  # of every item that there is now; later ones are scored by their codes
    shape = replace(arguments.generator.config, items=rows, item_head=True, value_items=rows)
    arguments = replace(arguments, generator=replace(arguments.generator, config=shape))
    targets = catalog.trie_of_targets(examples.items[examples.items >= 0])
    trained = train_generator(
        examples,
        catalog.codes,
        arguments.generator,
        trie=targets,
        generator=begun(shape, catalog.vectors, arguments.generator.seed),
        progress=progress,
    )

    say("value head, on what was shown")
    days = {"since_ms": recorded.training_start_ms, "until_ms": recorded.live_start_ms}
    people = sample_of_users(recorded.past, arguments.value_users, arguments.values.seed)
    shown = shown_of_log(people, trained.generator, catalog, context, **days)
    train_value_head(trained.generator, shown, catalog.codes, arguments.values)

    say("user model and reward table of the same days, for the gates to come")
    fitted = fit_users(
        recorded.past,
        catalog,
        context,
        arguments.users,
        **days,
    )

    say("quality on the first live day")
    metrics = {"loss": trained.curve[-1].loss, "train_s": trained.seconds, "examples": float(len(examples.items))}
    question = asked(recorded, context, catalog, trained.generator, arguments.beam_width)
    metrics |= generator_quality(question, recorded, catalog, samples)
    metrics |= value_quality(recorded, context, catalog, trained.generator, arguments.value_users)
    metrics |= user_model_quality(recorded, context, catalog, fitted, arguments.value_users)
    metrics |= selection_quality(question, catalog, fitted, weights)

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


def _known(catalog: Catalog, keys: npt.NDArray[np.int64]) -> Ints:
    items = catalog.indices_of(keys)
    return items[items >= 0]


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
