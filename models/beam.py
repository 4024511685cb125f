"""Constrained beam search: a beam may only spell items that exist and may be shown.

Three unrolled levels, no branch and no loop at run time, so that generator, search and trie export as
one graph. A level keeps the keys and values of the codes before it, so each beam decodes one position. Below
the root it looks at the children that prefixes have, not at all codes: large codebooks have few.

Letters used in this file
    B requests   W beams at this level   K beams at the end   V codebook size   L levels   N nodes   E edges
    C children that are read of a node

Source: STATIC, arXiv:2602.22647. Kept: the prefix tree as flat tables, the mask as a gather of as many
edges of each beam's node as the widest node has. Left out: its dense first levels, which pay at 10^7 items.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.batches import LEVELS
from models.context_processor import ContextTensors
from models.generator import Generator
from models.layers import EXCLUDED
from models.trie import ROOT, Trie
from models.trie_tensors import TrieTensors, children_of, every_code, read
from models.values import Value

_DEAD = float("-inf")


class BeamTensors(NamedTuple):
    """`models.batches.Beams` as tensors."""

    items: Tensor
    codes: Tensor
    masked_log_probs: Tensor
    log_probs: Tensor
    item_logits: Tensor
    values: Tensor


def search(generator: Generator, context: ContextTensors, trie: TrieTensors, width: int) -> BeamTensors:
    """The `width` most likely items of each request under the serving policy, as far as beams can see.

    The policy: at each level, softmax over the tokens that lead to at least one live item. With `width` at
    least the number of paths this is exact; with fewer beams a good item behind a poor prefix may be missed.

    Args:
        generator: of codebook size V.
        context: B requests.
        trie: built with the same V.
        width: K.

    Returns:
        As in `models.batches.Beams`.
    """
    size = generator.config.codebook_size
    memory = generator.encode(context)
    node = torch.full_like(context.codes[:, :1, 0], ROOT)  # (B, 1): one beam, which has spelled nothing
    score = torch.zeros_like(node, dtype=memory.bias.dtype)
    evidence = generator.evidence(context, trie)
    past, newest, first, spelled = None, node, node, list[tuple[Tensor, ...]]()
    for level in range(LEVELS):
        logits, now, state = generator.step(level, memory, newest, past)
        first = state[:, 0] if level == 0 else first
        # With fewer codes than beams, the children that there are might be fewer than the beams to come.
        slots = every_code(size, node) if level == 0 or size < width else trie.slots
        children = children_of(trie, node, slots)
        legal = children.there & (read(trie.live, children.node) > 0)
        said, whole = generator.of_children(level, logits, evidence, node, children, trie)
        masked = torch.log_softmax(torch.where(legal, said, EXCLUDED), dim=-1)
        total = torch.where(legal, score[..., None] + masked, _DEAD).flatten(1)

        reached = min(width, node.shape[1] * size)
        score, slot = torch.topk(total, reached, dim=-1)
        parent = slot // slots.shape[0]  # len() would fix the length in the graph
        of_cells = (children.token, children.node, masked, said - whole)
        newest, node, *chosen_log_probs = (values.flatten(1).gather(1, slot) for values in of_cells)
        spelled = [tuple(values.gather(1, parent) for values in step) for step in spelled]
        spelled.append((newest, *chosen_log_probs))
        past = _pick(now if past is None else torch.cat([past, now], dim=2), parent)

    alive = score > _DEAD
    codes, masked, full = (torch.stack(levels, dim=-1) for levels in zip(*spelled, strict=True))
    items = torch.where(alive, read(trie.leaf_item, node), -1)
    scored, valued = torch.zeros_like(score), torch.zeros_like(score)[..., None].repeat(1, 1, len(Value))
    if generator.config.item_head:
        scored = generator.score_items(first, items, codes, evidence, trie)
    if generator.config.value_items:
        valued = generator.values(first, items, codes)
    return BeamTensors(
        items=items,
        codes=torch.where(alive[..., None], codes, -1),
        masked_log_probs=torch.where(alive[..., None], masked, _DEAD),
        log_probs=torch.where(alive[..., None], full, _DEAD),
        item_logits=torch.where(alive, scored, _DEAD),
        values=torch.where(alive[..., None], valued, 0.0),
    )


def _pick(values: Tensor, beams: Tensor) -> Tensor:
    """values (B, W, ...) at beams (B, W') -> (B, W', ...), as one gather of whole rows."""
    first = torch.arange(values.shape[0], device=values.device)[:, None] * values.shape[1]
    rows = values.flatten(0, 1).index_select(0, (first + beams).flatten())
    return rows.reshape(-1, beams.shape[1], *values.shape[2:])


def legal_tokens(trie: Trie, codes: npt.NDArray[np.int32], codebook_size: int) -> npt.NDArray[np.bool_]:
    """Which tokens the serving policy could have chosen at each level along the given paths.

    Args:
        codes: (..., L) paths. A path that leaves the trie has no legal token from there on.
        codebook_size: V.

    Returns:
        (..., L, V) flags, for `models.losses.token_log_probs`.
    """
    paths = codes.reshape(-1, codes.shape[-1])
    legal = np.zeros((*paths.shape, codebook_size), bool)
    node = np.full(len(paths), ROOT)
    inside = np.ones(len(paths), bool)
    for level in range(paths.shape[1]):
        edge = trie.row_start[node][:, None] + np.arange(codebook_size)
        there = inside[:, None] & (edge < trie.row_start[node + 1][:, None])
        opened = there & (trie.live[trie.child[edge]] > 0)
        row, column = np.nonzero(opened)
        legal[row, level, trie.token[edge[row, column]]] = True
        taken = there & (trie.token[edge] == paths[:, level, None])
        inside = taken.any(axis=1)
        node = np.where(inside, trie.child[edge[np.arange(len(paths)), taken.argmax(axis=1)]], ROOT)
    return legal.reshape(*codes.shape, codebook_size)
