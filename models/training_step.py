"""One step of training: a batch in, gradients clipped and applied, its loss out.

Letters used in this file
    b requests of a batch   k targets of a request   L levels

The step is the same function however it is done: a batch that does not fit is taken in parts whose gradients are
added (gradient accumulation), several processes take a share of the rows each, and both leave what one large batch
would have left, but for rounding.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core.errors import ContractError, InputError
from models.batches import Ints
from models.checkpoints import State
from models.context_processor import ContextTensors, context_tensors
from models.examples import Examples
from models.experts import Experts
from models.generator import Generator
from models.processes import Processes

_SCALARS_FASTER: Final = 10.0  # the few numbers that weigh evidence have further to go than a matrix's entries

Precision = Literal["float32", "bfloat16", "float16"]


class Batch(NamedTuple):
    """Examples as tensors, and the codes of their targets."""

    context: ContextTensors  # of b requests
    items: Tensor  # (b, k) catalogue index, -1 = padding
    codes: Tensor  # (b, k, L)
    weights: Tensor  # (b, k) of each target; 0 = padding

    def take(self, rows: Tensor) -> "Batch":
        """Some of the requests."""
        return Batch(self.context.take(rows), self.items[rows], self.codes[rows], self.weights[rows])

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        context = ContextTensors._make(field.to(device, non_blocking=True) for field in self.context)
        return Batch(context, *(field.to(device, non_blocking=True) for field in self[1:]))


class Objective(Protocol):
    """What is minimised."""

    def __call__(self, generator: Generator, batch: Batch) -> Tensor:
        """A scalar: the mean over the batch's targets, each by its weight."""
        ...


def batch_of(examples: Examples, codes: Ints) -> Batch:
    """The examples with the paths of their targets; every weight is 1, of padding 0.

    Args:
        codes: (I, L) paths of the catalogue.
    """
    real = examples.items >= 0
    return Batch(
        context_tensors(examples.context),
        torch.from_numpy(examples.items),
        torch.from_numpy(codes[np.where(real, examples.items, 0)]),
        torch.from_numpy(real.astype(np.float32)),
    )


def optimizer_of(generator: Generator, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW. Matrices and code vectors decay; norms and the small tables of the context are left alone."""
    named = [(name, weight) for name, weight in generator.named_parameters() if weight.requires_grad]
    scalars = [weight for name, weight in named if name.startswith("prior.") or name == "item_head.gain"]
    decayed = [weight for name, weight in named if weight.ndim > 1 and not name.endswith("table")]
    chosen = {id(weight) for weight in (*scalars, *decayed)}
    others = [weight for _, weight in named if id(weight) not in chosen]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
        {"params": scalars, "weight_decay": 0.0, "faster": _SCALARS_FASTER},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def hide_tokens(batch: Batch, share: float) -> Batch:
    """The batch with a share of its context tokens hidden, drawn from torch's random numbers."""
    context = batch.context
    return batch._replace(context=context._replace(mask=context.mask & (torch.rand(context.mask.shape) >= share)))


class TrainingStep:
    """A model, how its loss is made, and the optimiser that lowers it."""

    def __init__(
        self,
        model: Generator,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        processes: Processes,
        gradient_norm: float,
        micro_batch: int | None = None,
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        """The model must be on the device of `processes`.

        Raises:
            InputError: half precision or compilation is asked for where there is no CUDA.
        """
        device = processes.device
        if device.type != "cuda" and (precision != "float32" or compiled):
            raise InputError(
                f"found precision {precision} and compiled {compiled} on {device.type}, "
                "expected float32 and not compiled there: both pay on CUDA only; leave the two options out"
            )
        self._model, self._optimizer, self._processes = model, optimizer, processes
        self._gradient_norm, self._micro_batch = gradient_norm, micro_batch
        self._dtype = None if precision == "float32" else getattr(torch, precision)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        whole: nn.Module = _Loss(model, objective)
        self._shared: DistributedDataParallel | None = None
        if processes.world > 1:
            on = [device] if device.type == "cuda" else None
            self._shared = whole = DistributedDataParallel(whole, device_ids=on)
        self._loss: nn.Module = torch.compile(whole) if compiled else whole  # type: ignore[assignment]
        self._experts = [module for module in model.modules() if isinstance(module, Experts)]

    def __call__(self, batch: Batch, learning_rate: float) -> float:
        """One step is made; the loss is the mean over the whole batch, nats a code.

        Args:
            batch: the same in every process.

        Raises:
            ContractError: the loss is not finite.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group.get("faster", 1.0)
        self._optimizer.zero_grad(set_to_none=True)
        total = max(float(batch.weights.sum()), 1e-9)
        loss = 0.0
        for part, synchronised in self._parts(batch):
            with synchronised, self._autocast():
                mean = self._loss(part)
                share = float(part.weights.sum()) / total
                # Gradients are averaged over the processes, and each has its share of the sum only.
                self._scaler.scale(mean * (share * self._processes.world)).backward()
            loss += float(mean.detach()) * share
        loss = self._processes.total(loss)
        if not np.isfinite(loss):
            raise ContractError(
                f"found a loss of {loss}, expected a finite number; lower the learning rate, or train in float32"
            )
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        for experts in self._experts:
            experts.rebalance()
        return loss

    def state(self) -> State:
        """What must be kept to go on."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, AbstractContextManager[Any]]]:
        """This process's rows in parts that fit; gradients are exchanged with the last one only."""
        mine = torch.arange(self._processes.rank, len(batch.items), self._processes.world)
        size = self._micro_batch or max(len(mine), 1)
        starts = range(0, max(len(mine), 1), size)
        for start in starts:
            wait = self._shared is not None and start != starts[-1]
            part = batch.take(mine[start : start + size]).to(self._processes.device)
            yield part, self._shared.no_sync() if wait and self._shared is not None else nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._processes.device.type, self._dtype)


class _Loss(nn.Module):
    """The objective as a module, so that it can be compiled and its gradients shared."""

    def __init__(self, model: Generator, objective: Objective) -> None:
        super().__init__()
        self.model, self._objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        return self._objective(self.model, batch)
