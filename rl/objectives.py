"""Policy objectives: from token log-probabilities and advantages to one loss.

Letters used in this file
    N exposures      L code levels (tokens per item)

Per SID token, with the exposure's advantage broadcast over its tokens.
"""

import torch
from torch import Tensor

_LOG_HALF = -0.6931471805599453


def log1mexp(log_p: Tensor) -> Tensor:
    """`log(1 - exp(log_p))` for log_p <= 0, stable at both ends; -inf at 0."""
    near_zero = torch.log(-torch.expm1(log_p))
    far = torch.log1p(-torch.exp(log_p))
    return torch.where(log_p > _LOG_HALF, near_zero, far)


def gbpo_tokens(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Gradient-bounded policy optimisation: `-A * pi / pi'_old` per token, to be minimised. (N, L)

        pi'_old = max(pi_old,     sg(pi))   for A >= 0: the gradient never exceeds log-likelihood's, 1 / pi
        pi'_old = max(pi_old, 1 - sg(pi))   for A <  0: it never exceeds binary cross-entropy's, 1 / (1 - pi)

    No ratio is clipped, so no sample is silently dropped: a rare negative (pi = pi_old = 1e-4) weighs
    1 where a plain ratio weighs 10,000.

    Args:
        log_probs: log pi of the shown tokens under the weights that learn, natural logarithms <= 0.
        old_log_probs: as logged when the item was served; NaN where unknown, which reads as sg(pi).
        advantages: (N,) +1, -1 or 0; an exposure with 0 adds nothing.

    Source: OneRec-V2 (arXiv:2508.20900), GBPO. Kept: both bounds, in log space. Read into it: per
    token, because the paper's gradient analysis is.
    """
    frozen = log_probs.detach()
    old = torch.where(torch.isnan(old_log_probs), frozen, old_log_probs)
    advantage = advantages.unsqueeze(-1)
    bound = torch.where(advantage >= 0, frozen, log1mexp(frozen))
    return -advantage * torch.exp(log_probs - torch.maximum(old, bound))


def gbpo(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """The mean of `gbpo_tokens` over tokens and over the exposures with an advantage; 0 when there are none."""
    losses = gbpo_tokens(log_probs, old_log_probs, advantages).mean(dim=-1)
    return losses.sum() / (advantages != 0).sum().clamp(min=1)
