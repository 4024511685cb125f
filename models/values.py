"""What a shown item may be worth, and how that counts when a slate is chosen.

Letters used in this file
    K candidates   L code levels   R outcomes

A generator says what a person would choose among all items; a value says what would follow if one of them were shown.
Published gains of generative recommenders came from both: candidates by the generator, choice by value (OneRec's
P-Score, arXiv:2506.13695). Kept here: a weighted sum of odds. Left out: scores of distance and price, which wait
for real orders, as in `rl.rewards`.
"""

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Value(IntEnum):
    """What may follow when an item is shown; the columns of every array of values."""

    WATCHED = 0  # long: feature_repo.folds.act.long_view_ms
    LIKED = 1
    ORDERED = 2  # or gone to: the order of a place is a check-in


WORTH: Final = np.array([1.0, 0.3, 1.0], np.float32)  # (R,) of each; acts as in rl.rewards.BONUSES
_NEVER: Final = 1e-6  # odds so small have a logarithm


def selection_scores(masked_log_probs: Floats, values: Floats, weight: float) -> npt.NDArray[np.float64]:
    """(..., K) what a slate is chosen by: log-probability of the path + weight * log(expected worth).

    Without values (all 0: the model has no value head), or with weight 0, the generator's own order.

    Args:
        masked_log_probs: (..., K, L); -inf = no candidate, and then so is the score.
        values: (..., K, R) odds of each outcome.
    """
    scores = np.asarray(masked_log_probs.sum(axis=-1, dtype=np.float64))
    if not weight or not values.any():
        return scores
    return np.asarray(scores + weight * np.log(values @ WORTH + _NEVER, dtype=np.float64))
