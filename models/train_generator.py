"""Training of the generator: examples in, weights and curve out.

A run is a function of its arguments and its examples: killed and started again with the same checkpoints, it gives
the same curve and the same weights to the bit, unless time ends it. To go on from the version that serves, hand in
its weights and newer examples.

Source: OneRec-V2, arXiv:2508.20900 §2. Kept: loss only on the newest items, targets of a request share its context.
Chosen here: AdamW with warm-up and cosine; context tokens are dropped at random, so that short histories are as
familiar as long ones; examples are shuffled where the paper streams them in time order, since there are few of them
and each is seen more than once.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from core.errors import InputError
from models.batches import Ints
from models.checkpoints import (
    Best,
    Checkpoint,
    Checkpoints,
    digest_of,
    read_checkpoint,
    run_digest,
    seed_of_step,
    write_checkpoint,
)
from models.examples import ExampleFacts, Examples, ExamplesInMemory, ExampleSource
from models.generator import Generator
from models.losses import generation_loss, item_loss
from models.processes import ALONE, Processes
from models.train_arguments import TrainArguments
from models.training_step import Batch, Objective, TrainingStep, batch_of, hide_tokens, optimizer_of
from models.trie import Trie
from models.trie_tensors import trie_tensors

_REPORTS: Final = 20
_AVERAGED_RATE: Final = 0.5  # share of the peak at which the learning rate ends where weights are averaged

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """Where training stands."""

    step: int
    steps: int  # if no time limit ends it
    loss: float  # mean nats a code since the last report
    elapsed_s: float
    done: float  # share of the run that is over, by steps or by time, whichever is further
    validation: float | None = None  # None when there is no validation


class Trained(NamedTuple):
    """What training gives."""

    generator: Generator
    curve: list[Progress]  # at least one
    seconds: float


def train_generator(
    examples: Examples | ExampleSource,
    codes: Ints,
    args: TrainArguments,
    *,
    trie: Trie | None = None,
    generator: Generator | None = None,
    objective: Objective | None = None,
    validate: Callable[[Generator], float] | None = None,
    checkpoints: Checkpoints | None = None,
    processes: Processes = ALONE,
    progress: Callable[[Progress], None] | None = None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Trained:
    """A generator trained on the examples, on the CPU; equal arguments give equal weights unless time ends the run.

    Args:
        codes: (I, LEVELS) code paths of the catalogue.
        trie: of the targets (`Catalog.trie_of_targets`), where the generator has a prior.
        generator: its weights are where training begins, and it is what is trained; new ones when absent.
        objective: what is minimised; `generation_loss` of all targets when absent.
        validate: what the weights are judged by at every report, the smaller the better, such as a loss on later days;
            asked in the first process only. The best weights are what training gives.
        checkpoints: a run that finds one goes on from there. None are written when absent.
        processes: the same call in each of them, all with the same examples.
        progress: told whenever another twentieth of the run is over; in the first process only.

    Raises:
        InputError: the examples, codes or arguments do not fit each other; found before the first step.
        ContractError: the loss is not finite.
    """
    source = ExamplesInMemory(examples) if isinstance(examples, Examples) else examples
    torch.manual_seed(args.seed)
    generator = generator or Generator(args.config)
    _refuse_misfits(source.facts, codes, args, generator)
    generator.to(processes.device).train()
    step = TrainingStep(
        generator,
        objective or _objective(args, codes, trie, processes.device),
        optimizer_of(generator, args.learning_rate, args.weight_decay),
        processes=processes,
        gradient_norm=args.gradient_norm,
        micro_batch=args.micro_batch,
        precision=args.precision,
        compiled=args.compiled,
    )
    average = AveragedModel(generator, use_buffers=True) if args.averaged else None
    at, run = _Standing(), ""
    if checkpoints is not None:
        weights = [weight.detach().cpu().numpy() for weight in generator.parameters()]
        run = run_digest(asdict(args), source.facts, digest_of([codes, *weights]))
        found = read_checkpoint(checkpoints.path, run)
        if found is not None:
            at = _Standing.of(found)
            generator.load_state_dict(found.model)
            step.restore(found.step_state)
            if average is not None and found.average is not None:
                average.load_state_dict(found.average)

    def save() -> None:
        if checkpoints is not None and processes.first:
            write_checkpoint(at.checkpoint(run, generator, step, average), checkpoints.path)

    per_epoch = math.ceil(source.facts.requests / args.batch_size)
    steps = math.ceil(args.epochs * per_epoch)
    started = monotonic_s() - at.elapsed_s
    saved_s, saved_step = at.elapsed_s, at.step
    stream = _batches(source, args, at.step, per_epoch)
    while at.done < 1.0 and (args.patience is None or at.worse < args.patience):
        torch.manual_seed(seed_of_step(args.seed, at.step, 0))  # of the whole batch: equal in every process
        batch = hide_tokens(batch_of(next(stream), codes), args.token_dropout)
        torch.manual_seed(seed_of_step(args.seed, at.step, 1 + processes.rank))
        at.losses.append(step(batch, args.learning_rate * _schedule(at.done, args)))
        at.step += 1
        at.elapsed_s = processes.of_first(monotonic_s() - started)
        before, at.done = at.done, min(max(at.step / steps, at.elapsed_s / args.train_s), 1.0)
        if average is not None and at.done > 1.0 - args.averaged:
            average.update_parameters(generator)
        if int(at.done * _REPORTS) > int(before * _REPORTS):
            _report(at, steps, _given(generator, average), validate, processes, progress)
            generator.train()
        if checkpoints is not None and (
            at.elapsed_s - saved_s >= checkpoints.every_s or at.step - saved_step >= checkpoints.every_steps
        ):
            save()
            saved_s, saved_step = at.elapsed_s, at.step
    if at.step > saved_step:
        save()
    generator.load_state_dict(_given(generator, average).state_dict() if at.best is None else at.best.weights)
    logger.info(
        "generator.trained requests=%d steps=%d seconds=%.1f loss=%.3f",
        source.facts.requests,
        at.step,
        at.elapsed_s,
        at.curve[-1].loss,
    )
    return Trained(generator.cpu().eval(), at.curve, at.elapsed_s)


@dataclass
class _Standing:
    """Where a run stands; the fields of a checkpoint that are numbers."""

    step: int = 0
    elapsed_s: float = 0.0
    done: float = 0.0
    losses: list[float] = field(default_factory=list)
    curve: list[Progress] = field(default_factory=list)
    best: Best | None = None
    worse: int = 0

    @classmethod
    def of(cls, found: Checkpoint) -> "_Standing":
        curve = [Progress._make(report) for report in found.curve]
        return cls(found.step, found.elapsed_s, found.done, found.losses, curve, found.best, found.worse)

    def checkpoint(
        self, run: str, generator: Generator, step: TrainingStep, average: AveragedModel | None
    ) -> Checkpoint:
        return Checkpoint(
            run=run,
            step=self.step,
            elapsed_s=self.elapsed_s,
            done=self.done,
            model=generator.state_dict(),
            step_state=step.state(),
            average=None if average is None else average.state_dict(),
            losses=self.losses,
            curve=[tuple(report) for report in self.curve],
            best=self.best,
            worse=self.worse,
        )


def _given(generator: Generator, average: AveragedModel | None) -> Generator:
    """What training would give now: the average, once there is one."""
    if average is None or not average.n_averaged:
        return generator
    return cast(Generator, average.module)


def _report(
    at: _Standing,
    steps: int,
    generator: Generator,
    validate: Callable[[Generator], float] | None,
    processes: Processes,
    progress: Callable[[Progress], None] | None,
) -> None:
    """The curve has one point more, and the best weights are kept."""
    validation = None
    if validate is not None:
        validation = processes.of_first(validate(generator.eval()) if processes.first else 0.0)
        at.worse += 1
        if at.best is None or validation < at.best.validation:
            weights = {name: weight.detach().cpu().clone() for name, weight in generator.state_dict().items()}
            at.best, at.worse = Best(validation, weights), 0
    at.curve.append(Progress(at.step, steps, float(np.mean(at.losses)), at.elapsed_s, at.done, validation))
    at.losses.clear()
    if progress is not None and processes.first:
        progress(at.curve[-1])


def _refuse_misfits(facts: ExampleFacts, codes: Ints, args: TrainArguments, generator: Generator) -> None:
    """Raise InputError for what would fail, or quietly teach nonsense, later."""
    if not facts.targets:
        raise InputError(
            f"found no examples with a target among {facts.requests}, expected at least one; "
            "train on days with acts on known items"
        )
    if not facts.finite:
        raise InputError("found NaN or infinity in interests or places, expected numbers; look at the item vectors")
    if facts.tokens > args.config.tokens:
        raise InputError(
            f"found contexts of {facts.tokens} item tokens, expected at most {args.config.tokens}; "
            "set tokens of the config, or make the examples with fewer, the newest"
        )
    if facts.highest_item >= len(codes):
        raise InputError(
            f"found target {facts.highest_item}, expected items below {len(codes)}; "
            "make the examples with the catalogue that the codes are of"
        )
    if codes.max() >= args.config.codebook_size or codes.min() < 0:
        raise InputError(
            f"found codes {codes.min()} to {codes.max()}, expected 0 to {args.config.codebook_size - 1}; "
            "set codebook_size to that of the tokenizer"
        )
    if generator.config != args.config:
        raise InputError(
            f"found weights of {generator.config}, expected {args.config}; train a version with its own shape"
        )


def _objective(args: TrainArguments, codes: Ints, trie: Trie | None, device: torch.device) -> Objective:
    tensors = None if trie is None else trie_tensors(trie, device)
    catalogue = torch.from_numpy(codes[: args.config.items]).to(device) if args.config.item_head else None

    def objective(generator: Generator, batch: Batch) -> Tensor:
        found = generator.decode(batch.context, batch.codes, tensors, catalogue)
        loss = generation_loss(found.logits, batch.codes, weights=batch.weights, smoothing=args.label_smoothing)
        for logits in (found.item_logits, found.word_logits):
            if logits is not None:
                loss = loss + args.item_loss * item_loss(logits, batch.items)
        return loss

    return objective


def _schedule(done: float, args: TrainArguments) -> float:
    """Share of the peak learning rate when `done` of the run is over."""
    if done < args.warmup:
        return max(done, 1e-3) / args.warmup
    last = _AVERAGED_RATE if args.averaged else 0.0
    fallen = 0.5 * (1.0 - math.cos(math.pi * (done - args.warmup) / (1.0 - args.warmup)))
    return 1.0 - (1.0 - last) * fallen


def _batches(source: ExampleSource, args: TrainArguments, step: int, per_epoch: int) -> Iterator[Examples]:
    """Endless batches from the one of `step` on; every epoch is a new order, its last batch may be smaller."""
    epoch, skip = divmod(step, per_epoch)
    while True:
        yield from source.batches(args.batch_size, seed=args.seed, epoch=epoch, skip=skip)
        epoch, skip = epoch + 1, 0
