"""A step is the same however it is done: whole, in parts, by two processes."""

import math
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from core.errors import ContractError, InputError
from models.encoder_decoder import EncoderDecoder
from models.generator import Generator
from models.generator_quality import mean_loss
from models.losses import generation_loss
from models.processes import ALONE, joined_processes
from models.train_arguments import TrainArguments
from models.train_generator import Trained, train_generator
from models.training_step import Batch, TrainingStep, batch_of
from tests.models.example_worlds import CODES, SIZE, random_examples
from tests.models.worlds import small_config

Weights = dict[str, torch.Tensor]


def plain_loss(generator: Generator, batch: Batch) -> torch.Tensor:
    return generation_loss(generator(batch.context, batch.codes), batch.codes, weights=batch.weights)


def new_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(small_config(SIZE))


def one_large_batch() -> tuple[float, Weights]:
    """Plain gradient descent on the mean over all targets."""
    generator = new_generator()
    loss = plain_loss(generator, batch_of(random_examples(20), CODES))
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for weight in generator.parameters():
            weight -= 0.1 * weight.grad if weight.grad is not None else 0.0
    return float(loss.detach()), dict(generator.named_parameters())


@pytest.mark.parametrize("micro_batch", [1, 3, 7, 20, None])
def test_added_gradients_are_those_of_one_large_batch(micro_batch: int | None) -> None:
    generator = new_generator()
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.0)
    step = TrainingStep(
        generator, plain_loss, optimizer, processes=ALONE, gradient_norm=math.inf, micro_batch=micro_batch
    )
    loss = step(batch_of(random_examples(20), CODES), 0.1)
    expected_loss, expected = one_large_batch()
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    weights = dict(generator.named_parameters())
    assert all(torch.allclose(weights[name], expected[name], atol=1e-5) for name in expected)


def test_a_loss_that_is_no_number_ends_training() -> None:
    generator = Generator(small_config(SIZE))
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    step = TrainingStep(
        generator,
        lambda *_: next(generator.parameters()).sum() * math.nan,
        optimizer,
        processes=ALONE,
        gradient_norm=1.0,
    )
    with pytest.raises(ContractError, match="found a loss of nan"):
        step(batch_of(random_examples(4), CODES), 0.1)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"precision": "float16"}, {"compiled": True}])
def test_half_precision_and_compilation_are_refused_without_cuda(changes: dict[str, object]) -> None:
    args = TrainArguments(config=small_config(SIZE), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="leave the two options out"):
        train_generator(random_examples(4), CODES, args)


@pytest.mark.parametrize("changes", [{}, {"experts": 4, "experts_chosen": 2, "dense_blocks": 0}, {"kv_groups": 4}])
def test_products_in_half_precision_give_nearly_the_same_loss(changes: dict[str, int]) -> None:
    """What autocast does on CUDA, on the CPU: nothing in a model insists on float32."""
    torch.manual_seed(0)
    config = small_config(SIZE, **changes)
    generator = EncoderDecoder(config) if "kv_groups" in changes else Generator(config)
    batch = batch_of(random_examples(20), CODES)
    expected = float(plain_loss(generator, batch).detach())
    with torch.autocast("cpu", torch.bfloat16):
        loss = plain_loss(generator, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(expected, abs=0.05)
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in generator.parameters())


def trained_by(rank: int, world: int, port: int, folder: str) -> None:
    """One process of several: trains, and writes what it got."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    args = TrainArguments(config=small_config(SIZE), epochs=3, batch_size=16, micro_batch=5, token_dropout=0.3)
    later = random_examples(20, seed=1)
    with joined_processes() as processes:
        trained: Trained = train_generator(
            random_examples(49),
            CODES,
            args,
            processes=processes,
            validate=lambda generator: mean_loss(generator, later, CODES),
        )
    torch.save((trained.generator.state_dict(), [tuple(at) for at in trained.curve]), Path(folder) / f"{rank}.pt")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_two_processes_are_one_with_the_double_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = tmp_path / "2", tmp_path / "1"
    together.mkdir()
    alone.mkdir()
    multiprocessing.spawn(trained_by, (2, free_port(), str(together)), nprocs=2)  # type: ignore[no-untyped-call]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # restored afterwards
    trained_by(0, 1, 0, str(alone))
    first, second = (torch.load(together / f"{rank}.pt") for rank in (0, 1))
    expected, curve = torch.load(alone / "0.pt")
    assert all(torch.equal(first[0][name], second[0][name]) for name in expected)
    assert all(torch.allclose(first[0][name], expected[name], atol=1e-3) for name in expected)
    for one, other in zip(first[1], curve, strict=True):
        assert one[:3] == pytest.approx(other[:3], abs=1e-4)
        assert one[5] == pytest.approx(other[5], abs=1e-4)
