"""Where a model ranks the item that came: one pass, seen items counted and left out, ties counted against us."""

from typing import Final, NamedTuple

import numpy as np

from benchmarks.quality.models import Model
from benchmarks.quality.split import Floats, Longs, Split, seen_pairs
from core.errors import ContractError
from models.metrics import NOT_RANKED

_BATCH: Final = 256  # asked acts whose scores are held at once


class Answers(NamedTuple):
    """What a model said of Q asked acts."""

    ranks: Longs  # (Q,) of the item among all candidates, 1 = best; models.metrics.NOT_RANKED = not at all
    ranks_masked: Longs  # (Q,) the same with all left out that the user had before, the item too if it is of these
    scores: Floats  # (Q,) of the item


def evaluate(model: Model, split: Split, *, batch: int = _BATCH) -> Answers:
    """The fitted model's answers, in the order of `split.asked`.

    A candidate that shares its score with the item stands before it. Candidates are `split.ranked`, or all.

    Raises:
        ContractError: the scores are not one finite number or -inf per item.
    """
    places = np.arange(len(split.asked))
    parts = [_answers(model, split, places[at : at + batch]) for at in range(0, len(places), batch)]
    return Answers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _answers(model: Model, split: Split, asked: Longs) -> Answers:
    scores = model.scores(split, asked)
    if scores.shape != (len(asked), len(split.items)) or np.isnan(scores).any() or np.isposinf(scores).any():
        raise ContractError(
            f"{model.name}: found scores of shape {scores.shape} or not finite, expected "
            f"({len(asked)}, {len(split.items)}) numbers or -inf"
        )
    if split.ranked is not None:
        scores = np.where(split.ranked, scores, -np.inf).astype(np.float32)
    acts = split.asked[asked]
    targets = split.events.items[acts]
    own = scores[np.arange(len(asked)), targets]
    ahead = (scores >= own[:, None]).sum(axis=1)
    rows, seen = seen_pairs(split.events, acts)
    again = np.bincount(rows[seen == targets[rows]], minlength=len(asked)) > 0
    seen_ahead = np.bincount(rows[scores[rows, seen] >= own[rows]], minlength=len(asked))
    not_ranked = np.isneginf(own)
    return Answers(
        np.where(not_ranked, NOT_RANKED, ahead).astype(np.int64),
        np.where(not_ranked | again, NOT_RANKED, ahead - seen_ahead).astype(np.int64),
        own,
    )
