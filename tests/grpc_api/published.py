"""A tiny version, really exported and published: random weights over the tiny world's catalogue."""

from pathlib import Path

import numpy as np
import torch

from feature_repo.layouts import HISTORY_ROW, INTERESTS, PLACES, WATCH, UserRows
from models.catalog import Catalog
from models.catalog_files import save_catalog
from models.contexts import context_batch
from models.export import export_generator, replace_weights
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.golden import Golden, save_golden
from models.registry import GOLDEN_FILE, MODEL_FILE, folder_of, publish, stage, versions
from protos.registry.v1.manifest_pb2 import ModelManifest
from tests.grpc_api.world import CODES

BEAM_WIDTH = 16


def publish_tiny(home: Path, catalog: Catalog, *, weights: int = 0) -> int:
    """Publish and point at a new version; returns its number.

    The first version of a home is exported, which takes seconds; later ones reuse its graph.

    Args:
        weights: seed of the random weights.
    """
    torch.manual_seed(weights)
    shape = GeneratorConfig(codebook_size=CODES, d_model=16, layers=2, heads=4, kv_groups=2, d_feature=4)
    generator = Generator(shape).eval()
    golden = context_batch(_nobody(2), catalog, 0)
    staged = stage(home)
    if earlier := versions(home):
        graph = folder_of(home, earlier[0]) / MODEL_FILE
        beams = replace_weights(graph, staged / MODEL_FILE, generator, golden, catalog.trie)
    else:
        beams = export_generator(generator, staged / MODEL_FILE, golden, catalog.trie, beam_width=BEAM_WIDTH)
    save_catalog(catalog, staged)
    save_golden(Golden(golden, beams), staged / GOLDEN_FILE)
    manifest = ModelManifest(
        tokenizer_version=catalog.tokenizer.version,
        feature_service="generator_v1",
        catalog_digest=catalog.digest(),
        numeric_precision="float32",
        beam_width=BEAM_WIDTH,
        levels=3,
        codebook_size=CODES,
    )
    return publish(home, staged, manifest)


def _nobody(size: int) -> UserRows:
    return UserRows(
        np.zeros(size, INTERESTS),
        np.zeros(size, HISTORY_ROW),
        np.zeros(size, WATCH),
        np.zeros(size, PLACES),
        np.zeros(size, bool),
    )
