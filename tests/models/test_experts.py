"""Experts: the bias evens out the load and moves nothing but the choice; without experts nothing is new."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import silu

from models.decoder_block import Block, FeedForward
from models.experts import Experts
from models.export import export_generator, replace_weights
from models.generator import Generator
from models.train_arguments import TrainArguments
from models.train_generator import train_generator
from tests.models.example_worlds import CODES, SIZE, random_examples
from tests.models.worlds import random_context, random_trie, small_config, small_generator

WIDTH, INNER, EXPERTS, CHOSEN = 8, 6, 5, 2


def experts(seed: int = 0) -> Experts:
    torch.manual_seed(seed)
    return Experts(WIDTH, INNER, EXPERTS, CHOSEN)


def plainly(layer: Experts, x: torch.Tensor) -> torch.Tensor:
    """One position and one expert at a time."""

    def swiglu(row: torch.Tensor, w_in: torch.Tensor, w_out: torch.Tensor) -> torch.Tensor:
        inner = row @ w_in
        return (silu(inner[:INNER]) * inner[INNER:]) @ w_out

    rows = []
    for row in x:
        affinity = torch.sigmoid(row @ layer.router)
        chosen = sorted(range(EXPERTS), key=lambda e: -(affinity[e] + layer.bias[e]).item())[:CHOSEN]
        total = sum(affinity[expert] for expert in chosen)
        routed = [affinity[e] / total * swiglu(row, layer.w_in[e], layer.w_out[e]) for e in chosen]
        rows.append(swiglu(row, layer.shared_in, layer.shared_out) + torch.stack(routed).sum(0))
    return torch.stack(rows)


def test_it_is_the_sum_of_the_shared_and_the_chosen_experts() -> None:
    layer, x = experts(), torch.randn(40, WIDTH)
    with torch.no_grad():
        layer.bias += torch.randn(EXPERTS)
    assert torch.allclose(layer(x), plainly(layer, x), atol=1e-5)


def test_the_bias_changes_the_choice_and_never_a_gate() -> None:
    layer, x = experts(), torch.randn(200, WIDTH)
    before, gates = layer.route(x)
    with torch.no_grad():
        layer.bias[0] = 10.0
    after, later = layer.route(x)
    assert (after == 0).any(dim=1).all()
    assert not (before == 0).any(dim=1).all()
    affinity = torch.sigmoid(x @ layer.router).gather(-1, after)
    assert torch.allclose(later, affinity / affinity.sum(-1, keepdim=True))
    same = (before.sort(-1).values == after.sort(-1).values).all(-1)
    assert torch.allclose(gates.sort(-1).values[same], later.sort(-1).values[same])
    layer(x).sum().backward()
    assert layer.bias.grad is None


def test_balance_improves_on_skewed_input() -> None:
    layer = experts()
    skewed = torch.randn(500, WIDTH) * 0.3 + layer.router.detach()[:, 0] * 2  # everybody likes the first expert
    loads = []
    for _ in range(400):
        layer(skewed)
        loads.append(layer.rebalance())
    worst = [float(load.max() / load.mean()) for load in loads]
    assert worst[0] > 2.0
    assert worst[-1] < 1.2
    assert all(int(load.sum()) == 500 * CHOSEN for load in loads)


def test_nothing_is_counted_outside_training() -> None:
    layer = experts().eval()
    layer(torch.randn(10, WIDTH))
    assert not layer.load.any()


def test_every_expert_has_a_gradient_even_one_that_nobody_chose() -> None:
    layer = experts()
    with torch.no_grad():
        layer.bias[3] = -10.0
    layer(torch.randn(10, WIDTH)).sum().backward()
    assert layer.w_in.grad is not None
    assert not layer.w_in.grad[3].any()
    assert layer.router.grad is not None


def test_experts_stand_in_deeper_blocks_only_and_not_at_all_when_off() -> None:
    config = small_config(SIZE, layers=4, experts=4, experts_chosen=1, d_expert=8)
    kinds = [type(block.feed) for block in Generator(config).blocks]
    assert kinds == [FeedForward, FeedForward, Experts, Experts]
    assert all(type(block.feed) is FeedForward for block in Generator(small_config(SIZE, layers=4)).blocks)
    assert {name for name, _ in Block(small_config()).feed.named_parameters()} == {"w_in", "w_out"}
    with pytest.raises(ValueError, match="expected 1 to all of them"):
        small_config(experts=2, experts_chosen=3)


def test_an_active_expert_path_costs_what_the_dense_one_does() -> None:
    config = small_config(SIZE, experts=4, experts_chosen=3, dense_blocks=0)
    layer = Block(config).feed
    assert isinstance(layer, Experts)
    assert 3 * layer.expert_width * (layer.chosen + 1) == 12 * config.d_model


def test_training_balances_and_learns() -> None:
    config = small_config(SIZE, experts=4, experts_chosen=1, d_expert=8, dense_blocks=0)
    args = TrainArguments(config=config, epochs=30, batch_size=32, weight_decay=0.0)
    trained = train_generator(random_examples(64), CODES, args)
    assert trained.curve[-1].loss < trained.curve[0].loss
    biases = [block.feed.bias for block in trained.generator.blocks]
    assert all(bias.any() for bias in biases)


def test_a_generator_with_experts_exports_and_its_bias_is_replaced_with_its_weights(tmp_path: Path) -> None:
    config = small_config(SIZE, experts=4, experts_chosen=2, d_expert=8, dense_blocks=1)
    generator = small_generator(config=config)
    trie, _, _ = random_trie(np.random.default_rng(0), 20, SIZE)
    golden = random_context(np.random.default_rng(1), 4, SIZE)
    export_generator(generator, tmp_path / "model.onnx", golden, trie, beam_width=5)
    other = small_generator(seed=1, config=config)
    with torch.no_grad():
        other.blocks[1].feed.bias += torch.tensor([1.0, -1.0, 0.5, 0.0])
    replace_weights(tmp_path / "model.onnx", tmp_path / "other.onnx", other, golden, trie)
