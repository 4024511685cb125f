"""The context processor: a user's context as ready keys and values, computed once per request.

Letters used in this file
    B requests   N context tokens   V codebook size   G key/value head groups   D d_head = d_model / query heads

Source: OneRec-V2, arXiv:2508.20900 §3. Kept: no self-attention, the thin projection to S_kv * L_kv * G_kv * d_head
with an RMSNorm per set. Chosen where the paper is silent: a token's position is its rank from the newest, one learned
vector per rank of history and of positives. Added, off unless asked for: blocks of self-attention over the context.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

from feature_repo.layouts import DIM
from models.batches import ACTIONS, AGE_BUCKETS, LEVELS, PLACE_FEATURES, WATCH_SHARES, ContextBatch
from models.decoder_block import FeedForward
from models.generator_config import GeneratorConfig
from models.layers import EXCLUDED, RMSNorm, matrix, rows_of


class ContextTensors(NamedTuple):
    """A ContextBatch as tensors: the same fields, shapes and meaning."""

    codes: Tensor
    mask: Tensor
    actions: Tensor
    watch: Tensor
    age: Tensor
    interests: Tensor
    place: Tensor
    items: Tensor
    near: Tensor
    nearness: Tensor

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


class ContextProcessor(nn.Module):
    """Turns a context into ready keys and values. No token looks at another, unless there are context blocks."""

    bit: Tensor  # (ACTIONS,) what each bit of `actions` is worth

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_feature
        self.action_table = nn.Parameter(torch.randn(ACTIONS, width) * 0.5)
        self.watch_table = nn.Parameter(torch.randn(WATCH_SHARES, width) * 0.5)
        self.age_table = nn.Parameter(torch.randn(AGE_BUCKETS, width) * 0.5)
        self.position_table = nn.Parameter(torch.randn(config.tokens, config.d_context) * 0.2)
        self.project = matrix(LEVELS * config.d_model + 3 * width, config.d_context)
        self.project_interest = matrix(DIM, config.d_context, gain=DIM**0.5)  # the vectors have unit norm
        self.interest_kind = nn.Parameter(torch.randn(2, config.d_context) * 0.2)
        self.project_place = matrix(PLACE_FEATURES, config.d_context)
        if config.items:
            self.project_items = matrix(config.d_model, config.d_context)
        self.mixers = nn.ModuleList(ContextBlock(config) for _ in range(config.context_blocks))
        self.dropout = nn.Dropout(config.dropout)
        sets = config.kv_split * config.kv_sets
        self.norms = nn.ModuleList(RMSNorm(config.kv_groups * config.d_head) for _ in range(sets))
        self.register_buffer("bit", 2.0 ** torch.arange(ACTIONS), persistent=False)

    def forward(self, context: ContextTensors, code_tables: Tensor, item_table: Tensor | None = None) -> Memory:
        """Keys and values of the context.

        Args:
            context: B requests.
            code_tables: (LEVELS * V, d_model), the vectors of the codes of all levels.
            item_table: (items, d_model), the vectors of items; others have none.
        """
        interests = context.interests @ self.project_interest + self.interest_kind
        place = (context.place @ self.project_place)[:, None]
        written = _rows(context.mask, self.training)
        tokens = self._tokens(context, written, code_tables, item_table)
        everything = torch.cat([_placed(tokens, written, context.mask), interests, place], dim=1)

        present = torch.cat(
            [
                context.mask,
                context.interests.square().sum(-1) > 0,
                torch.ones_like(context.mask[:, :1]),  # so that a stranger's softmax has something to read
            ],
            dim=1,
        )
        for block in self.mixers:
            everything = block(everything, present)
        groups, d_head, length = self.config.kv_groups, self.config.d_head, present.shape[1]
        bias = torch.where(present, 0.0, EXCLUDED)[:, None].expand(-1, groups, -1).reshape(-1, 1, length)
        width = groups * d_head
        sets = [
            norm(everything[..., at * width : (at + 1) * width])
            .reshape(-1, length, groups, d_head)
            .transpose(1, 2)
            .reshape(-1, length, d_head)
            for at, norm in enumerate(self.norms)
        ]
        return Memory(sets[:: self.config.kv_split], sets[self.config.kv_split - 1 :: self.config.kv_split], bias)

    def _tokens(
        self, context: ContextTensors, rows: Tensor | None, code_tables: Tensor, item_table: Tensor | None
    ) -> Tensor:
        """(R, d_context) of these of the B * N tokens; None = of all."""
        position = torch.arange(context.mask.shape[1], device=context.mask.device).expand(context.mask.shape)
        codes, actions, watch, age, items, position = (
            _flat(field, rows)
            for field in (context.codes, context.actions, context.watch, context.age, context.items, position)
        )
        bits = torch.floor(actions[..., None].to(code_tables.dtype) / self.bit) % 2
        of_codes, of_actions, of_watch, of_age = self._projected(code_tables)
        tokens = embedding(position, self.position_table) + bits @ of_actions
        for indices, table in ((watch, of_watch), (age, of_age)):
            tokens = tokens + embedding(indices, table)
        for level in range(LEVELS):
            tokens = tokens + embedding(codes[:, level], of_codes[level])
        if item_table is not None:
            tokens = tokens + rows_of(item_table, items) @ self.project_items
        dropped: Tensor = self.dropout(tokens)
        return dropped

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


class ContextBlock(nn.Module):
    """Full self-attention over the context and feed-forward, each on a normed copy: 16 d_model^2 weights."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.heads, width = config.heads, config.d_model
        self.self_norm, self.feed_norm = RMSNorm(width), RMSNorm(width)
        self.w_qkv = matrix(width, 3 * width)
        self.w_o = matrix(width, width, gain=0.5)
        self.feed = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """h: (B, N, d_model); present: (B, N) flags. What is left of tokens that are absent is nothing to read."""
        rows, d_head = _rows(present, self.training), h.shape[-1] // self.heads
        there = _flat(h, rows)
        mixed = _placed(self.self_norm(there) @ self.w_qkv, rows, present)
        query, key, value = mixed.reshape(*h.shape[:2], 3, self.heads, d_head).permute(2, 0, 3, 1, 4)
        bias = torch.where(present, 0.0, EXCLUDED)[:, None, None]
        read = scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).reshape(h.shape)
        there = there + self.dropout(_flat(read, rows) @ self.w_o)
        there = there + self.dropout(self.feed(self.feed_norm(there)))
        return _placed(there, rows, present)


def _rows(present: Tensor, training: bool) -> Tensor | None:
    """(R,) which of the B * N tokens are worked on: in training on the CPU those that are there, since histories are
    mostly shorter than the context; else all of them (None), so that shapes do not follow the data."""
    return torch.nonzero(present.flatten()).squeeze(1) if training and present.device.type == "cpu" else None


def _flat(tokens: Tensor, rows: Tensor | None) -> Tensor:
    """(R, ...) the rows of (B, N, ...)."""
    flat = tokens.flatten(0, 1)
    return flat if rows is None else flat[rows]


def _placed(tokens: Tensor, rows: Tensor | None, present: Tensor) -> Tensor:
    """(B, N, d) from (R, d): zeros where there is no row."""
    if rows is not None:
        tokens = tokens.new_zeros(present.numel(), tokens.shape[1]).index_copy(0, rows, tokens)
    return tokens.reshape(*present.shape, tokens.shape[-1])
