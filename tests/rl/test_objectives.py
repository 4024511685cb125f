"""GBPO: its table, its bounds, and what happens to a plain ratio when a rare item is disliked."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rl.objectives import gbpo, gbpo_tokens, log1mexp

probabilities = st.floats(1e-5, 1.0 - 1e-5)


def gradient(p: float, old: float | None, advantage: float) -> float:
    """d loss / d pi of one token."""
    pi = torch.tensor([[p]], dtype=torch.float64, requires_grad=True)
    logged = torch.tensor([[math.nan if old is None else math.log(old)]], dtype=torch.float64)
    gbpo_tokens(pi.log(), logged, torch.tensor([advantage], dtype=torch.float64)).sum().backward()
    assert pi.grad is not None
    return float(pi.grad)


@pytest.mark.parametrize(
    ("p", "old", "expected"),
    [(0.1, 0.1, 1.111), (1e-4, 1e-4, 1.000), (0.5, 1e-3, 2.0), (0.9, 0.9, 1.111), (1e-3, 0.5, 1.001)],
)
def test_negative_gradients_match_the_published_table(p: float, old: float, expected: float) -> None:
    assert gradient(p, old, -1.0) == pytest.approx(expected, abs=1e-3)


@given(p=probabilities, old=st.one_of(st.none(), probabilities))
def test_a_negative_never_exceeds_cross_entropy_and_never_vanishes(p: float, old: float | None) -> None:
    assert 0.0 < gradient(p, old, -1.0) <= 1.0 / (1.0 - p) * (1 + 1e-9)


@given(p=probabilities, old=st.one_of(st.none(), probabilities))
def test_a_positive_never_exceeds_log_likelihood(p: float, old: float | None) -> None:
    assert 0.0 < -gradient(p, old, 1.0) <= 1.0 / p * (1 + 1e-9)


@given(p=probabilities)
def test_an_unknown_old_policy_reads_as_the_present_one(p: float) -> None:
    for advantage in (-1.0, 1.0):
        assert gradient(p, None, advantage) == pytest.approx(gradient(p, p, advantage))


@given(p=st.floats(-60.0, -1e-12))
def test_log1mexp_is_stable_at_both_ends(p: float) -> None:
    found = float(log1mexp(torch.tensor(p, dtype=torch.float64)))
    assert found == pytest.approx(math.log(-math.expm1(p)), rel=1e-9, abs=1e-15)


def test_a_forced_token_has_no_gradient_problem() -> None:
    """A node with one live child has masked log-probability 0: nothing may become NaN."""
    log_probs = torch.zeros(1, 3, requires_grad=True)
    loss = gbpo(log_probs, torch.full((1, 3), math.nan), torch.tensor([-1.0]))
    loss.backward()
    assert torch.isfinite(loss) and log_probs.grad is not None and torch.isfinite(log_probs.grad).all()


def test_no_advantage_no_loss() -> None:
    log_probs = torch.full((4, 3), -2.0, requires_grad=True)
    gbpo(log_probs, log_probs.detach(), torch.zeros(4)).backward()
    assert log_probs.grad is not None and not log_probs.grad.any()


def clipped_ratio(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's and GRPO's objective, for comparison only."""
    ratio, advantage = torch.exp(log_probs - old), advantages.unsqueeze(-1)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def test_rare_negatives_stay_bounded_where_a_plain_ratio_explodes() -> None:
    """Two thousand exposures, one in a hundred a dislike of an item that was shown at odds of 1 : 10,000."""
    generator = torch.Generator().manual_seed(7)
    log_probs = torch.log(torch.rand(2000, 3, generator=generator).clamp(0.05, 0.95))
    advantages = torch.ones(2000)
    advantages[::100], log_probs[::100] = -1.0, math.log(1e-4)

    def steepest(bounded: bool) -> float:
        """Largest |d loss / d pi| of a negative, when the policy has since moved pi up a hundredfold."""
        pi = log_probs.exp().mul(torch.where(advantages < 0, 100.0, 1.0).unsqueeze(-1)).requires_grad_()
        losses = (gbpo_tokens if bounded else clipped_ratio)(pi.log(), log_probs, advantages)
        losses.sum().backward()
        assert pi.grad is not None
        return float(pi.grad[advantages < 0].abs().max())

    assert steepest(bounded=True) < 1.02
    assert steepest(bounded=False) > 9_000.0
