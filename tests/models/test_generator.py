"""The lazy decoder is what the paper says: thin context, no K/V weights in the decoder, heads per level."""

import numpy as np
import pytest
import torch

from models.batches import LEVELS, TOKENS, take_rows
from models.context_processor import context_tensors
from models.decoder_block import Block
from models.generator import Generator
from models.generator_config import GeneratorConfig
from tests.models.worlds import random_context, random_paths, small_config, small_generator

MEMORY = TOKENS + 3  # item tokens, two interests, place and hour


def paths(requests: int, targets: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([random_paths(rng, targets, 5) for _ in range(requests)]))


@pytest.mark.parametrize(("width", "layers"), [(16, 1), (32, 4), (96, 4)])
def test_a_block_has_18_d_squared_weights(width: int, layers: int) -> None:
    generator = Generator(GeneratorConfig(d_model=width, layers=layers))
    matrices = sum(weight.numel() for weight in generator.blocks.parameters() if weight.ndim == 2)
    assert matrices == 18 * width**2 * layers


def test_cross_attention_owns_no_key_or_value_weights() -> None:
    assert {name for name, _ in Block(small_config()).cross.named_parameters()} == {"w_q", "w_o"}


@pytest.mark.parametrize("kv_split", [1, 2])
@pytest.mark.parametrize("kv_sets", [1, 2, 4])
@pytest.mark.parametrize("kv_groups", [1, 2, 4])
def test_the_memory_holds_s_l_g_d_n_elements(kv_split: int, kv_sets: int, kv_groups: int) -> None:
    config = small_config(layers=4, kv_split=kv_split, kv_sets=kv_sets, kv_groups=kv_groups)
    generator = small_generator(config=config)
    memory = generator.encode(context_tensors(random_context(np.random.default_rng(0), 1, 5)))
    tensors = {id(tensor): tensor for tensor in [*memory.keys, *memory.values]}
    assert sum(tensor.numel() for tensor in tensors.values()) == config.d_context * MEMORY
    assert config.d_context == kv_split * kv_sets * kv_groups * config.d_head
    assert all((key is value) == (kv_split == 1) for key, value in zip(memory.keys, memory.values, strict=True))
    assert generator(context_tensors(random_context(np.random.default_rng(0), 3, 5)), paths(3, 2)).shape == (3, 2, 3, 5)


def test_each_block_reads_the_set_of_its_depth() -> None:
    config = small_config(layers=4, kv_sets=2)
    generator = small_generator(config=config)
    context, targets = context_tensors(random_context(np.random.default_rng(0), 2, 5)), paths(2, 1)
    read: list[torch.Tensor] = []
    for block in generator.blocks:
        block.cross.register_forward_hook(lambda module, inputs, output: read.append(inputs[2]))
    memory = generator.encode(context)
    generator(context, targets)
    assert [int(torch.equal(keys, memory.keys[1])) for keys in read] == [0, 0, 1, 1]


def test_a_code_is_predicted_from_the_codes_before_it_only() -> None:
    generator = small_generator()
    context = context_tensors(random_context(np.random.default_rng(1), 2, 5))
    targets = paths(2, 3)
    before = generator(context, targets)
    for level in range(LEVELS):
        changed = targets.clone()
        changed[:, :, level] = (changed[:, :, level] + 1) % 5
        differs = (generator(context, changed) - before).abs().amax(dim=(0, 1, 3)) > 1e-6
        assert differs.tolist() == [later > level for later in range(LEVELS)]


def test_stepping_gives_the_numbers_of_the_whole_pass() -> None:
    generator = small_generator()
    context, targets = context_tensors(random_context(np.random.default_rng(2), 3, 5)), paths(3, 4)
    whole = generator(context, targets)
    memory = generator.encode(context)
    logits, now, _ = generator.step(0, memory, torch.zeros(3, 1), None)
    assert torch.allclose(logits.expand(3, 4, 5), whole[:, :, 0], atol=1e-5)
    past = now.expand(3, 4, 1, -1)
    for level in (1, 2):
        logits, now, _ = generator.step(level, memory, targets[:, :, level - 1], past)
        past = torch.cat([past, now], dim=2)
        assert torch.allclose(logits, whole[:, :, level], atol=1e-5)


def test_targets_of_a_request_do_not_see_each_other() -> None:
    generator = small_generator()
    batch = random_context(np.random.default_rng(3), 3, 5)
    targets = paths(3, 4)
    together = generator(context_tensors(batch), targets)
    for request in range(3):
        alone_in_context = context_tensors(take_rows(batch, slice(request, request + 1)))
        for target in range(4):
            alone = generator(alone_in_context, targets[request : request + 1, target : target + 1])
            assert torch.allclose(alone[0, 0], together[request, target], atol=1e-5)


def test_a_masked_token_says_nothing() -> None:
    generator = small_generator()
    batch = random_context(np.random.default_rng(4), 2, 5)
    hidden = batch._replace(mask=np.zeros_like(batch.mask))
    noise = random_context(np.random.default_rng(5), 2, 5)
    other = hidden._replace(codes=noise.codes, actions=noise.actions, watch=noise.watch, age=noise.age)
    with torch.no_grad():
        first, second = (generator(context_tensors(each), paths(2, 1)) for each in (hidden, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("shown", ["some", "none", "all"])
def test_training_works_on_the_tokens_that_are_there_and_finds_what_all_with_padding_give(shown: str) -> None:
    generator = small_generator(config=small_config(context_blocks=2, kv_groups=4, items=30, item_dropout=0.0))
    batch = random_context(np.random.default_rng(9), 4, 5)
    batch = batch._replace(mask={"some": batch.mask, "none": batch.mask & False, "all": batch.mask | True}[shown])
    found, gradients = [], []
    for trained in (True, False):  # dropout is 0: training differs in what it works on, and in nothing else
        generator.train(trained).zero_grad()
        logits = generator(context_tensors(batch), paths(4, 2))
        logits.square().sum().backward()
        found.append(logits.detach())
        gradients.append([weight.grad for weight in generator.parameters() if weight.grad is not None])
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert all(torch.allclose(*pair, atol=1e-3, rtol=1e-4) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("field", ["codes", "actions", "watch", "age", "interests", "place"])
def test_every_part_of_the_context_is_heard(field: str) -> None:
    generator = small_generator()
    batch, other = (random_context(np.random.default_rng(seed), 2, 5) for seed in (6, 7))
    batch, other = (each._replace(mask=np.ones_like(each.mask)) for each in (batch, other))
    changed = batch._replace(**{field: getattr(other, field)})
    difference = generator(context_tensors(batch), paths(2, 1)) - generator(context_tensors(changed), paths(2, 1))
    assert difference.abs().max() > 1e-4


def test_the_order_of_acts_is_heard() -> None:
    generator = small_generator()
    batch = random_context(np.random.default_rng(8), 1, 5)._replace(mask=np.ones((1, TOKENS), bool))
    turned = batch._replace(codes=batch.codes[:, ::-1].copy())
    difference = generator(context_tensors(batch), paths(1, 1)) - generator(context_tensors(turned), paths(1, 1))
    assert difference.abs().max() > 1e-4


def test_each_level_has_a_norm_and_a_head_of_its_own() -> None:
    generator = small_generator()
    assert len({id(weight) for weight in [*generator.heads, *generator.out_norms.parameters()]}) == 2 * LEVELS


@pytest.mark.parametrize(
    "changes", [{"heads": 3}, {"kv_groups": 3}, {"kv_split": 3}, {"kv_sets": 0}, {"kv_sets": 3, "layers": 2}]
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="found"):
        small_config(**changes)
