"""What an architecture costs: floating-point operations, counted and by formula, and the time of an answer.

Letters used in this file
    N context tokens, item tokens and the three others   k items of a request   d width   V codebook size

Multiplications and additions count as one each. Counted is what `torch.utils.flop_counter` sees: matrix products.
"""

import time
from typing import Final

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from feature_repo.layouts import DIM
from models.batches import ACTIONS, AGE_BUCKETS, LEVELS, PLACE_FEATURES, WATCH_SHARES, Ints, take_rows
from models.encoder_decoder import EncoderDecoder
from models.examples import Examples, rows_of_examples
from models.export import beams_of
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.losses import generation_loss
from models.training_step import batch_of
from models.trie import Trie

OTHER_TOKENS: Final = 3  # two interests, one of place and hour
BEAM_WIDTH: Final = 32
_REPEATS: Final = 15


def lazy_flops(config: GeneratorConfig, *, tokens: int, targets: int, requests: int) -> float:
    """Forward, a request, when `requests` share the projected tables. config: dense, of one set with keys as values."""
    positions, width = LEVELS * targets, config.d_model
    attended = tokens + OTHER_TOKENS
    blocks = config.layers * positions * (18 * width**2 + 2 * attended * width)
    return 2.0 * (blocks + _ends(config, tokens, positions, requests))


def twin_flops(config: GeneratorConfig, *, tokens: int, targets: int, requests: int) -> float:
    """The same of the twin. config: of the lazy decoder."""
    positions, width, half = LEVELS * targets, config.d_model, config.layers // 2
    attended = tokens + OTHER_TOKENS
    encoder = half * attended * (16 * width**2 + 2 * attended * width)
    keys_and_values = half * attended * 2 * width**2
    decoder = half * positions * (18 * width**2 + 2 * attended * width)
    return 2.0 * (encoder + keys_and_values + decoder + _ends(config, tokens, positions, requests))


def _ends(config: GeneratorConfig, tokens: int, positions: int, requests: int) -> float:
    """Multiplications of context tokens and heads: what both have."""
    width = config.kv_groups * config.d_head
    features = (ACTIONS + WATCH_SHARES + AGE_BUCKETS) * config.d_feature
    tables = (LEVELS * config.codebook_size * config.d_model + features) * width / requests
    context = tokens * ACTIONS * width + 2 * DIM * width + PLACE_FEATURES * width
    return tables + context + positions * config.d_model * config.codebook_size


def counted_flops(generator: Generator, examples: Examples, codes: Ints, *, training: bool) -> float:
    """A request, counted: forward, and backward when `training`; as though every token of the context were there."""
    batch = batch_of(examples, codes)
    generator.eval()  # in training, tokens that are absent are left out
    # The fused kernel of the CPU has no formula in the counter; the plain one computes the same.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = generation_loss(generator(batch.context, batch.codes), batch.codes, weights=batch.weights)
        if training:
            loss.backward()  # type: ignore[no-untyped-call]
    generator.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / len(examples.items)


def latency_ms(generator: Generator, examples: Examples, trie: Trie) -> tuple[float, float]:
    """Median and 95th percentile of one request's answer by torch, context and beam search, on the threads it has."""
    taken = []
    for row in range(_REPEATS + 2):
        one = take_rows(examples.context, slice(row % len(examples.items), row % len(examples.items) + 1))
        started_s = time.perf_counter()
        beams_of(generator, one, trie, BEAM_WIDTH)
        taken.append(1000.0 * (time.perf_counter() - started_s))
    p50, p95 = np.quantile(taken[2:], [0.5, 0.95])
    return float(p50), float(p95)


def made(architecture: str, config: GeneratorConfig, seed: int) -> Generator:
    """A new generator: 'lazy' or 'twin'."""
    torch.manual_seed(seed)
    return Generator(config) if architecture == "lazy" else EncoderDecoder(config)


def first_requests(examples: Examples, count: int) -> Examples:
    """The first `count` requests."""
    return rows_of_examples(examples, slice(count))
