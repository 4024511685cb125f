"""The lazy decoder: a user's context once, all depth on the three codes of the next item.

Letters used in this file
    B requests        Q sequences per request (targets when training, beams when serving)
    N context tokens  t positions decoded at once     V codebook size
    H query heads     G key/value head groups         D d_head = d_model / H

Source: OneRec-V2, arXiv:2508.20900 §3. Kept: the context processor without self-attention and the
thin projection to S_kv * L_kv * G_kv * d_head with an RMSNorm per set; cross-attention that owns no
W_k and W_v; the order cross, self, feed-forward; l_kv = floor(l * L_kv / layers); SwiGLU with
d_ff = 4 d_model, or experts in deeper blocks (models.experts); an RMSNorm and a head per level.
Chosen where the paper is silent: a context token's position is its rank from the newest, one
learned vector per rank of history and of positives; the code tables are shared between context and
decoder input, so that both speak of the same items.

Added to the paper's model, each off unless asked for (docs/log.md has what each earned): blocks of
self-attention over the context, which otherwise sees no two items together; a table of items beside
the codes, hidden at random in training so that new items are no strangers; a prior of neighbour
evidence (models.prior); a head over items on the state before the first code (models.item_head),
which says of what the beams found how good it is.

Weights are kept as (in, out) matrices and used as `x @ w`: the exported graph then holds each of
them under its own name, and a policy update replaces numbers instead of exporting again.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention, silu

from core.errors import ContractError
from feature_repo.layouts import DIM
from models.batches import ACTIONS, AGE_BUCKETS, LEVELS, PLACE_FEATURES, TOKENS, WATCH_SHARES, ContextBatch
from models.experts import Experts
from models.item_head import ItemHead
from models.layers import RMSNorm, matrix
from models.prior import NeighbourPrior
from models.trie_tensors import TrieTensors, nodes_of, read

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
    tokens: int = TOKENS
    """Context tokens at most that name an item; a batch may have fewer, and then lacks the last positions."""
    d_feature: int = 16
    """Width of one small feature of a context token (actions, watch share, age)."""
    experts: int = 0
    """Routed experts of a feed-forward, beside a shared one; 0 = one dense feed-forward."""
    experts_chosen: int = 3
    """Routed experts of each position."""
    d_expert: int = 0
    """Width inside an expert; 0 = 4 d_model / (experts_chosen + 1), which costs a position what the dense one does."""
    dense_blocks: int = 2
    """Blocks before the first with experts."""
    context_blocks: int = 0
    """Blocks of self-attention over the context; they need one key/value set as wide as the model."""
    items: int = 0
    """Rows of the table of items: the catalogue when the model is made; later items have none. 0 = no table."""
    item_head: bool = False
    """Whether items are scored as wholes beside their codes; needs the table of items."""
    prior: bool = False
    """Whether neighbour evidence moves the logits."""
    dropout: float = 0.0
    """Share of features hidden inside the model while it trains."""
    item_dropout: float = 0.1
    """Share of rows of the table of items hidden at each step of training."""

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
        if self.experts and not 1 <= self.experts_chosen <= self.experts:
            raise ValueError(
                f"found experts_chosen {self.experts_chosen} of {self.experts} experts; expected 1 to all of them"
            )
        if self.context_blocks and self.d_context != self.d_model:
            raise ValueError(
                f"found context_blocks {self.context_blocks} with d_context {self.d_context}; expected d_context "
                f"{self.d_model}, the width of the model: one set, not split, as many groups as heads"
            )
        if self.item_head and not self.items:
            raise ValueError("found an item head without a table of items; set items to the size of the catalogue")

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
    """Turns a context into ready keys and values. No token looks at another."""

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
            item_table: (items + 1, d_model), the vectors of items, the last row that of all others.
        """
        bits = torch.floor(context.actions[..., None].to(code_tables.dtype) / self.bit) % 2
        of_codes, of_actions, of_watch, of_age = self._projected(code_tables)
        tokens = self.position_table[: bits.shape[1]] + bits @ of_actions
        for indices, table in ((context.watch, of_watch), (context.age, of_age)):
            tokens = tokens + embedding(indices, table)
        for level in range(LEVELS):
            tokens = tokens + embedding(context.codes[:, :, level], of_codes[level])
        if item_table is not None:
            known = context.items.clamp(max=self.config.items)
            tokens = tokens + embedding(known, item_table) @ self.project_items
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
        absent = torch.where(present, 0.0, _EXCLUDED)[:, None, None]
        for block in self.mixers:
            everything = block(everything, absent)
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
                scores = scores.masked_fill(ahead[..., None], _EXCLUDED)
            weights = torch.softmax(scores, dim=2)[..., None]
            value = (weights * value.reshape(-1, 1, seen, heads, d_head)).sum(2)
        return value.reshape(-1, width) @ self.w_o, now


