"""What a shown item may be worth, and how that counts when a slate is chosen.

Letters used in this file
    K candidates   L code levels   R outcomes

A generator says what a person would choose among all items, code by code; an item head says it again of each item as a
whole; a value says what would follow if one of them were shown. Published gains of generative recommenders came from
generation and choice: candidates by the generator, choice by value (OneRec's P-Score, arXiv:2506.13695). Kept here: a
weighted sum of odds. Left out: scores of distance and price, which wait for real orders, as in `rl.rewards`.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.settings import Scorer

Floats = npt.NDArray[np.float32]


class Value(IntEnum):
    """What may follow when an item is shown; the columns of every array of values."""

    WATCHED = 0  # long: feature_repo.folds.act.long_view_ms
    LIKED = 1
    ORDERED = 2  # or gone to: the order of a place is a check-in


WORTH: Final = np.array([1.0, 0.3, 1.0], np.float32)  # (R,) of each; acts as in rl.rewards.BONUSES
_NEVER: Final = 1e-6  # odds so small have a logarithm


class SelectionWeights(NamedTuple):
    """What counts beside the log-probability of a path when a slate is chosen."""

    item: float  # of the item head's logit
    value: float  # of the logarithm of the expected worth

    @classmethod
    def of(cls, scorer: Scorer) -> "SelectionWeights":
        """As the settings of scorers say."""
        return cls(scorer.item_weight, scorer.value_weight)


BEAM_ALONE: Final = SelectionWeights(0.0, 0.0)


def selection_scores(
    masked_log_probs: Floats, item_logits: Floats, values: Floats, weights: SelectionWeights
) -> npt.NDArray[np.float64]:
    """(..., K) what a slate is chosen by: log-probability of the path, and by their weights the item head's logit and
    the logarithm of the expected worth.

    A part that the model has no head for is 0 for all items, and then does not count; with BEAM_ALONE none does.

    Args:
        masked_log_probs: (..., K, L); -inf = no candidate, and then so is the score.
        item_logits: (..., K).
        values: (..., K, R) odds of each outcome.
    """
    scores = np.asarray(masked_log_probs.sum(axis=-1, dtype=np.float64))
    if weights.item:
        scores = scores + weights.item * item_logits.astype(np.float64)
    if weights.value and values.any():
        scores = scores + weights.value * np.log(values @ WORTH + _NEVER, dtype=np.float64)
    return scores
