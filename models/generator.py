"""The lazy decoder: a user's context once, all depth on the three codes of the next item.

Letters used in this file
    B requests        Q sequences per request (targets when training, beams when serving)
    N context tokens  t positions decoded at once     V codebook size

Source: OneRec-V2, arXiv:2508.20900 §3. Kept: the context processor (models.context_processor); blocks
whose cross-attention owns no W_k and W_v, in the order cross, self, feed-forward (models.decoder_block);
l_kv = floor(l * L_kv / layers); an RMSNorm and a head per level. Chosen where the paper is silent: the
code tables are shared between context and decoder input, so that both speak of the same items.

Added to the paper's model, each off unless asked for (docs/log.md has what each earned): a table of
items beside the codes, hidden at random in training so that new items are no strangers; a prior of
neighbour evidence (models.prior); a head over items on the state before the first code
(models.item_head), which says of what the beams found how good it is, and one over the words of items
that came later (models.words); a value head (models.value_head), which says what would follow if an
item were shown.

Weights are kept as (in, out) matrices and used as `x @ w`: the exported graph then holds each of
them under its own name, and a policy update replaces numbers instead of exporting again.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from core.errors import ContractError
from models.batches import LEVELS
from models.context_processor import ContextProcessor, ContextTensors, Memory
from models.decoder_block import Block
from models.generator_config import GeneratorConfig
from models.item_head import ItemHead
from models.layers import EXCLUDED, RMSNorm, matrix, rows_of
from models.prior import Evidence, NeighbourPrior
from models.trie_tensors import Children, TrieTensors, children_of, every_code, nodes_of, read
from models.value_head import ValueHead
from models.words import Words

_LEAST: Final = 1e-30  # share of codes that lead nowhere, so that it has a logarithm


class Step(NamedTuple):
    """One level of all beams."""

    logits: Tensor  # (B, Q, V)
    kept: Tensor  # (B, Q, 1, layers * 2 d_model) keys and values of this step
    state: Tensor  # (B, Q, d_model) before the level's norm


class Decoded(NamedTuple):
    """What teacher forcing gives."""

    logits: Tensor  # (B, Q, LEVELS, V); level i sees the codes before i
    item_logits: Tensor | None  # (B, items) of the item head over the whole catalogue; None without one
    word_logits: Tensor | None = None  # (B, items) of the words of the same; None without words


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
            self.item_head = ItemHead(config.d_model, config.items, config.dropout, evidence=config.prior)
        if config.words:
            self.words = Words(config.d_model, config.items, config.dropout)
        if config.value_items:
            self.value_head = ValueHead(config.d_model, config.value_items).requires_grad_(False)  # trained apart
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
            trie: of the catalogue; needed by a prior and by words.
            catalogue: (items, LEVELS) codes of every item; asks for the logits of the item head, and of words.

        Raises:
            ContractError: there is a prior, or words that are asked for, and no trie.
        """
        sequences, size = targets.shape[1], self.config.codebook_size
        shifted = [self._level_input(level, targets[:, :, level - 1]) for level in range(1, LEVELS)]
        h = torch.stack([self.start.expand(shifted[0].shape), *shifted], dim=2)
        items = self.item_vectors()
        memory: Memory = self.context(context, self.code_tables, items)
        h, _ = self._blocks(h.reshape(-1, self.config.d_model), sequences, LEVELS, memory, None)
        h = self.dropout(h.reshape(-1, sequences, LEVELS, self.config.d_model))
        logits = [self._logits(level, h[:, :, level]) for level in range(LEVELS)]
        evidence = self.evidence(context, trie)
        if evidence is not None and trie is not None:
            nodes = nodes_of(trie, targets, size)
            logits = [
                self.with_evidence(level, given, evidence, nodes[..., level], trie)
                for level, given in enumerate(logits)
            ]
        scored, said = None, None
        if catalogue is not None and items is not None:
            # Every sequence of a request begins alike: the first says it for all.
            scored = self._all_items(h[:, 0, 0], items, catalogue, evidence, trie)
            if self.config.words:
                if trie is None or not trie.words.shape[1]:
                    raise ContractError("found words but no trie that holds them; hand in the trie of a Catalog")
                said = self.words.of_known(h[:, 0, 0], trie.words[: len(catalogue)])
        return Decoded(torch.stack(logits, dim=2), scored, said)

    def evidence(self, context: ContextTensors, trie: TrieTensors | None) -> Evidence | None:
        """The neighbour evidence of each request; None without a prior.

        Raises:
            ContractError: there is a prior and no trie.
        """
        if not self.config.prior:
            return None
        if trie is None:
            raise ContractError("found a prior but no trie to spread it over; hand in the trie of the catalogue")
        nearness = context.nearness
        if self.config.new_items != 1:
            new = (context.near >= self.config.items)[..., None]
            nearness = torch.where(new, nearness * self.config.new_items, nearness)
        return self.prior.evidence(context.near, nearness, trie)

    def with_evidence(self, level: int, logits: Tensor, evidence: Evidence, node: Tensor, trie: TrieTensors) -> Tensor:
        """(B, Q, V) the logits of the codes that follow `node`, moved by the evidence.

        A last code that leads to an item without a row in the table of items has the evidence alone: nothing has
        taught the head that somebody stands there, and what it says of that code it has from other prefixes.
        """
        size = self.config.codebook_size
        children = children_of(trie, node, every_code(size, node))
        if self.config.items and level == LEVELS - 1:
            logits = torch.where(children.by_code(self._without_row(children, trie), size) > 0, 0.0, logits)
        masses = children.by_code(self.prior.masses(level, evidence, node, children, trie), size)
        moved: Tensor = logits + self.prior.logits(level, masses)
        return moved

    def of_children(
        self, level: int, logits: Tensor, evidence: Evidence | None, node: Tensor, children: Children, trie: TrieTensors
    ) -> tuple[Tensor, Tensor]:
        """What `with_evidence` says, at the cost of the children of `node` and not of all codes.

        Returns:
            (B, Q, C) logits of the children, and (B, Q, 1) the log of the sum of exp over all V codes.
        """
        said, whole = logits.gather(-1, children.token.long()), torch.logsumexp(logits, dim=-1, keepdim=True)
        if evidence is None:
            return said, whole
        # Codes that lead nowhere have the mass of nothing, all alike: what they sum to is what the children leave.
        theirs = torch.logsumexp(torch.where(children.there, said, EXCLUDED), dim=-1, keepdim=True)
        nowhere = whole + torch.log((1 - torch.exp(theirs - whole)).clamp(min=_LEAST))
        nowhere = nowhere + self.prior.logits(level, torch.zeros_like(nowhere))
        if self.config.items and level == LEVELS - 1:
            said = torch.where(self._without_row(children, trie) > 0, 0.0, said)
        said = said + self.prior.logits(level, self.prior.masses(level, evidence, node, children, trie))
        every = torch.cat([nowhere, torch.where(children.there, said, EXCLUDED)], dim=-1)
        return said, torch.logsumexp(every, dim=-1, keepdim=True)

    def _without_row(self, children: Children, trie: TrieTensors) -> Tensor:
        """(B, Q, C) 1 where a child is the leaf of an item without a row in the table of items, else 0."""
        return (read(trie.leaf_item, children.node) >= self.config.items).to(torch.uint8)

    def item_vectors(self) -> Tensor | None:
        """(items, d_model) the table of items; None without one. In training some rows are hidden, for one step."""
        if not self.config.items:
            return None
        table: Tensor = self.item_table
        if self.training and self.config.item_dropout:
            table = table * (torch.rand(len(table), 1, device=table.device) >= self.config.item_dropout)
        return table

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

    def score_items(
        self, state: Tensor, items: Tensor, codes: Tensor, evidence: Evidence | None, trie: TrieTensors
    ) -> Tensor:
        """(B, K) what the item head says of some items, and the words of those without a row where there are words.

        Args:
            state: (B, d_model) before the first code.
            items: (B, K) catalogue index, below 0 = none.
            codes: (B, K, LEVELS) their paths.
            evidence: of the requests, where there is a prior.
        """
        table = self.item_vectors()
        if table is None:
            raise ContractError("found no table of items; ask a generator that has an item head")
        row = items.clamp(min=0, max=self.config.items)
        vectors = self.item_head.vectors(rows_of(table, items), self.code_vectors(codes))
        logits = (vectors @ self.item_head.query(state)[..., None]).squeeze(-1) + read(self.item_head.bias, row)
        if self.config.words:
            said = trie.words.index_select(0, items.flatten().clamp(min=0)).reshape(*items.shape, -1)
            of_words = self.config.words * self.words(state, said)
            logits = torch.where(items < self.config.items, logits, of_words)
        mass = None if evidence is None else self.prior.of_items(evidence, items, trie)
        scored: Tensor = self.item_head.with_evidence(logits, mass)
        return scored

    def values(self, state: Tensor, items: Tensor, codes: Tensor) -> Tensor:
        """(B, K, R) the odds of each outcome if these items were shown; arguments as in `score_items`."""
        odds: Tensor = self.value_head.odds(state, self.code_vectors(codes), items)
        return odds

    def _all_items(
        self, state: Tensor, table: Tensor, catalogue: Tensor, evidence: Evidence | None, trie: TrieTensors | None
    ) -> Tensor:
        """(B, items) what `score_items` says of every item, where what evidence costs follows the near ones."""
        head = self.item_head
        # Codes are projected before they are summed: a few hundred rows in place of one an item.
        of_codes = embedding_bag(self._rows_of_codes(catalogue), self.code_tables @ head.w_codes, mode="sum")
        vectors = table @ head.w_item + of_codes
        if evidence is None or trie is None:
            return torch.addmm(head.bias[:-1], head.query(state), vectors.T)
        alike, more = self.prior.logs_of_all(evidence, trie)
        logits = torch.addmm(head.bias[:-1] + head.gain * alike[: len(table)], head.query(state), vectors.T)
        known = (evidence.near >= 0) & (evidence.near < len(table))
        near = torch.where(known, evidence.near, 0).long()
        return logits.scatter_add_(1, near, head.gain * torch.where(known, more, 0.0))

    def code_vectors(self, codes: Tensor) -> Tensor:
        """(..., d_model) the sum of the vectors of a path's codes."""
        return embedding(self._rows_of_codes(codes), self.code_tables).sum(-2)

    def _rows_of_codes(self, codes: Tensor) -> Tensor:
        """(..., LEVELS) where the table of all levels has a path's codes."""
        return codes.clamp(min=0) + torch.arange(LEVELS, device=codes.device) * self.config.codebook_size

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


def begun(config: GeneratorConfig, vectors: npt.NDArray[np.float32], seed: int) -> Generator:
    """A new generator whose table of items begins as the items' vectors, turned at random into its width.

    Args:
        vectors: (items, D) of the catalogue.
        seed: of the turn and of all other weights.
    """
    torch.manual_seed(seed)
    generator = Generator(config)
    turn = torch.randn(vectors.shape[1], config.d_model) * config.d_model**-0.5
    with torch.no_grad():
        generator.item_table.copy_(torch.from_numpy(vectors) @ turn)
    return generator
