"""Networks that read a sequence and predict its next item: one training loop, full-softmax cross-entropy.

Letters used in this file
    B sequences   T places, the newest last   I items   d width

Every place of a training sequence is a target once an epoch. The length of a run is fixed beforehand, so nothing is
stopped by looking at what is asked. Weights are kept by a digest of everything that made them: a queue of runs that
was interrupted finds them again.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmarks.quality.split import Floats, Longs, Split, first_of_user, histories

_BEGIN: Final = 25.0  # of the peak of the learning rate, the part it begins at
_AVERAGED_RATE: Final = 0.5  # share of the peak that it falls to where weights are averaged


@dataclass(frozen=True)
class NextItemArgs:
    """How a network is built and trained."""

    width: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 50
    """T at most."""
    dropout: float = 0.5
    epochs: int = 30
    """At most."""
    most_targets: int = 4_000_000
    """After whose number no further epoch begins: large data need fewer passes, and a run must end."""
    batch: int = 128
    """Sequences per step."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    averaged: float = 0.0
    """Share of the run, its last, whose weights are averaged, as in `models.train_arguments`; 0 = the last weights."""


class Reader(nn.Module):
    """What a network of this kind has: one table of items, read and predicted with."""

    items: nn.Embedding
    """I + 1 rows; the last stands for "no item"."""

    def forward(self, items: Tensor, at_s: Tensor) -> Tensor:
        """(B, T, d) what each place says of the item after it. items: (B, T), I = none; at_s: (B, T)."""
        raise NotImplementedError


class NextItem:
    """A `Model` around a Reader.

    Args:
        build: (items, args) -> network.
        weights: folder where trained weights are kept.
        say: receives a line per epoch.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[int, NextItemArgs], Reader],
        args: NextItemArgs,
        weights: Path,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = name
        self._build, self._args, self._weights, self._say = build, args, weights, say
        self._network: Reader | None = None

    def fit(self, split: Split, seed: int) -> None:
        """Trains, or reads what an equal call has trained."""
        torch.manual_seed(seed)
        network = self._build(len(split.items), self._args)
        path = self._weights / f"{self.name}-{self._digest(split, seed)}.pt"
        if path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
        else:
            self._train(network, split, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            torch.save(network.state_dict(), partial)
            partial.replace(path)
        self._network = network.eval()

    @torch.inference_mode()
    def scores(self, split: Split, asked: Longs) -> Floats:
        """The chance of each item to be the next."""
        assert self._network is not None, "fit comes first"
        before = histories(split.events, split.asked[asked], self._args.length, split.events.good)
        items, at_s = _inputs(split, before[:, ::-1])
        table = self._network.items.weight[: len(split.items)]
        return np.asarray(torch.softmax(self._network(items, at_s)[:, -1] @ table.T, dim=1))

    def _digest(self, split: Split, seed: int) -> str:
        made = hashlib.blake2b(f"{self.name} {self._args} {seed} {len(split.items)}".encode(), digest_size=8)
        kept = split.learn & split.events.good
        for column in (split.events.users, split.events.items, split.events.at_s):
            made.update(np.ascontiguousarray(column[kept]).tobytes())
        return made.hexdigest()

    def _train(self, network: Reader, split: Split, seed: int) -> None:
        rng = np.random.default_rng(seed)
        windows = training_windows(split, self._args.length)
        targets = int(((windows[:, 1:] >= 0) & (windows[:, :-1] >= 0)).sum())
        epochs = min(self._args.epochs, -(-self._args.most_targets // max(targets, 1)))
        steps = epochs * -(-len(windows) // self._args.batch)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self._args.learning_rate, weight_decay=self._args.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self._args.learning_rate,
            total_steps=max(steps, 2),
            pct_start=0.1,
            cycle_momentum=False,
            div_factor=_BEGIN,
            final_div_factor=1 / (_BEGIN * _AVERAGED_RATE) if self._args.averaged else 1e4,
        )
        average = AveragedModel(network) if self._args.averaged else None
        step = 0
        for epoch in range(epochs):
            network.train()
            losses = []
            for rows in _batches(windows, self._args.batch, rng):
                optimizer.zero_grad()
                loss = _loss(network, split, rows)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                step += 1
                if average is not None and step > (1 - self._args.averaged) * steps:
                    average.update_parameters(network)
            self._say(f"{self.name}: epoch {epoch + 1} of {epochs}, loss {np.mean(losses):.4f}")
        if average is not None:
            network.load_state_dict(average.module.state_dict())


def training_windows(split: Split, length: int) -> Longs:
    """(B, length + 1) event indices, oldest first, right-aligned, -1 = none: the good acts that may be learned from.

    A user with more has several windows, which share one act each: every act but the first is a target once.
    """
    index = np.flatnonzero(split.learn & split.events.good)
    users = split.events.users[index]
    place = np.arange(len(users)) - first_of_user(users)
    last = np.append(users[1:] != users[:-1], True) if len(users) else np.empty(0, np.bool_)
    total = np.bincount(users, minlength=int(users.max(initial=0)) + 1)[users]
    ends = np.flatnonzero((last | ((total - 1 - place) % length == 0)) & (place > 0))
    places = ends[:, None] - np.arange(length, -1, -1)
    return np.where(places >= (ends - place[ends])[:, None], index[np.maximum(places, 0)], -1)


def _batches(windows: Longs, size: int, rng: np.random.Generator) -> Iterator[Longs]:
    """Windows of like length together, cut to the longest: shuffled, sorted within a few batches, shuffled again."""
    lengths = (windows >= 0).sum(axis=1)
    order = rng.permutation(len(windows))
    several = 16 * size
    parts = [order[at : at + several] for at in range(0, len(order), several)]
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    for number in rng.permutation(len(batches)):
        rows = batches[number]
        yield windows[rows][:, -int(lengths[rows].max()) :]


def _loss(network: Reader, split: Split, windows: Longs) -> Tensor:
    items, at_s = _inputs(split, windows[:, :-1])
    targets = windows[:, 1:]
    counted = torch.from_numpy((windows[:, :-1] >= 0) & (targets >= 0))
    states = network(items, at_s)[counted]
    wanted = torch.from_numpy(split.events.items[targets].astype(np.int64))[counted]
    loss: Tensor = SoftmaxLoss.apply(states, network.items.weight[: len(split.items)], wanted)  # type: ignore[no-untyped-call]
    return loss


def _inputs(split: Split, acts: Longs) -> tuple[Tensor, Tensor]:
    known = acts >= 0
    items = np.where(known, split.events.items[acts], len(split.items)).astype(np.int64)
    at_s = np.where(known, split.events.at_s[acts], 0)
    return torch.from_numpy(items), torch.from_numpy(at_s)


class SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy of softmax(states @ table.T); the gradient is made in place of the logits."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """states: (n, d); table: (I, d); targets: (n,)."""
        rows = torch.arange(len(targets))
        logits = states @ table.T
        top = logits.amax(dim=1, keepdim=True)
        own = logits[rows, targets]
        total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
        logits.div_(total * len(targets))
        logits[rows, targets] -= 1 / len(targets)
        ctx.save_for_backward(logits @ table, logits.T @ states)
        return (total.log() + top).squeeze(1).sub(own).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        states, table = ctx.saved_tensors
        return gradient * states, gradient * table, None
