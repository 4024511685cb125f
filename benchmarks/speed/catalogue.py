"""A published catalogue for the folds: random unit vectors and random codes, and no model."""

from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.speed.load import ITEMS, duration_ms, item_name
from feature_repo.layouts import DIM
from models.catalog import Catalog
from models.catalog_files import save_catalog
from models.item_vectors import FEATURES, ItemEncoder, unit_rows
from models.registry import GOLDEN_FILE, MODEL_FILE, publish, stage
from models.semantic_ids import Codebook
from models.tokenizer import Tokenizer
from protos.catalog.v1.catalog_pb2 import Item
from protos.registry.v1.manifest_pb2 import ModelManifest

CODES: Final = 64  # of each level
LEVELS: Final = 3


def publish_catalogue(home: Path) -> None:
    """`home` serves a version with ITEMS items. Stream workers can read it; a scorer cannot: its model is empty."""
    rng = np.random.default_rng(0)
    numbers = np.arange(ITEMS)
    lengths = duration_ms(numbers).tolist()
    items = [Item(item_id=item_name(at), duration_ms=lengths[at], available=True) for at in numbers.tolist()]
    paths = np.unravel_index(rng.choice(CODES**LEVELS, ITEMS, replace=False), (CODES,) * LEVELS)
    codes = np.stack(paths, axis=1).astype(np.int32)
    vectors = unit_rows(rng.normal(size=(ITEMS, DIM)).astype(np.float32))
    codebook = Codebook(rng.normal(size=(LEVELS, CODES, DIM)).astype(np.float32))
    catalog = Catalog(items, codes, vectors, Tokenizer(1, _unused_encoder(), codebook))
    staged = stage(home)
    save_catalog(catalog, staged)
    for name in (MODEL_FILE, GOLDEN_FILE):
        (staged / name).touch()
    manifest = ModelManifest(tokenizer_version=1, catalog_digest=catalog.digest(), levels=LEVELS, codebook_size=CODES)
    publish(home, staged, manifest)


def _unused_encoder() -> ItemEncoder:
    """Of the right shapes; no item comes after the published ones."""
    joined = 2 * DIM + 2
    shapes = ((FEATURES,), (FEATURES, DIM), (DIM, DIM), (1, 3), (joined,), (joined, DIM), (3,))
    return ItemEncoder(*(np.zeros(shape, np.float32) for shape in shapes))
