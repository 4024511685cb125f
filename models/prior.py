"""Neighbour evidence as a prior of the generator: at each level, the mass of evidence below each code.

Letters used in this file
    B requests   Q sequences per request   N nodes of the trie   V codes of a level   E items near a history
    I items   S sources of evidence

The evidence of a request (`models.evidence`) is spread over live items: shares of it on those that are near, and a
little on every live item. A prefix has the sum of what stands below it. The logits of a level are moved by the
logarithm of that mass, times a learned gain; with gains of 1 and heads of 0 the generator is the neighbour model
itself, normalised, and what it learns is only how people differ from it.
"""

from typing import Final

import torch
from torch import Tensor, nn

from models.batches import EVIDENCE_SOURCES, LEVELS
from models.trie_tensors import TrieTensors, read

NOTHING: Final = 1e-9  # mass of what is not there, so that it has a logarithm


class NeighbourPrior(nn.Module):
    """Evidence in, mass of every node and logits of every level out."""

    def __init__(self) -> None:
        super().__init__()
        self.source_scale = nn.Parameter(torch.zeros(EVIDENCE_SOURCES))  # log weight of each source
        self.spread = nn.Parameter(torch.zeros(()))  # log of the share of all live items, near ones having 1
        self.gain = nn.Parameter(torch.ones(LEVELS))

    def masses(self, near: Tensor, nearness: Tensor, trie: TrieTensors) -> Tensor:
        """(B, N) the mass at and below each node; the root has 1 + exp(spread), or less where nothing is near.

        Args:
            near: (B, E) catalogue index, -1 = none.
            nearness: (B, E, S).
        """
        leaf = read(trie.leaf, near.clamp(min=0)).clamp(min=0)
        live = (near >= 0) & (read(trie.live, leaf) > 0)
        weight = torch.where(live, (nearness * self.source_scale.exp()).sum(-1), 0.0)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-6)
        below = [leaf]  # and the nodes above it, up to the root
        for _ in range(LEVELS):
            below.append(read(trie.parent, below[-1]).clamp(min=0))
        nothing = torch.zeros_like(weight[:, :1] * trie.live)
        total = nothing.scatter_add(1, torch.cat(below, dim=1).long(), weight.repeat(1, LEVELS + 1))
        live_share = trie.live.to(total.dtype) / trie.live[:1].clamp(min=1).to(total.dtype)
        return total + self.spread.exp() * live_share

    def logits(self, level: int, masses: Tensor, node: Tensor, trie: TrieTensors, size: int) -> Tensor:
        """(B, Q, V) what is added to the logits of the codes that follow `node`.

        Args:
            masses: (B, N) of `masses`.
            node: (B, Q) where each sequence stands in the trie.
            size: V.
        """
        edge = read(trie.row_start, node)[..., None] + torch.arange(size, dtype=node.dtype, device=node.device)
        there = edge < read(trie.row_start, node + 1)[..., None]
        child = read(trie.child, edge)
        found = masses.gather(1, child.flatten(1).long()).reshape(child.shape)
        slot = torch.where(there, read(trie.token, edge), size).long()  # codes that lead nowhere keep the floor
        spread = torch.zeros_like(found[..., :1]).repeat(1, 1, size + 1).scatter(2, slot, found)
        return self.gain[level] * torch.log(spread[..., :size] + NOTHING)
