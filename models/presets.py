"""Generators by name: the sizes of the paper, and ours for two cores.

Source: OneRec-V2, arXiv:2508.20900, Table 5. Read off the table and checked by tests: a block has 18 d_model^2
weights, a feature is d_model / 20 wide, the learning rate is 5e-4 * sqrt(0.1e9 / weights of the blocks).
The codebook of 3 x 8192 is OneRec's (arXiv:2506.13695); V2 names none. Tables, heads and context come on top of the
size in the name, as in the paper. Ours train at the learning rate that was found on our data, not by that rule.
"""

import math
from dataclasses import replace
from typing import Final, NamedTuple

import torch

from models.generator import Generator
from models.generator_config import GeneratorConfig

RULE_WEIGHTS: Final = 0.1e9  # of the smallest size of the paper, in its rule for the learning rate
RULE_RATE: Final = 5e-4


class Preset(NamedTuple):
    """A size and how it is trained."""

    config: GeneratorConfig
    learning_rate: float  # peak


class Counts(NamedTuple):
    """Weights of a generator."""

    blocks: int  # matrices of the decoder's blocks: the size that a preset is named by
    active: int  # those of them that one position meets; fewer than `blocks` with experts
    everything: int  # with norms, tables, heads and context


def learning_rate_of(weights: float) -> float:
    """The paper's peak learning rate for a model of so many (active) weights."""
    return RULE_RATE * math.sqrt(RULE_WEIGHTS / weights)


def _paper(size: float, d_model: int, layers: int, heads: int, d_feature: int) -> Preset:
    config = GeneratorConfig(
        codebook_size=8_192,
        d_model=d_model,
        layers=layers,
        heads=heads,
        kv_groups=heads,
        tokens=512,
        d_feature=d_feature,
    )
    return Preset(config, learning_rate_of(size))


_HALF: Final = _paper(0.5e9, 1408, 14, 11, 70)

PRESETS: Final[dict[str, Preset]] = {
    "tiny": Preset(GeneratorConfig(d_model=32, layers=2), 6e-3),
    "small": Preset(GeneratorConfig(), 6e-3),
    "medium": Preset(GeneratorConfig(d_model=128, layers=4), 3e-3),
    "large": Preset(GeneratorConfig(d_model=256, layers=6), 1.5e-3),
    "0.1B": _paper(0.1e9, 640, 12, 10, 32),
    "0.2B": _paper(0.2e9, 896, 12, 14, 45),
    "0.5B": _HALF,
    "1B": _paper(1e9, 1792, 18, 14, 90),
    "2B": _paper(2e9, 2304, 22, 18, 115),
    "4B": _paper(4e9, 2944, 26, 23, 147),
    "8B": _paper(8e9, 3584, 34, 28, 179),
    "moe-4B": Preset(replace(_HALF.config, experts=53, experts_chosen=3, d_expert=1408), _HALF.learning_rate),
}


def count_weights(config: GeneratorConfig) -> Counts:
    """The weights of a generator of this shape; none of them is allocated."""
    with torch.device("meta"):
        generator = Generator(config)
    blocks = sum(weight.numel() for weight in generator.blocks.parameters() if weight.ndim > 1)
    routed = sum(
        weight.numel()
        for name, weight in generator.blocks.named_parameters()
        if name.endswith((".feed.w_in", ".feed.w_out")) and weight.ndim == 3
    )
    idle = routed * (config.experts - config.experts_chosen) // config.experts if routed else 0
    return Counts(blocks, blocks - idle, sum(weight.numel() for weight in generator.parameters()))


def memory_elements(config: GeneratorConfig, tokens: float) -> float:
    """Elements of keys and values that `tokens` context tokens leave behind: S_kv * L_kv * G_kv * d_head * N."""
    return config.d_context * tokens
