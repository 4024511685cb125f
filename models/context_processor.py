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
        bits = torch.floor(context.actions[..., None].to(code_tables.dtype) / self.bit) % 2
        of_codes, of_actions, of_watch, of_age = self._projected(code_tables)
        tokens = self.position_table[: bits.shape[1]] + bits @ of_actions
        for indices, table in ((context.watch, of_watch), (context.age, of_age)):
            tokens = tokens + embedding(indices, table)
        for level in range(LEVELS):
            tokens = tokens + embedding(context.codes[:, :, level], of_codes[level])
        if item_table is not None:
            tokens = tokens + rows_of(item_table, context.items) @ self.project_items
        interests = context.interests @ self.project_interest + self.interest_kind
        place = (context.place @ self.project_place)[:, None]
        everything = torch.cat([self.dropout(tokens), interests, place], dim=1)

        present = torch.cat(
            [
                context.mask,
                context.interests.square().sum(-1) > 0,
                torch.ones_like(context.mask[:, :1]),  # so that a stranger's softmax has something to read
            ],
            dim=1,
        )
        absent = torch.where(present, 0.0, EXCLUDED)[:, None, None]
        for block in self.mixers:
            everything = block(everything, absent)
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

    def forward(self, h: Tensor, bias: Tensor) -> Tensor:
        """h: (B, N, d_model); bias: (B, 1, 1, N), added to the scores."""
        mixed = self.self_norm(h) @ self.w_qkv
        query, key, value = mixed.reshape(*h.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        h = h + self.dropout(read.transpose(1, 2).reshape(h.shape) @ self.w_o)
        fed: Tensor = self.dropout(self.feed(self.feed_norm(h).reshape(-1, h.shape[-1])))
        return h + fed.reshape(h.shape)
