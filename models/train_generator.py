"""Training of the generator: examples in, weights and curve out; and how good a generator is.

Letters used in this file
    n requests   k targets of a request   V codebook size   K beams

Source: OneRec-V2, arXiv:2508.20900 §2. Kept: examples in time order, loss only on the newest items, targets of a
request share its context. Chosen here: AdamW with warm-up and cosine; context tokens are dropped at random, so
that short histories are as familiar as long ones.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from core.errors import InputError
from models.batches import ContextBatch, Ints, take_rows
from models.export import beams_of
from models.generator import ContextTensors, Generator, GeneratorConfig, context_tensors
from models.losses import generation_loss
from models.metrics import Ranks, ranks_in_beams
from models.trie import Trie

_REPORTS: Final = 20

logger = logging.getLogger(__name__)


class Examples(NamedTuple):
    """What is learned from: requests and the items that turned out good."""

    context: ContextBatch  # of n requests
    items: Ints  # (n, k) catalogue index of each target, -1 = padding


@dataclass(frozen=True)
class TrainArguments:
    """Everything that decides what training gives; stored in the manifest."""

    config: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Shape of the model."""
    epochs: float = 6.0
    """Passes over the examples, unless `train_s` ends first."""
    train_s: float = 3600.0
    """Wall-clock limit. The learning rate reaches zero at whichever end comes first."""
    batch_size: int = 128
    """Requests in one step."""
    learning_rate: float = 6e-3
    """Peak, after warm-up."""
    warmup: float = 0.05
    """Share of the run in which the learning rate rises to its peak."""
    weight_decay: float = 0.5
    """Of matrices and code vectors; norms and the small tables of the context are left alone."""
    label_smoothing: float = 0.0
    """Share of a target's mass spread over the codebook."""
    token_dropout: float = 0.3
    """Share of context tokens hidden at each step."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    seed: int = 0
    """Of initial weights, order and dropout."""

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.train_s <= 0 or self.batch_size < 1:
            raise InputError(
                f"found epochs {self.epochs}, train_s {self.train_s}, batch_size {self.batch_size}; "
                "expected positive numbers"
            )


class Progress(NamedTuple):
    """Where training stands."""

    step: int
    steps: int  # if no time limit ends it
    loss: float  # mean nats a code since the last report
    elapsed_s: float
    done: float  # share of the run that is over, by steps or by time, whichever is further


class Trained(NamedTuple):
    """What training gives."""

    generator: Generator
    curve: list[Progress]  # at least one
    seconds: float


def train_generator(
    examples: Examples,
    codes: Ints,
    args: TrainArguments,
    *,
    progress: Callable[[Progress], None] | None = None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Trained:
    """A generator trained on the examples. The same arguments give the same weights unless time ends the run.

    Args:
        codes: (I, LEVELS) code paths of the catalogue.
        progress: told whenever another twentieth of the run is over.

    Raises:
        InputError: there is no example.
    """
    targets, weights = _targets(examples.items, codes)
    count = len(targets)
    if not count:
        raise InputError("found no examples, expected at least one; train on days with acts on known items")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    generator = Generator(args.config)
    optimizer = _optimizer(generator, args)
    steps = math.ceil(args.epochs * count / args.batch_size)
    context = context_tensors(examples.context)

    started, curve, losses, done = monotonic_s(), list[Progress](), list[float](), 0.0
    for step, rows in enumerate(_orders(count, args.batch_size, rng), start=1):
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * _schedule(done, args.warmup)
        batch = _hide_tokens(context.take(rows), args.token_dropout)
        logits = generator(batch, targets[rows])
        loss = generation_loss(logits, targets[rows], weights=weights[rows], smoothing=args.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(generator.parameters(), args.gradient_norm)
        optimizer.step()
        losses.append(float(loss.detach()))
        elapsed_s = monotonic_s() - started
        before, done = done, min(max(step / steps, elapsed_s / args.train_s), 1.0)
        if int(done * _REPORTS) > int(before * _REPORTS):
            curve.append(Progress(step, steps, float(np.mean(losses)), elapsed_s, done))
            losses.clear()
            if progress is not None:
                progress(curve[-1])
        if done == 1.0:
            break
    logger.info("generator.trained examples=%d seconds=%.1f loss=%.3f", count, elapsed_s, curve[-1].loss)
    return Trained(generator.eval(), curve, elapsed_s)


def target_ranks(
    generator: Generator, examples: Examples, trie: Trie, *, beam_width: int, batch_size: int = 256
) -> Ranks:
    """(n,) rank of each request's first target among its beams, by the search that serves."""
    chunks = [slice(start, start + batch_size) for start in range(0, len(examples.items), batch_size)]
    ranks = [
        ranks_in_beams(
            beams_of(generator, take_rows(examples.context, chunk), trie, beam_width), examples.items[chunk, 0]
        )
        for chunk in chunks
    ]
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def _targets(items: Ints, codes: Ints) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, k, LEVELS) codes and (n, k) weights; padding has weight 0."""
    real = items >= 0
    return torch.from_numpy(codes[np.where(real, items, 0)]), torch.from_numpy(real.astype(np.float32))


def _optimizer(generator: Generator, args: TrainArguments) -> torch.optim.AdamW:
    named = list(generator.named_parameters())
    decayed = [weight for name, weight in named if weight.ndim > 1 and not name.endswith("table")]
    others = [weight for name, weight in named if weight.ndim <= 1 or name.endswith("table")]
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98), fused=True)


def _schedule(done: float, warmup: float) -> float:
    """Share of the peak learning rate when `done` of the run is over."""
    if done < warmup:
        return max(done, 1e-3) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))


def _orders(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Endless batches of row numbers; every epoch is a new order, its last batch may be smaller."""
    while True:
        order: npt.NDArray[np.int64] = rng.permutation(count)
        for start in range(0, count, batch_size):
            yield torch.from_numpy(order[start : start + batch_size])


def _hide_tokens(context: ContextTensors, share: float) -> ContextTensors:
    return context._replace(mask=context.mask & (torch.rand(context.mask.shape) >= share)) if share else context
