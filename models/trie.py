"""The trie: every item's code path as a table of next nodes, and the numbers of its words, shaped to be inputs of the
ONNX graph.

Letters used in this file
    I items (capacity)   L levels   V tokens of one level   W words kept of an item
    N nodes (capacity)   E edges (capacity)   C children of the widest node below the root, at least 2

Nodes are numbered level by level, and within a level by path, so that node n > 0 is reached by edge n - 1. The
arrays are allocated once, for a stated number of items, and only ever written in place, but for the few numbers of
`slots`. Writing is not atomic: whoever runs the graph on a trie must not let it be written meanwhile.

Source: STATIC (arXiv 2602.22647). Kept: the prefix tree as flat integer tables, masking as a gather of as many edges
as the widest node has. Left out: the dense first levels, which pay at 10^7 items and more, and cost memory here.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import ContractError, TooLarge

ROOT: Final = 0
_FEWEST: Final = 2  # slots: an exporter takes an axis of length 1 for one that never grows

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class Trie(NamedTuple):
    """What a graph knows of the catalogue: every item's code path and words; the arrays are its inputs.

    The children of node n are the edges row_start[n] .. row_start[n + 1] - 1, by rising token. An edge may be taken
    when live[child] > 0. Unused nodes have no edges and no live item; edges beyond the last are zero, and there are
    always at least V of them, so that reading V edges from any row_start stays inside the arrays.
    """

    row_start: Ints  # (N + 1,)
    token: Ints  # (E,)
    child: Ints  # (E,) node
    live: Ints  # (N,) live items at or below the node
    leaf_item: Ints  # (N,) index of the item whose path ends here, -1 = none
    slots: Ints  # (C,) 0 .. C - 1: reading these edges from any row_start but the root's reads all children of a node
    parent: Ints  # (N,) node, -1 at the root and at unused nodes
    leaf: Ints  # (I,) node where the item's path ends, -1 = none
    words: Ints  # (I, W) see models.item_vectors.words_of; not read by a generator without words


def build_trie(
    codes: Ints, capacity: int, *, codebook_size: int, live: Flags | None = None, words: Ints | None = None
) -> Trie:
    """A trie of `codes` with room for `capacity` items.

    Args:
        codes: (n, L) int32, the path of each item; no two are equal.
        capacity: I, at least n.
        codebook_size: V; every code is below it.
        live: (n,) which items may be reached; all when absent.
        words: (I, W), held and not copied: their owner may write to them; (I, 0) when absent.

    Raises:
        ContractError: two items share a path, or a code is outside the codebook.
        TooLarge: there are more items than `capacity`.
    """
    levels = codes.shape[1]
    nodes = 1 + sum(min(codebook_size**level, capacity) for level in range(1, levels)) + capacity
    edges = nodes - 1 + codebook_size
    trie = Trie(
        row_start=np.zeros(nodes + 1, np.int32),
        token=np.zeros(edges, np.int32),
        child=np.zeros(edges, np.int32),
        live=np.zeros(nodes, np.int32),
        leaf_item=np.full(nodes, -1, np.int32),
        slots=np.arange(_FEWEST, dtype=np.int32),
        parent=np.full(nodes, -1, np.int32),
        leaf=np.full(capacity, -1, np.int32),
        words=np.zeros((capacity, 0), np.int32) if words is None else words,
    )
    live = np.ones(len(codes), bool) if live is None else live
    return refill_trie(trie, codes, codebook_size=codebook_size, live=live)


def refill_trie(trie: Trie, codes: Ints, *, codebook_size: int, live: Flags) -> Trie:
    """The trie of `codes` in the buffers of `trie`, which is no trie any more; the words are its own.

    Args and Raises as in `build_trie`; after an error the trie is as it was.
    """
    items, levels = codes.shape
    if items > len(trie.leaf):
        raise TooLarge(f"found {items} items, expected at most {len(trie.leaf)}; publish a version with more room")
    if items and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise ContractError(f"found codes {codes.min()} .. {codes.max()}, expected 0 .. {codebook_size - 1}")
    paths = path_numbers(codes, codebook_size)
    order = np.argsort(paths, kind="stable")
    ranked = paths[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if same.size:
        first, second = order[same[0]], order[same[0] + 1]
        raise ContractError(f"items {first} and {second} share the path {codes[first].tolist()}; assign paths anew")

    trie.row_start[:] = 0
    for array in (trie.token, trie.child, trie.live):
        array[:] = 0
    for array in (trie.leaf_item, trie.parent, trie.leaf):
        array[:] = -1

    next_node, above, spans = 1, np.zeros(items, np.int64), []
    for level in range(levels):
        prefixes = ranked // codebook_size ** (levels - 1 - level)
        starts = np.ones(items, bool)
        starts[1:] = prefixes[1:] != prefixes[:-1]
        here = next_node + np.cumsum(starts) - 1  # (items,) node of each item at this level, in path order
        span = slice(next_node, next_node + int(starts.sum()))
        trie.token[span.start - 1 : span.stop - 1] = prefixes[starts] % codebook_size
        trie.parent[span] = above[starts]
        spans.append(span)
        next_node, above = span.stop, here
    trie.child[: next_node - 1] = np.arange(1, next_node)
    children = np.bincount(trie.parent[1:next_node], minlength=len(trie.live))
    np.cumsum(children, out=trie.row_start[1:])
    widest = max(int(children[1:].max(initial=0)), _FEWEST)

    trie.leaf_item[above] = order
    trie.leaf[order] = above
    trie.live[above] = live[order]
    for span in reversed(spans):
        np.add.at(trie.live, trie.parent[span], trie.live[span])
    return trie._replace(slots=np.arange(widest, dtype=np.int32))


def set_live(trie: Trie, item: int, live: bool) -> None:
    """Open or close the path of the item with this index, in place; nothing happens if it already is so."""
    node = int(trie.leaf[item])
    change = int(live) - int(trie.live[node])
    while change and node >= 0:
        trie.live[node] += change
        node = int(trie.parent[node])


def path_numbers(codes: Ints, codebook_size: int) -> npt.NDArray[np.int64]:
    """(n,) one number per path, in the order of the paths: the codes read as digits in base `codebook_size`."""
    numbers = np.zeros(len(codes), np.int64)
    for level in range(codes.shape[1]):
        numbers = numbers * codebook_size + codes[:, level]
    return numbers
