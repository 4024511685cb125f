"""The loss is the mean over three codes; the masked log-probability is the serving policy's."""

import math

import numpy as np
import pytest
import torch

from models.beam import legal_tokens
from models.context_processor import context_tensors
from models.export import beams_of
from models.losses import generation_loss, item_loss, token_log_probs
from tests.models.worlds import random_context, random_trie, small_generator

SIZE = 5


def test_the_loss_of_knowing_nothing_is_the_log_of_the_codebook() -> None:
    logits, targets = torch.zeros(2, 4, 3, SIZE), torch.randint(0, SIZE, (2, 4, 3))
    assert float(generation_loss(logits, targets)) == pytest.approx(math.log(SIZE))


def test_the_loss_is_the_mean_over_three_codes() -> None:
    logits = torch.zeros(1, 1, 3, SIZE)
    targets = torch.tensor([[[1, 2, 3]]])
    logits[0, 0, 0, 1] = 100.0  # the first code is known for sure, the others not at all
    assert float(generation_loss(logits, targets)) == pytest.approx(2 / 3 * math.log(SIZE), abs=1e-5)


def test_k_targets_of_a_request_are_k_requests_of_one_target() -> None:
    rng = np.random.default_rng(0)
    generator = small_generator()
    context = context_tensors(random_context(rng, 3, SIZE))
    targets = torch.randint(0, SIZE, (3, 4, 3))
    shared = generation_loss(generator(context, targets), targets)
    shared.backward()
    gradients = [weight.grad.clone() for weight in generator.parameters()]
    generator.zero_grad()
    rows = torch.arange(3).repeat_interleave(4)
    single = targets.reshape(12, 1, 3)
    apart = generation_loss(generator(context.take(rows), single), single)
    apart.backward()
    assert torch.allclose(shared, apart, atol=1e-6)
    for before, weight in zip(gradients, generator.parameters(), strict=True):
        assert torch.allclose(before, weight.grad, atol=1e-5)


def test_padding_carries_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 3, 3, SIZE, requires_grad=True)
    targets = torch.randint(0, SIZE, (2, 3, 3))
    weights = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    loss = generation_loss(logits, targets, weights=weights)
    loss.backward()
    kept = [generation_loss(logits[r : r + 1, :k], targets[r : r + 1, :k]) * k for r, k in ((0, 2), (1, 1))]
    assert torch.allclose(loss, (kept[0] + kept[1]) / 3, atol=1e-6)
    assert not logits.grad[weights == 0].any()


def test_smoothing_prefers_what_is_not_certain() -> None:
    sure = torch.full((1, 1, 3, SIZE), -20.0)
    sure[..., 0] = 20.0
    targets = torch.zeros(1, 1, 3, dtype=torch.long)
    assert generation_loss(sure, targets) < 1e-6
    assert generation_loss(sure, targets, smoothing=0.1) > 1.0


def test_masked_log_probs_are_those_the_search_served_with() -> None:
    rng = np.random.default_rng(1)
    trie, _, _ = random_trie(rng, 30, SIZE, 0.6)
    context = random_context(rng, 3, SIZE)
    generator = small_generator()
    beams = beams_of(generator, context, trie, 6)
    assert (beams.items >= 0).all()
    targets = torch.from_numpy(beams.codes)
    legal = torch.from_numpy(legal_tokens(trie, beams.codes, SIZE))
    again = token_log_probs(generator(context_tensors(context), targets), targets, legal)
    assert np.abs(again.masked.detach().numpy() - beams.masked_log_probs).max() < 1e-5
    assert np.abs(again.full.detach().numpy() - beams.log_probs).max() < 1e-5


def test_masked_probabilities_sum_to_one_over_the_legal_tokens() -> None:
    logits = torch.randn(1, 1, 3, SIZE)
    legal = torch.tensor([[[[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]]]], dtype=torch.bool)
    shares = [token_log_probs(logits, torch.full((1, 1, 3), code), legal).masked.exp() for code in range(SIZE)]
    assert torch.allclose(torch.stack(shares).sum(0), torch.ones(1, 1, 3), atol=1e-6)
    assert shares[2][0, 0, 1] == 1.0 and shares[2][0, 0, 0] == 0.0


def test_without_a_table_the_policy_is_the_whole_codebook() -> None:
    pair = token_log_probs(torch.randn(2, 2, 3, SIZE), torch.randint(0, SIZE, (2, 2, 3)))
    assert torch.equal(pair.full, pair.masked)


def test_the_item_loss_is_that_of_the_targets_it_knows() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    expected = -torch.log_softmax(logits, dim=1)[[0, 0, 1], [2, 0, 0]].mean()
    assert float(item_loss(logits, torch.tensor([[2, 0], [0, -1]]))) == pytest.approx(float(expected))
    assert float(item_loss(logits, torch.tensor([[3, -1], [7, -1]]))) == 0.0
