"""How good a ranking is, at item level, ties counted against us.

Letters used in this file
    B requests with one relevant item each   K ranked items   I items of the catalogue

Recall@k with one relevant item is the hit rate; NDCG@k is 1 / log2(rank + 1). An item that shares its score
with the relevant one is taken to stand before it: a model that says the same of everything scores nothing.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from models.batches import Beams
from models.values import BEAM_ALONE, SelectionWeights, selection_scores

NOT_RANKED: Final = np.iinfo(np.int64).max

Ranks = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]


def ranks_in_beams(beams: Beams, targets: Ints, weights: SelectionWeights = BEAM_ALONE) -> Ranks:
    """(B,) rank of each target among its beams, 1 = best; NOT_RANKED where no beam spells it.

    Args:
        weights: of models.values.selection_scores.
    """
    alive = beams.items >= 0
    found = selection_scores(beams.masked_log_probs, beams.item_logits, beams.values, weights)
    scores = np.where(alive, found, -np.inf)
    hit = alive & (beams.items == targets[:, None])
    score = np.where(hit, scores, -np.inf).max(1)
    ahead = (alive & ~hit & (scores >= score[:, None])).sum(1)
    return np.where(hit.any(1), 1 + ahead, np.int64(NOT_RANKED))


def ranks_in_scores(scores: npt.NDArray[np.floating], targets: Ints) -> Ranks:
    """(B,) rank of each target among all items. scores: (B, I) or (I,) when all requests see the same."""
    if scores.ndim == 1:
        ranked: Ranks = np.searchsorted(np.sort(scores), scores[targets], side="left")
        return len(scores) - ranked
    ahead: Ranks = (scores >= scores[np.arange(len(targets)), targets][:, None]).sum(1)
    return ahead


def recall_at(ranks: Ranks, k: int) -> float:
    """Share of requests whose item stands among the first k."""
    return float((ranks <= k).mean()) if len(ranks) else 0.0


def ndcg_gains(ranks: Ranks, k: int) -> npt.NDArray[np.float64]:
    """(B,) 1 / log2(rank + 1) within the first k, 0 beyond; their mean is NDCG@k."""
    return np.where(ranks <= k, 1.0 / np.log2(np.minimum(ranks, k) + 1.0), 0.0)


def popularity(
    items: Ints, at_ms: npt.NDArray[np.int64], *, count: int, now_ms: int, half_life_h: float
) -> npt.NDArray[np.float64]:
    """(count,) decayed number of good acts per item before `now_ms`: the baseline a model must beat.

    Args:
        items: (n,) catalogue index of each good act (what counts as good is the caller's: the same as the target).
        at_ms: (n,) when; acts at or after `now_ms` do not count.
        half_life_h: hours after which an act counts half; infinity = plain counts.
    """
    before = at_ms < now_ms
    age_h = (now_ms - at_ms[before]) / 3_600_000.0
    return np.bincount(items[before], weights=0.5 ** (age_h / half_life_h), minlength=count).astype(np.float64)
