"""Training of the value head on what was shown and what followed; and how well it foresees.

Letters used in this file
    n exposures   R outcomes (models.values.Value)   d width

The generator stands still: its state before the first code is computed once for each exposure, and the head is fitted
to those, in seconds. Rates of items are counted, each exposure's own outcome taken off before it is learned from. The
newest tenth of the exposures is held back and then moves only a scale and a shift of each outcome's log-odds (Platt),
so that odds mean what they say.

Exposures were chosen by whatever recommended then: odds of what it never shows are extrapolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, embedding

from core.errors import InputError
from models.batches import ContextBatch, Ints, take_rows
from models.context_processor import context_tensors
from models.generator import Generator
from models.value_head import ValueHead

_ROWS: Final = 512  # contexts that are encoded at once
_FEW: Final = 50  # an outcome that came, or failed to come, less often has a rate and no reasons
_BINS: Final = 10  # of equal size, for the calibration error

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Shown(NamedTuple):
    """n exposures."""

    states: Tensor  # (n, d) before the first code, of the generator whose head is meant
    items: Ints  # (n,) catalogue index
    outcomes: Flags  # (n, R)
    at_ms: npt.NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class ValueArguments:
    """Everything that decides what the fit gives, besides generator and exposures."""

    exposures: int = 120_000
    """The newest this many are learned from."""
    epochs: int = 3
    """Passes; more fit better and foresee worse."""
    batch_size: int = 512
    """Exposures in one step."""
    learning_rate: float = 2e-3
    """At the beginning; it falls to zero as a cosine."""
    weight_decay: float = 0.05
    """Of everything that is learned but the gain of the rates."""
    rate_prior: float = 10.0
    """Exposures of an average item that are added to every item's own."""
    held_back: float = 0.1
    """Share of the exposures, the newest, that calibrate."""
    seed: int = 0
    """Of weights and order."""

    def __post_init__(self) -> None:
        if min(self.exposures, self.epochs, self.batch_size) < 1 or not 0 < self.held_back < 1 or self.rate_prior <= 0:
            raise InputError(f"found {self}, expected positive numbers and a share held back between 0 and 1")


class Foresight(NamedTuple):
    """How well odds of one outcome describe exposures that they have not seen."""

    exposures: int
    found: float  # how often it came
    predicted: float  # mean of the odds
    log_loss: float  # nats an exposure
    base_log_loss: float  # of always saying how often it came
    auc: float  # NaN where it always came, or never
    calibration_error: float  # mean distance of odds and frequency over tenths of the exposures, by their odds


def shown_of(
    generator: Generator, context: ContextBatch, items: Ints, outcomes: Flags, at_ms: npt.NDArray[np.int64]
) -> Shown:
    """Exposures as the head sees them; of each only the state of the context is kept.

    Args:
        context: of n moments before the exposure.
        items: (n,) catalogue index of what was shown.
        outcomes: (n, R) what followed.
    """
    states = []
    with torch.no_grad():
        for start in range(0, len(items), _ROWS):
            part = context_tensors(take_rows(context, slice(start, start + _ROWS)))
            memory = generator.encode(part)
            states.append(generator.step(0, memory, torch.zeros_like(part.items[:, :1]), None).state[:, 0])
    none = torch.zeros(0, generator.config.d_model)
    return Shown(torch.cat([none, *states]), items, outcomes, at_ms)


def joined(parts: Sequence[Shown]) -> Shown:
    """All of them by time; at least one part."""
    at_ms = np.concatenate([part.at_ms for part in parts])
    order = np.argsort(at_ms, kind="stable")
    return Shown(
        torch.cat([part.states for part in parts])[torch.from_numpy(order)],
        np.concatenate([part.items for part in parts])[order],
        np.concatenate([part.outcomes for part in parts])[order],
        at_ms[order],
    )


def train_value_head(generator: Generator, shown: Shown, codes: Ints, args: ValueArguments) -> None:
    """The generator's value head is fitted to the exposures; nothing else of the generator has changed.

    An outcome that came, or failed to come, fewer than 50 times has each item's rate as its odds.

    Args:
        shown: by time, as `joined` leaves them.
        codes: (I, L) paths of the catalogue.

    Raises:
        InputError: the generator has no value head, or there are fewer than 50 exposures.
    """
    if not generator.config.value_items:
        raise InputError("found a generator without a value head; set value_items to the size of the catalogue")
    if len(shown.items) < _FEW:
        raise InputError(f"found {len(shown.items)} exposures, expected at least {_FEW}; name more days")
    shown = Shown._make(field[-args.exposures :] for field in shown)
    head = generator.value_head
    torch.manual_seed(args.seed)
    learned = len(shown.items) - max(int(args.held_back * len(shown.items)), 1)
    came = shown.outcomes[:learned].sum(axis=0)
    known = torch.from_numpy((came >= _FEW) & (learned - came >= _FEW))
    row = head.row(torch.from_numpy(shown.items)).numpy()
    rates, own_removed = _rates(row[:learned], shown.outcomes[:learned], len(head.rates), args.rate_prior)
    with torch.no_grad():
        head.rates.copy_(rates)
        head.scale.fill_(1.0)  # of an earlier fit, if there was one
        head.shift.zero_()
        of_codes = generator.code_vectors(torch.from_numpy(codes[shown.items]))
    _fit(head, shown.states[:learned], of_codes[:learned], own_removed, shown.outcomes[:learned], known, args)
    head.eval()
    rest = slice(learned, None)
    odds = head(shown.states[rest], of_codes[rest, None], embedding(torch.from_numpy(row[rest]), head.rates)[:, None])
    for outcome in np.flatnonzero(known.numpy()):
        scale, shift = _platt(odds[:, 0, outcome].numpy(), shown.outcomes[rest, outcome])
        head.scale[outcome], head.shift[outcome] = scale, shift


