"""The lazy decoder: a user's context once, all depth on the three codes of the next item.

Letters used in this file
    B requests        Q sequences per request (targets when training, beams when serving)
    N context tokens  t positions decoded at once     V codebook size
    H query heads     G key/value head groups         D d_head = d_model / H

Source: OneRec-V2, arXiv:2508.20900 §3. Kept: the context processor without self-attention and the
thin projection to S_kv * L_kv * G_kv * d_head with an RMSNorm per set; cross-attention that owns no
W_k and W_v; the order cross, self, feed-forward; l_kv = floor(l * L_kv / layers); SwiGLU with
d_ff = 4 d_model; an RMSNorm and a head per level. Left out: mixture of experts (the dense model
here is far below the size at which it pays). Chosen where the paper is silent: a context token's
position is its rank from the newest, one learned vector per rank of history and of positives; the
code tables are shared between context and decoder input, so that both speak of the same items.

Weights are kept as (in, out) matrices and used as `x @ w`: the exported graph then holds each of
them under its own name, and a policy update replaces numbers instead of exporting again.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu

from feature_repo.layouts import DIM
from models.batches import ACTIONS, AGE_BUCKETS, LEVELS, PLACE_FEATURES, TOKENS, WATCH_SHARES, ContextBatch

_EXCLUDED = -1e9  # a score that softmax turns into zero, finite so that a row of them is no NaN


@dataclass(frozen=True)
class GeneratorConfig:
    """The shape of a generator. Stored in the manifest; two shapes never share weights."""

    codebook_size: int = 64
    """V, codes per level."""
    d_model: int = 64
    """Width of the decoder."""
    layers: int = 3
    """Decoder blocks."""
    heads: int = 4
    """Query heads; d_head = d_model / heads."""
    kv_groups: int = 4
    """G_kv: key/value heads, shared by heads / kv_groups query heads each."""
    kv_sets: int = 1
    """L_kv: distinct key/value sets; block l reads set floor(l * L_kv / layers)."""
    kv_split: int = 1
    """S_kv: 1 = keys are the values, 2 = separate values."""
    d_feature: int = 16
    """Width of one small feature of a context token (actions, watch share, age)."""

    def __post_init__(self) -> None:
        if self.d_model % self.heads or self.heads % self.kv_groups:
            raise ValueError(
                f"found d_model {self.d_model}, heads {self.heads}, kv_groups {self.kv_groups}; "
                "heads must divide d_model and kv_groups must divide heads"
            )
        if self.kv_split not in (1, 2) or not 1 <= self.kv_sets <= self.layers:
            raise ValueError(
                f"found kv_split {self.kv_split} and kv_sets {self.kv_sets} with {self.layers} layers; "
                "expected kv_split 1 or 2 and 1 <= kv_sets <= layers"
            )

    @property
    def d_head(self) -> int:
        return self.d_model // self.heads

    @property
    def d_context(self) -> int:
        """Elements that one context token leaves behind: S_kv * L_kv * G_kv * d_head."""
        return self.kv_split * self.kv_sets * self.kv_groups * self.d_head


class ContextTensors(NamedTuple):
    """A ContextBatch as tensors: the same fields, shapes and meaning."""

    codes: Tensor
    mask: Tensor
    actions: Tensor
    watch: Tensor
    age: Tensor
    interests: Tensor
    place: Tensor

    def take(self, rows: Tensor) -> "ContextTensors":
        """The context of some requests, in the order of `rows`."""
        return ContextTensors._make(field[rows] for field in self)


def context_tensors(batch: ContextBatch) -> ContextTensors:
    """The batch as CPU tensors that share its memory."""
    return ContextTensors._make(torch.from_numpy(field) for field in batch)


class Memory(NamedTuple):
    """What the context leaves behind for the decoder: computed once per request, read by every block."""

    keys: list[Tensor]  # L_kv tensors (B * G, N, D)
    values: list[Tensor]  # the same tensors when S_kv = 1
    bias: Tensor  # (B * G, 1, N): 0 for a token that is there, a large negative number otherwise


class RMSNorm(nn.Module):
    """x / rms(x), scaled per feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale


def _matrix(rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * gain * rows**-0.5)


