"""The trie as the graph sees it, and how a graph walks it.

Letters used in this file
    B requests   Q sequences per request   N nodes   E edges   V codes of a level   L levels   I items
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
    parent: Tensor  # (N,)
    leaf: Tensor  # (I,)
    words: Tensor  # (I, WORDS)


def trie_tensors(trie: Trie, device: torch.device | None = None) -> TrieTensors:
    """The trie as tensors on a device; on the CPU, where they are unless told otherwise, they share its memory."""
    return TrieTensors(*(torch.from_numpy(array).to(device) for array in trie))


def read(table: Tensor, index: Tensor) -> Tensor:
    """table[index]. Said so that it exports as a plain Gather, which takes int32 where GatherND does not."""
    return table.index_select(0, index.flatten()).reshape(index.shape)


def below(trie: TrieTensors, values: Tensor, node: Tensor, size: int) -> Tensor:
    """(B, Q, V) what `values` says of the nodes that each code leads to from `node`; 0 where a code leads nowhere.

    Args:
        values: (N,) of each node, integers.
        node: (B, Q).
        size: V.
    """
    edge = read(trie.row_start, node)[..., None] + torch.arange(size, dtype=node.dtype, device=node.device)
    there = edge < read(trie.row_start, node + 1)[..., None]
    slot = torch.where(there, read(trie.token, edge), size).long()  # what lies beyond a node's edges is cut off
    found = read(values, read(trie.child, edge))
    return torch.zeros_like(found[..., :1]).repeat(1, 1, size + 1).scatter(2, slot, found)[..., :size]


def nodes_of(trie: TrieTensors, paths: Tensor, size: int) -> Tensor:
    """(B, Q, L) where each level of a path starts from: the root, and the nodes of its first codes.

    Args:
        paths: (B, Q, L) codes of items of the trie.
        size: V.
    """
    node = torch.full_like(paths[..., 0], ROOT)
    slots = torch.arange(size, dtype=node.dtype, device=node.device)
    nodes = [node]
    for level in range(paths.shape[-1] - 1):
        edge = read(trie.row_start, node)[..., None] + slots
        there = edge < read(trie.row_start, node + 1)[..., None]
        taken = (there & (read(trie.token, edge) == paths[..., level, None])).to(torch.uint8).argmax(-1, keepdim=True)
        node = read(trie.child, edge.gather(-1, taken).squeeze(-1))
        nodes.append(node)
    return torch.stack(nodes, dim=-1)