def odds_of(generator: Generator, shown: Shown, codes: Ints) -> npt.NDArray[np.float32]:
    """(n, R) what the head says of each exposure."""
    with torch.no_grad():
        items = torch.from_numpy(shown.items)[:, None]
        return generator.values(shown.states, items, torch.from_numpy(codes[shown.items])[:, None])[:, 0].numpy()


def foresight(odds: npt.NDArray[np.float32], outcomes: Flags) -> Foresight:
    """How well (n,) odds foresaw (n,) outcomes; at least one."""
    said, came = odds.astype(np.float64).clip(1e-7, 1 - 1e-7), outcomes.astype(np.float64)
    rate = float(came.mean())
    entropy = sum(-share * np.log(share) for share in (rate, 1 - rate) if share > 0)
    tenths = np.array_split(np.argsort(said, kind="stable"), _BINS)
    apart = [abs(said[part].mean() - came[part].mean()) * len(part) for part in tenths if len(part)]
    return Foresight(
        exposures=len(said),
        found=rate,
        predicted=float(said.mean()),
        log_loss=float(-(came * np.log(said) + (1 - came) * np.log(1 - said)).mean()),
        base_log_loss=float(entropy),
        auc=float(roc_auc_score(outcomes, said)) if 0 < rate < 1 else float("nan"),
        calibration_error=float(sum(apart) / len(said)),
    )


def _rates(row: Ints, outcomes: Flags, rows: int, prior: float) -> tuple[Tensor, Tensor]:
    """(rows, R) log-odds of every item's rate, and (n, R) those of each exposure's item without the exposure."""
    shows = np.bincount(row, minlength=rows).astype(np.float64)[:, None]
    goods = np.stack([np.bincount(row, column, rows) for column in outcomes.T], axis=1)
    mean = (goods.sum(axis=0) + 0.5) / (len(row) + 1.0)

    def log_odds(good: npt.NDArray[np.number], shown: Floats) -> Tensor:
        rate = (good + prior * mean) / (shown + prior)
        return torch.from_numpy(np.log(rate / (1.0 - rate)).astype(np.float32))

    rates = log_odds(goods, shows)
    rates[-1] = torch.from_numpy(np.log(mean / (1.0 - mean)).astype(np.float32))
    return rates, log_odds(goods[row] - outcomes, shows[row] - 1.0)


def _fit(
    head: ValueHead,
    states: Tensor,
    of_codes: Tensor,
    rates: Tensor,
    outcomes: Flags,
    known: Tensor,
    args: ValueArguments,
) -> None:
    learned = {name: weight for name, weight in head.named_parameters() if name not in ("rates", "scale", "shift")}
    for weight in learned.values():
        weight.requires_grad_(True)
    decayed = [weight for name, weight in learned.items() if name != "gain"]  # a gain of 1 is nothing to be lost
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": [head.gain], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate)
    steps = args.epochs * -(-len(states) // args.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    came = torch.from_numpy(outcomes.astype(np.float32))
    head.train()
    for _ in range(args.epochs):
        for rows in torch.split(torch.randperm(len(states)), args.batch_size):
            odds = head(states[rows], of_codes[rows, None], rates[rows, None])[:, 0]
            # What came too seldom keeps its rate: it takes no part.
            loss = binary_cross_entropy_with_logits(odds[:, known], came[rows][:, known], reduction="sum") / len(rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    head.requires_grad_(False)


def _platt(log_odds: npt.NDArray[np.float32], came: Flags) -> tuple[float, float]:
    """Scale and shift of log-odds that fit the outcomes best; 1 and 0 where the outcomes are too much alike."""
    if min(came.sum(), (~came).sum()) < _FEW // 5:
        return 1.0, 0.0
    found = LogisticRegression(C=1e3).fit(log_odds[:, None], came)
    return float(found.coef_[0, 0]), float(found.intercept_[0])
