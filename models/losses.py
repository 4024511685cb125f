"""What the generator is trained on: the log-probability of the three codes of an item.

Letters used in this file
    R requests   k targets of a request   L levels   V codebook size

Source: OneRec-V2, arXiv:2508.20900 §3. Kept: the mean (not the sum) over the three codes; the targets of
one request share its context, and only they carry loss. Added: label smoothing, off by default.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.layers import EXCLUDED


class TokenLogProbs(NamedTuple):
    """Natural log-probabilities of the target codes."""

    full: Tensor  # (R, k, L) over the whole codebook
    masked: Tensor  # (R, k, L) over the legal tokens: the serving policy; equals `full` where no table was given


def token_log_probs(logits: Tensor, targets: Tensor, legal: Tensor | None = None) -> TokenLogProbs:
    """The log-probability of each target code, with gradient.

    Args:
        logits: (R, k, L, V) from `Generator.forward`.
        targets: (R, k, L) codes.
        legal: (R, k, L, V) flags from `models.beam.legal_tokens`. A target code that is not legal there has a
            masked log-probability of about -1e9: whoever updates a policy leaves such a target out.
    """
    index = targets.long()[..., None]
    chosen = logits.gather(-1, index)
    full = (chosen - torch.logsumexp(logits, dim=-1, keepdim=True)).squeeze(-1)
    if legal is None:
        return TokenLogProbs(full, full)
    allowed = torch.where(legal, logits, EXCLUDED)
    masked = (allowed.gather(-1, index) - torch.logsumexp(allowed, dim=-1, keepdim=True)).squeeze(-1)
    return TokenLogProbs(full, masked)


def generation_loss(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Mean negative log-likelihood of a code, in nats: a scalar.

    Args:
        logits: (R, k, L, V).
        targets: (R, k, L) codes.
        weights: (R, k) weight of each target, 0 = padding; all 1 when absent.
        smoothing: share of the target's mass that is spread evenly over the codebook.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    loss = -(1.0 - smoothing) * log_probs.gather(-1, targets.long()[..., None]).squeeze(-1)
    if smoothing:
        loss = loss - smoothing * log_probs.mean(-1)
    per_target = loss.mean(-1)
    if weights is None:
        return per_target.mean()
    return (per_target * weights).sum() / weights.sum().clamp_min(1e-9)


def item_loss(item_logits: Tensor, items: Tensor) -> Tensor:
    """Mean negative log-likelihood of the target items among all of the catalogue, in nats: a scalar.

    Args:
        item_logits: (R, I) of each request.
        items: (R, k) catalogue index of its targets, -1 = padding; those that the head has no logit for count as none.
    """
    known = (items >= 0) & (items < item_logits.shape[1])
    log_probs = torch.log_softmax(item_logits, dim=-1)
    chosen = log_probs.gather(1, torch.where(known, items, 0).long())
    return -(chosen * known).sum() / known.sum().clamp_min(1)
