"""Small random worlds for the generator's tests: contexts, paths, tries, models."""

import numpy as np
import numpy.typing as npt
import torch

from feature_repo.layouts import DIM
from models.batches import (
    AGE_BUCKETS,
    EVIDENCE_SOURCES,
    LEVELS,
    NEAR,
    PLACE_FEATURES,
    TOKENS,
    WATCH_SHARES,
    ContextBatch,
)
from models.evidence import Neighbours
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.item_vectors import FEATURES, WORDS
from models.trie import Trie, build_trie


def random_context(rng: np.random.Generator, requests: int, codebook_size: int) -> ContextBatch:
    order = rng.permuted(np.tile(np.arange(NEAR, dtype=np.int32), (requests, 1)), axis=1)  # no item is near twice
    mask = rng.random((requests, TOKENS)) < rng.random((requests, 1))
    return ContextBatch(
        codes=rng.integers(0, codebook_size, (requests, TOKENS, LEVELS)).astype(np.int32) * mask[:, :, None],
        mask=mask,
        actions=rng.integers(0, 1 << 11, mask.shape).astype(np.int32) * mask,
        watch=rng.integers(0, WATCH_SHARES, mask.shape).astype(np.int32) * mask,
        age=rng.integers(0, AGE_BUCKETS, mask.shape).astype(np.int32) * mask,
        interests=(rng.standard_normal((requests, 2, DIM)) * DIM**-0.5).astype(np.float32),
        place=rng.standard_normal((requests, PLACE_FEATURES)).astype(np.float32),
        items=rng.integers(0, 60, mask.shape).astype(np.int32) * mask,
        near=np.where((order < 60) & (rng.random(order.shape) < 0.5), order, -1).astype(np.int32),
        nearness=rng.random((requests, NEAR, EVIDENCE_SOURCES)).astype(np.float32),
    )


def random_paths(rng: np.random.Generator, items: int, codebook_size: int) -> npt.NDArray[np.int32]:
    """At most `items` distinct paths, in random order."""
    numbers = rng.choice(codebook_size**LEVELS, min(items, codebook_size**LEVELS), replace=False)
    digits = [numbers // codebook_size**power % codebook_size for power in range(LEVELS - 1, -1, -1)]
    return np.stack(digits, axis=1).astype(np.int32)


def random_words(rng: np.random.Generator, items: int) -> npt.NDArray[np.int32]:
    """The features of each item, from none to as many as are kept."""
    words = rng.integers(0, FEATURES, (items, WORDS)).astype(np.int32)
    return np.where(np.arange(WORDS) < rng.integers(0, WORDS + 1, (items, 1)), words, FEATURES).astype(np.int32)


def random_trie(
    rng: np.random.Generator, items: int, codebook_size: int, live_share: float = 1.0
) -> tuple[Trie, npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """A trie, the path of every item, and which items are live."""
    codes = random_paths(rng, items, codebook_size)
    live = rng.random(len(codes)) < live_share
    return build_trie(codes, len(codes) + 3, codebook_size=codebook_size, live=live), codes, live


def small_config(codebook_size: int = 5, **changes: float) -> GeneratorConfig:
    shape = {"d_model": 16, "layers": 2, "heads": 4, "kv_groups": 2, "d_feature": 4} | changes
    return GeneratorConfig(codebook_size=codebook_size, **shape)


def small_generator(seed: int = 0, config: GeneratorConfig | None = None) -> Generator:
    """Random weights, with heads large enough that beams differ clearly."""
    torch.manual_seed(seed)
    generator = Generator(config or small_config())
    with torch.no_grad():
        for head in generator.heads:
            head.mul_(10)
    return generator.eval()


def table_of(weights: npt.NDArray[np.floating]) -> Neighbours:
    """The (I, I) weights, row = item, as a table of neighbours."""
    order = np.argsort(-weights, axis=1, kind="stable")
    sorted_weights = np.take_along_axis(weights, order, 1).astype(np.float32)
    return Neighbours(np.where(sorted_weights > 0, order, -1).astype(np.int32), sorted_weights)
