"""The trie as the graph sees it, and how a graph walks it.

Letters used in this file
    B requests   Q sequences per request   N nodes   E edges   V codes of a level   L levels   I items
    C children that are read of a node
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.trie import ROOT, Trie


class TrieTensors(NamedTuple):
    """`models.trie.Trie` as tensors: the same fields, shapes and meaning."""

    row_start: Tensor  # (N + 1,)
    token: Tensor  # (E,)
    child: Tensor  # (E,)
    live: Tensor  # (N,)
    leaf_item: Tensor  # (N,)
    slots: Tensor  # (C,)
    parent: Tensor  # (N,)
    leaf: Tensor  # (I,)
    words: Tensor  # (I, WORDS)


def trie_tensors(trie: Trie, device: torch.device | None = None) -> TrieTensors:
    """The trie as tensors on a device; on the CPU, where they are unless told otherwise, they share its memory."""
    return TrieTensors(*(torch.from_numpy(array).to(device) for array in trie))


def read(table: Tensor, index: Tensor) -> Tensor:
    """table[index]. Said so that it exports as a plain Gather, which takes int32 where GatherND does not."""
    return table.index_select(0, index.flatten()).reshape(index.shape)


class Children(NamedTuple):
    """The edges that leave some nodes, read into as many cells as the widest of them needs."""

    there: Tensor  # (B, Q, C) whether the cell holds an edge of the node; else what it says is of no meaning
    token: Tensor  # (B, Q, C) code
    node: Tensor  # (B, Q, C) where it leads

    def by_code(self, values: Tensor, size: int) -> Tensor:
        """(B, Q, V) values (B, Q, C) of the children at their codes; 0 where a code leads nowhere."""
        cell = torch.where(self.there, self.token, size).long()  # what is not there is cut off
        return torch.zeros_like(values[..., :1]).repeat(1, 1, size + 1).scatter(2, cell, values)[..., :size]


def children_of(trie: TrieTensors, node: Tensor, slots: Tensor) -> Children:
    """The children of nodes (B, Q).

    Args:
        slots: (C,) 0, 1, ... up to at most V; `trie.slots` is enough for every node but the root.
    """
    edge = read(trie.row_start, node)[..., None] + slots  # inside the arrays: a trie ends in V unused edges
    there = edge < read(trie.row_start, node + 1)[..., None]
    return Children(there, read(trie.token, edge), read(trie.child, edge))


def every_code(size: int, like: Tensor) -> Tensor:
    """(V,) slots that are enough for any node."""
    return torch.arange(size, dtype=like.dtype, device=like.device)


def nodes_of(trie: TrieTensors, paths: Tensor, size: int) -> Tensor:
    """(B, Q, L) where each level of a path starts from: the root, and the nodes of its first codes.

    Args:
        paths: (B, Q, L) codes of items of the trie.
        size: V.
    """
    node = torch.full_like(paths[..., 0], ROOT)
    nodes, slots = [node], every_code(size, node)
    for level in range(paths.shape[-1] - 1):
        children = children_of(trie, node, slots)
        taken = (children.there & (children.token == paths[..., level, None])).to(torch.uint8).argmax(-1, keepdim=True)
        node = children.node.gather(-1, taken).squeeze(-1)
        nodes.append(node)
    return torch.stack(nodes, dim=-1)
