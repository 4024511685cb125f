"""Which of the kept candidates are shown, and with what probability they were.

Letters used in this file
    M kept candidates   S slots

The default is the order of the scores: deterministic, and so without propensities. A score is what the
generator says of the path, and, where the settings give them a weight, what its item head says of the
item as a whole and what is expected to follow if it is shown (models.values). Where exploration is drawn,
the slate is a Plackett-Luce sample: slot by slot, without replacement, with probability proportional to
exp(score / temperature) among what is left. Its log-probability is exact, which is what off-policy
learning divides by.

Source: Plackett (1975), Luce (1959); drawn with Gumbel noise (Yellott 1977; Kool et al.,
arXiv:1903.06059): the S largest of score / temperature + Gumbel, in order, are that sample.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.values import SelectionWeights

METHOD: Final = "plackett_luce"
# 1 = the generator's own masked distribution, restricted to the kept candidates. Higher would spend
# the explored share on items that the model finds ever less likely; the share is the dial, not this.
TEMPERATURE: Final = 1.0

Floats = npt.NDArray[np.float64]


def policy_version(weights: SelectionWeights) -> str:
    """The name that impressions carry: what decided the order, with its parameters."""
    counted = [f"{name}*{weight:g}" for name, weight in weights._asdict().items() if weight]
    return "+".join(["beam", *counted, "pl@1"])


class Draw(NamedTuple):
    """An ordered slate drawn from M candidates."""

    order: list[int]  # (S,) indices among the candidates, top slot first
    slot_log_probs: Floats  # (S,) natural log, each conditional on the slots before
    temperature: float

    @property
    def slate_log_prob(self) -> float:
        """Natural log-probability of exactly this ordered slate."""
        return float(self.slot_log_probs.sum())


def draw(scores: Floats, slots: int, rng: np.random.Generator, temperature: float = TEMPERATURE) -> Draw:
    """A Plackett-Luce sample of min(slots, M) candidates.

    Args:
        scores: (M,) finite; models.values.selection_scores.
    """
    noisy = scores / temperature + rng.gumbel(size=len(scores))
    order = np.argsort(-noisy, kind="stable")[:slots].tolist()
    return Draw(order, slot_log_probs(scores, order, temperature), temperature)


def slot_log_probs(scores: Floats, order: Sequence[int], temperature: float = TEMPERATURE) -> Floats:
    """(S,) log-probability of each slot of `order` given the slots before, under Plackett-Luce.

    Stable: the normaliser over what is left is summed from below, never by subtracting from a total.
    """
    logits = scores / temperature
    chosen = logits[list(order)]
    left_out = np.delete(logits, list(order))
    tail = np.logaddexp.reduce(left_out) if left_out.size else -np.inf
    # (S,) log-sum-exp over the candidates that were still there when the slot was drawn
    normalisers = np.logaddexp.accumulate(np.append(tail, chosen[::-1]))[1:][::-1]
    # A slot with one candidate left has probability 1; rounding must not make it more.
    return np.asarray(np.minimum(chosen - normalisers, 0.0), dtype=np.float64)