class FeedForward(nn.Module):
    """SwiGLU with d_ff = 4 d_model: 12 d_model^2 weights."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.d_ff = 4 * config.d_model
        self.w_in = matrix(config.d_model, 2 * self.d_ff)  # gate and input side by side
        self.w_out = matrix(self.d_ff, config.d_model, gain=0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = x @ self.w_in
        return (silu(inner[:, : self.d_ff]) * inner[:, self.d_ff :]) @ self.w_out


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


class Step(NamedTuple):
    """One level of all beams."""

    logits: Tensor  # (B, Q, V)
    kept: Tensor  # (B, Q, 1, layers * 2 d_model) keys and values of this step
    state: Tensor  # (B, Q, d_model) before the level's norm


class Decoded(NamedTuple):
    """What teacher forcing gives."""

    logits: Tensor  # (B, Q, LEVELS, V); level i sees the codes before i
    item_logits: Tensor | None  # (B, items) of the item head over the whole catalogue; None without one


class Generator(nn.Module):
    """Log-odds of an item's three codes, given a user's context."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.start = nn.Parameter(torch.randn(config.d_model) * 0.5)
        self.code_tables = nn.Parameter(torch.randn(LEVELS * config.codebook_size, config.d_model) * 0.5)
        self.context = ContextProcessor(config)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.layers))
        self.out_norms = nn.ModuleList(RMSNorm(config.d_model) for _ in range(LEVELS))
        self.heads = nn.ParameterList(matrix(config.d_model, config.codebook_size, gain=0.1) for _ in range(LEVELS))

        if config.items:
            self.item_table = nn.Parameter(torch.randn(config.items, config.d_model) * 0.05)
        if config.prior:
            self.prior = NeighbourPrior()
        if config.item_head:
            self.item_head = ItemHead(config.d_model, config.items, config.dropout)
        self.dropout = nn.Dropout(config.dropout / 2)  # of what the heads read

    def encode(self, context: ContextTensors) -> Memory:
        """The context graph: once per request."""
        memory: Memory = self.context(context, self.code_tables, self.item_vectors())
        return memory

    def forward(self, context: ContextTensors, targets: Tensor, trie: TrieTensors | None = None) -> Tensor:
        """`decode` without an item head: (B, Q, LEVELS, V) logits."""
        return self.decode(context, targets, trie).logits

    def decode(
        self,
        context: ContextTensors,
        targets: Tensor,
        trie: TrieTensors | None = None,
        catalogue: Tensor | None = None,
    ) -> Decoded:
        """Teacher-forced logits.

        Args:
            context: B requests.
            targets: (B, Q, LEVELS) integer codes; the Q targets of a request share its context.
            trie: of the catalogue; needed by a prior.
            catalogue: (items, LEVELS) codes of every item; asks for the logits of the item head.

        Raises:
            ContractError: there is a prior and no trie.
        """
        sequences, size = targets.shape[1], self.config.codebook_size
        shifted = [self._level_input(level, targets[:, :, level - 1]) for level in range(1, LEVELS)]
        h = torch.stack([self.start.expand(shifted[0].shape), *shifted], dim=2)
        items = self.item_vectors()
        memory: Memory = self.context(context, self.code_tables, items)
        h, _ = self._blocks(h.reshape(-1, self.config.d_model), sequences, LEVELS, memory, None)
        h = self.dropout(h.reshape(-1, sequences, LEVELS, self.config.d_model))
        logits = [self._logits(level, h[:, :, level]) for level in range(LEVELS)]
        masses = self.masses(context, trie)
        if masses is not None and trie is not None:
            nodes = nodes_of(trie, targets, size)
            logits = [
                given + self.prior.logits(level, masses, nodes[..., level], trie, size)
                for level, given in enumerate(logits)
            ]
        scored = None
        if catalogue is not None and items is not None:
            every = torch.arange(len(catalogue), device=h.device)
            # Every sequence of a request begins alike: the first says it for all.
            scored = self._all_items(h[:, 0, 0], items[:-1], catalogue, _at_leaves(masses, every, trie))
        return Decoded(torch.stack(logits, dim=2), scored)

    def masses(self, context: ContextTensors, trie: TrieTensors | None) -> Tensor | None:
        """(B, N) neighbour evidence of each node; None without a prior.

        Raises:
            ContractError: there is a prior and no trie.
        """
        if not self.config.prior:
            return None
        if trie is None:
            raise ContractError("found a prior but no trie to spread it over; hand in the trie of the catalogue")
        masses: Tensor = self.prior.masses(context.near, context.nearness, trie)
        return masses

    def item_vectors(self) -> Tensor | None:
        """(items + 1, d_model) the table of items, the last row that of all others; None without one. In training
        some rows are hidden, for one step."""
        if not self.config.items:
            return None
        table: Tensor = self.item_table
        if self.training and self.config.item_dropout:
            table = table * (torch.rand(len(table), 1, device=table.device) >= self.config.item_dropout)
        return torch.cat([table, torch.zeros_like(table[:1])])

    def step(self, level: int, memory: Memory, codes: Tensor, past: Tensor | None) -> Step:
        """One level for all beams at once: the same numbers as `forward`, without decoding the prefix again and
        without the prior.

        Args:
            level: 0, 1 or 2.
            memory: of B requests.
            codes: (B, Q) code of the level before; at level 0 only the shape counts.
            past: (B, Q, level, layers * 2 d_model) what the steps before have kept, joined along the third axis,
                beams rearranged to match `codes`; None at level 0.
        """
        sequences = codes.shape[1]
        flat = codes.flatten()
        h = self._level_input(level, flat) if level else self.start.expand(flat.shape[0], self.config.d_model)
        h, kept = self._blocks(h, sequences, 1, memory, past)
        logits = self._logits(level, h).reshape(-1, sequences, self.config.codebook_size)
        return Step(logits, kept.reshape(-1, sequences, 1, kept.shape[-1]), h.reshape(-1, sequences, h.shape[-1]))

    def score_items(self, state: Tensor, items: Tensor, codes: Tensor, masses: Tensor | None, node: Tensor) -> Tensor:
        """(B, K) what the item head says of some items.

        Args:
            state: (B, d_model) before the first code.
            items: (B, K) catalogue index, below 0 = none.
            codes: (B, K, LEVELS) their paths.
            node: (B, K) where the paths end.
        """
        table = self.item_vectors()
        if table is None:
            raise ContractError("found no table of items; ask a generator that has an item head")
        row = items.clamp(min=0, max=self.config.items)
        vectors = self.item_head.vectors(embedding(row, table), self._code_vectors(codes))
        logits = (vectors @ self.item_head.query(state)[..., None]).squeeze(-1) + read(self.item_head.bias, row)
        mass = None if masses is None else masses.gather(1, node.long())
        scored: Tensor = self.item_head.with_evidence(logits, mass)
        return scored

    def _all_items(self, state: Tensor, table: Tensor, catalogue: Tensor, mass: Tensor | None) -> Tensor:
        vectors = self.item_head.vectors(table, self._code_vectors(catalogue))
        logits = self.item_head.query(state) @ vectors.T + self.item_head.bias[:-1]
        scored: Tensor = self.item_head.with_evidence(logits, mass)
        return scored

    def _code_vectors(self, codes: Tensor) -> Tensor:
        """(..., d_model) the sum of the vectors of a path's codes."""
        offsets = torch.arange(LEVELS, device=codes.device) * self.config.codebook_size
        return embedding(codes.clamp(min=0) + offsets, self.code_tables).sum(-2)

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


def _at_leaves(masses: Tensor | None, items: Tensor, trie: TrieTensors | None) -> Tensor | None:
    """(B, len(items)) the mass of items of the catalogue."""
    return None if masses is None or trie is None else masses.index_select(1, read(trie.leaf, items).clamp(min=0))
