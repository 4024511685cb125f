"""Neighbour evidence as a prior of the generator: at each level, the mass of evidence below each code.

Letters used in this file
    B requests   Q sequences per request   N nodes of the trie   V codes of a level   E items near a history
    I items   K items that are asked for   S sources of evidence   L levels   C children that are read of a node

The evidence of a request (`models.evidence`) is spread over live items: shares of it on those that are near, and a
little, alike, on every live item. A prefix has the sum of what stands below it. The logits of a level are moved by the
logarithm of that mass, times a learned gain; with gains of 1 and heads of 0 the generator is the neighbour model
itself, normalised, and what it learns is only how people differ from it.

A request holds no number per node: each near item says which node it stands below at every level, so what a request
costs follows E, not the catalogue.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from models.batches import EVIDENCE_SOURCES, LEVELS
from models.trie_tensors import Children, TrieTensors, read

NOTHING: Final = 1e-9  # mass of what is not there, so that it has a logarithm


class Evidence(NamedTuple):
    """What the items near a history say, placed in the trie."""

    near: Tensor  # (B, E) catalogue index, each at most once, -1 = none
    weight: Tensor  # (B, E) share of each live item; they sum to 1, or to 0 where nothing live is near
    nodes: Tensor  # (B, E, L + 1) from the root to the item's leaf; all the root where the item has no path


class NeighbourPrior(nn.Module):
    """Evidence in, mass of every code and item and logits of every level out."""

    def __init__(self) -> None:
        super().__init__()
        self.source_scale = nn.Parameter(torch.zeros(EVIDENCE_SOURCES))  # log weight of each source
        self.spread = nn.Parameter(torch.zeros(()))  # log of what all items of the catalogue have, near ones having 1
        self.gain = nn.Parameter(torch.ones(LEVELS))

    def evidence(self, near: Tensor, nearness: Tensor, trie: TrieTensors) -> Evidence:
        """The near items' shares, by learned weights of the sources.

        Args:
            near: (B, E) catalogue index, -1 = none.
            nearness: (B, E, S).
        """
        leaf = read(trie.leaf, near.clamp(min=0))
        live = (near >= 0) & (_live(leaf, trie) > 0)
        weight = torch.where(live, (nearness * self.source_scale.exp()).sum(-1), 0.0)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-6)
        above = [leaf.clamp(min=0)]
        for _ in range(LEVELS):
            above.append(read(trie.parent, above[-1]).clamp(min=0))
        return Evidence(near, weight, torch.stack(above[::-1], dim=-1))

    def masses(self, level: int, evidence: Evidence, node: Tensor, children: Children, trie: TrieTensors) -> Tensor:
        """(B, Q, C) the mass at and below each child of `node`, 0 in cells without one; the root's sum to 1, or to 0
        where nothing is near, and to exp(spread) if all items are live.

        Args:
            node: (B, Q) where each sequence stands in the trie, `level` codes below the root.
            children: of `node`.
        """
        live = torch.where(children.there, read(trie.live, children.node), 0)
        spread = _share(live, trie).to(evidence.weight.dtype)
        here = evidence.nodes[:, None, :, level] == node[..., None]  # (B, Q, E)
        weight = torch.where(here, evidence.weight[:, None], 0.0)
        edge = evidence.nodes[:, None, :, level + 1] - 1  # node n is where edge n - 1 leads
        cell = torch.where(here, edge - read(trie.row_start, node)[..., None], 0).clamp(min=0).long()
        found = torch.zeros_like(spread).scatter_add(2, cell, weight)
        return found + self.spread.exp() * spread

    def logits(self, level: int, masses: Tensor) -> Tensor:
        """What is added to the logits of codes whose masses, of any shape, these are."""
        return self.gain[level] * torch.log(masses + NOTHING)

    def of_items(self, evidence: Evidence, items: Tensor, trie: TrieTensors) -> Tensor:
        """(B, K) the mass of some items, (B, K); below 0 = none."""
        found = torch.where(items[..., None] == evidence.near[:, None], evidence.weight[:, None], 0.0).sum(-1)
        leaf = read(trie.leaf, items.clamp(min=0))
        return found + self.spread.exp() * _share(_live(leaf, trie), trie)

    def logs_of_all(self, evidence: Evidence, trie: TrieTensors) -> tuple[Tensor, Tensor]:
        """The log mass of every item in two parts, so that nothing of size (B, I) is held: (I,) of an item that is
        not near, and (B, E) what each of the near ones has more.
        """
        alike = self.spread.exp() * _share(_live(trie.leaf, trie), trie) + NOTHING
        of_near = alike[evidence.near.clamp(min=0).long()]
        return torch.log(alike), torch.log((evidence.weight + of_near) / of_near)


def _live(leaf: Tensor, trie: TrieTensors) -> Tensor:
    """1 where an item's leaf is open, 0 where it is not or there is none; any shape."""
    return torch.where(leaf >= 0, read(trie.live, leaf.clamp(min=0)), 0)


def _share(live: Tensor, trie: TrieTensors) -> Tensor:
    """Of the items of the catalogue, how many these are; any shape. Not of the live ones: then the few that may be
    shown would have more of what all have alike, and what is near would count for less among them."""
    return live.to(torch.float32) / (trie.leaf >= 0).sum().clamp(min=1)