class ContextProcessor(nn.Module):
    """Turns a context into ready keys and values. No token looks at another."""

    bit: Tensor  # (ACTIONS,) what each bit of `actions` is worth

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_feature
        self.action_table = nn.Parameter(torch.randn(ACTIONS, width) * 0.5)
        self.watch_table = nn.Parameter(torch.randn(WATCH_SHARES, width) * 0.5)
        self.age_table = nn.Parameter(torch.randn(AGE_BUCKETS, width) * 0.5)
        self.position_table = nn.Parameter(torch.randn(TOKENS, config.d_context) * 0.2)
        self.project = _matrix(LEVELS * config.d_model + 3 * width, config.d_context)
        self.project_interest = _matrix(DIM, config.d_context, gain=DIM**0.5)  # the vectors have unit norm
        self.interest_kind = nn.Parameter(torch.randn(2, config.d_context) * 0.2)
        self.project_place = _matrix(PLACE_FEATURES, config.d_context)
        sets = config.kv_split * config.kv_sets
        self.norms = nn.ModuleList(RMSNorm(config.kv_groups * config.d_head) for _ in range(sets))
        self.register_buffer("bit", 2.0 ** torch.arange(ACTIONS), persistent=False)

    def forward(self, context: ContextTensors, code_tables: Tensor) -> Memory:
        """Keys and values of the context.

        Args:
            context: B requests.
            code_tables: (LEVELS * V, d_model), the vectors of the codes of all levels.
        """
        bits = torch.floor(context.actions[..., None].to(code_tables.dtype) / self.bit) % 2
        of_codes, of_actions, of_watch, of_age = self._projected(code_tables)
        tokens = self.position_table + bits @ of_actions
        for indices, table in ((context.watch, of_watch), (context.age, of_age)):
            tokens = tokens + embedding(indices, table)
        for level in range(LEVELS):
            tokens = tokens + embedding(context.codes[:, :, level], of_codes[level])
        interests = context.interests @ self.project_interest + self.interest_kind
        place = (context.place @ self.project_place)[:, None]
        everything = torch.cat([tokens, interests, place], dim=1)

        present = torch.cat(
            [
                context.mask,
                context.interests.square().sum(-1) > 0,
                torch.ones_like(context.mask[:, :1]),  # so that a stranger's softmax has something to read
            ],
            dim=1,
        )
        groups, d_head, length = self.config.kv_groups, self.config.d_head, present.shape[1]
        bias = torch.where(present, 0.0, _EXCLUDED)[:, None].expand(-1, groups, -1).reshape(-1, 1, length)
        width = groups * d_head
        sets = [
            norm(everything[..., at * width : (at + 1) * width])
            .reshape(-1, length, groups, d_head)
            .transpose(1, 2)
            .reshape(-1, length, d_head)
            for at, norm in enumerate(self.norms)
        ]
        return Memory(sets[:: self.config.kv_split], sets[self.config.kv_split - 1 :: self.config.kv_split], bias)

    def _projected(self, code_tables: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tables of codes (LEVELS, V, .), actions, watch shares and ages, each times its rows of `project`.

        The projection of a token's joined features is the sum of the projected features; so the matrix product runs
        over a few hundred table rows instead of every token. It is the same function, at half the cost of a step.
        """
        items, width = LEVELS * self.config.d_model, self.config.d_feature
        of_codes = self.project[:items].reshape(LEVELS, self.config.d_model, -1)
        actions, watch, age = (
            table @ self.project[items + at * width : items + (at + 1) * width]
            for at, table in enumerate((self.action_table, self.watch_table, self.age_table))
        )
        return torch.bmm(code_tables.reshape(LEVELS, -1, self.config.d_model), of_codes), actions, watch, age


class CrossAttention(nn.Module):
    """Grouped-query attention to the memory. It owns W_q and W_o only."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.w_q = _matrix(config.d_model, config.d_model)
        self.w_o = _matrix(config.d_model, config.d_model, gain=0.5)

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
        self.w_qkv = _matrix(config.d_model, 3 * config.d_model)
        self.w_o = _matrix(config.d_model, config.d_model, gain=0.5)

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
                scores = scores.masked_fill(ahead[..., None], _EXCLUDED)
            weights = torch.softmax(scores, dim=2)[..., None]
            value = (weights * value.reshape(-1, 1, seen, heads, d_head)).sum(2)
        return value.reshape(-1, width) @ self.w_o, now


class FeedForward(nn.Module):
    """SwiGLU with d_ff = 4 d_model: 12 d_model^2 weights."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.d_ff = 4 * config.d_model
        self.w_in = _matrix(config.d_model, 2 * self.d_ff)  # gate and input side by side
        self.w_out = _matrix(self.d_ff, config.d_model, gain=0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = x @ self.w_in
        return (silu(inner[:, : self.d_ff]) * inner[:, self.d_ff :]) @ self.w_out


class Block(nn.Module):
    """Cross-attention, self-attention, feed-forward, each on a normed copy: 18 d_model^2 weights."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.cross_norm, self.cross = RMSNorm(config.d_model), CrossAttention(config)
        self.self_norm, self.self_attention = RMSNorm(config.d_model), SelfAttention(config)
        self.feed_norm, self.feed = RMSNorm(config.d_model), FeedForward(config)

    def forward(
        self, h: Tensor, sequences: int, length: int, kv: tuple[Tensor, Tensor, Tensor], past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """h (B * Q * t, d_model) after the block, and what `SelfAttention` keeps. kv: keys, values and bias to read."""
        h = h + self.cross(self.cross_norm(h), sequences * length, *kv)
        mixed, now = self.self_attention(self.self_norm(h), length, past)
        h = h + mixed
        return h + self.feed(self.feed_norm(h)), now


class Generator(nn.Module):
    """Log-odds of an item's three codes, given a user's context."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.start = nn.Parameter(torch.randn(config.d_model) * 0.5)
        self.code_tables = nn.Parameter(torch.randn(LEVELS * config.codebook_size, config.d_model) * 0.5)
        self.context = ContextProcessor(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.out_norms = nn.ModuleList(RMSNorm(config.d_model) for _ in range(LEVELS))
        self.heads = nn.ParameterList(_matrix(config.d_model, config.codebook_size, gain=0.1) for _ in range(LEVELS))

    def encode(self, context: ContextTensors) -> Memory:
        """The context graph: once per request."""
        memory: Memory = self.context(context, self.code_tables)
        return memory

    def forward(self, context: ContextTensors, targets: Tensor) -> Tensor:
        """Teacher-forced logits.

        Args:
            context: B requests.
            targets: (B, Q, LEVELS) integer codes; the Q targets of a request share its context.

        Returns:
            (B, Q, LEVELS, V) logits; level i sees the codes before i.
        """
        sequences = targets.shape[1]
        shifted = [self._level_input(level, targets[:, :, level - 1]) for level in range(1, LEVELS)]
        h = torch.stack([self.start.expand(shifted[0].shape), *shifted], dim=2)
        h, _ = self._blocks(h.reshape(-1, self.config.d_model), sequences, LEVELS, self.encode(context), None)
        h = h.reshape(-1, sequences, LEVELS, self.config.d_model)
        return torch.stack([self._logits(level, h[:, :, level]) for level in range(LEVELS)], dim=2)

    def step(self, level: int, memory: Memory, codes: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """One level for all beams at once: the same numbers as `forward`, without decoding the prefix again.

        Args:
            level: 0, 1 or 2.
            memory: of B requests.
            codes: (B, Q) code of the level before; at level 0 only the shape counts.
            past: (B, Q, level, layers * 2 d_model) what the steps before returned, joined along the third axis,
                beams rearranged to match `codes`; None at level 0.

        Returns:
            (B, Q, V) logits, and (B, Q, 1, layers * 2 d_model) of this step.
        """
        sequences = codes.shape[1]
        flat = codes.flatten()
        h = self._level_input(level, flat) if level else self.start.expand(flat.shape[0], self.config.d_model)
        h, kept = self._blocks(h, sequences, 1, memory, past)
        logits = self._logits(level, h).reshape(-1, sequences, self.config.codebook_size)
        return logits, kept.reshape(-1, sequences, 1, kept.shape[-1])

    def _level_input(self, level: int, codes: Tensor) -> Tensor:
        return embedding(codes + (level - 1) * self.config.codebook_size, self.code_tables)

    def _blocks(
        self, h: Tensor, sequences: int, length: int, memory: Memory, past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """All blocks on h (B * Q * t, d_model); rows stay flat, so that most of the work is plain matrix products."""
        width, kept = 2 * self.config.d_model, []
        before = None
        for index, block in enumerate(self.blocks):
            at = index * self.config.kv_sets // self.config.layers
            if past is not None:
                before = past[..., index * width : (index + 1) * width].reshape(-1, past.shape[2], width)
            h, now = block(h, sequences, length, (memory.keys[at], memory.values[at], memory.bias), before)
            kept.append(now)
        return h, torch.cat(kept, dim=-1)

    def _logits(self, level: int, h: Tensor) -> Tensor:
        logits: Tensor = self.out_norms[level](h) @ self.heads[level]
        return logits
