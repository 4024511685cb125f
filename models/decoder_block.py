"""One block of the lazy decoder: cross-attention without key and value weights, self-attention, feed-forward.

Letters used in this file
    B requests   Q sequences per request   t positions decoded at once   G key/value head groups   D d_head

Source: OneRec-V2, arXiv:2508.20900 §3. Kept: no W_k and W_v in cross-attention, the order of the three parts, SwiGLU
with d_ff = 4 d_model, or experts in deeper blocks (models.experts).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from models.experts import Experts
from models.generator_config import GeneratorConfig
from models.layers import EXCLUDED, RMSNorm, matrix


class CrossAttention(nn.Module):
    """Grouped-query attention to the memory. It owns W_q and W_o only."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.w_q = matrix(config.d_model, config.d_model)
        self.w_o = matrix(config.d_model, config.d_model, gain=0.5)

    def forward(self, x: Tensor, rows: int, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """(B * rows, d_model) -> the same shape. Keys and values are never copied per row."""
        groups, d_head = self.config.kv_groups, self.config.d_head
        per_group = self.config.heads // groups
        query = (x @ self.w_q * d_head**-0.5).reshape(-1, rows, groups, per_group * d_head).transpose(1, 2)
        query = query.reshape(-1, rows * per_group, d_head)
        weights = torch.softmax(torch.bmm(query, keys.transpose(1, 2)) + bias, dim=-1)
        mixed = torch.bmm(weights, values).reshape(-1, groups, rows, per_group * d_head).transpose(1, 2)
        return mixed.reshape(-1, self.config.d_model) @ self.w_o


class SelfAttention(nn.Module):
    """Causal attention over the positions of one sequence. With at most three of them, products summed in place
    of matrix products: nothing is transposed."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.w_qkv = matrix(config.d_model, 3 * config.d_model)
        self.w_o = matrix(config.d_model, config.d_model, gain=0.5)

    def forward(self, x: Tensor, length: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix the positions of each sequence.

        Args:
            x: (B * Q * t, d_model).
            length: t.
            past: (B * Q, p, 2 d_model) keys and values of the positions before.

        Returns:
            (B * Q * t, d_model), and (B * Q, t, 2 d_model) keys and values of these positions.
        """
        width, heads, d_head = self.config.d_model, self.config.heads, self.config.d_head
        mixed = (x @ self.w_qkv).reshape(-1, length, 3 * width)
        query, now = mixed[..., :width], mixed[..., width:]
        memory = now if past is None else torch.cat([past, now], dim=1)
        key, value = memory[..., :width], memory[..., width:]
        seen = memory.shape[1]
        if seen > 1:
            query = query.reshape(-1, length, 1, heads, d_head) * d_head**-0.5
            scores = (query * key.reshape(-1, 1, seen, heads, d_head)).sum(-1)
            if length > 1:
                ahead = torch.ones(length, seen, dtype=torch.bool, device=x.device).triu(1)
                scores = scores.masked_fill(ahead[..., None], EXCLUDED)
            weights = torch.softmax(scores, dim=2)[..., None]
            value = (weights * value.reshape(-1, 1, seen, heads, d_head)).sum(2)
        return value.reshape(-1, width) @ self.w_o, now


class FeedForward(nn.Module):
    """SwiGLU with d_ff = 4 d_model: 12 d_model^2 weights."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        d_ff = 4 * config.d_model
        self.w_in = matrix(config.d_model, 2 * d_ff)  # gate and input side by side
        self.w_out = matrix(d_ff, config.d_model, gain=0.5)

    def forward(self, x: Tensor) -> Tensor:
        gate, inner = (x @ self.w_in).chunk(2, dim=-1)  # their gradients join as one; those of slices are padded
        return (silu(gate) * inner) @ self.w_out


def feed_forward(config: GeneratorConfig, index: int) -> nn.Module:
    """The feed-forward of block `index`: dense, or experts in the deeper blocks."""
    if not config.experts or index < config.dense_blocks:
        return FeedForward(config)
    width = config.d_expert or 4 * config.d_model // (config.experts_chosen + 1)
    return Experts(config.d_model, width, config.experts, config.experts_chosen)


class Block(nn.Module):
    """Cross-attention, self-attention, feed-forward, each on a normed copy: 18 d_model^2 weights when dense."""

    def __init__(self, config: GeneratorConfig, index: int = 0) -> None:
        super().__init__()
        self.cross_norm, self.cross = RMSNorm(config.d_model), CrossAttention(config)
        self.self_norm, self.self_attention = RMSNorm(config.d_model), SelfAttention(config)
        self.feed_norm, self.feed = RMSNorm(config.d_model), feed_forward(config, index)

    def forward(
        self, h: Tensor, sequences: int, length: int, kv: tuple[Tensor, Tensor, Tensor], past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """h (B * Q * t, d_model) after the block, and what `SelfAttention` keeps. kv: keys, values and bias to read."""
        h = h + self.cross(self.cross_norm(h), sequences * length, *kv)
        mixed, now = self.self_attention(self.self_norm(h), length, past)
        h = h + mixed
        return h + self.feed(self.feed_norm(h)), now
