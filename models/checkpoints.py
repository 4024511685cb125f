"""Where training stands, on disk: written whole or not at all, so that a killed run goes on exactly.

A checkpoint holds weights, optimiser, step, curve, and of the weights so far the average and the best. It holds no
state of a random generator: all chance of a step is a function of the seed and the step's number (`seed_of_step`), and
so is the order of the examples.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.errors import ArtefactError, InputError

State = dict[str, Any]  # what torch calls a state_dict


class Checkpoints(NamedTuple):
    """Where checkpoints are written, and how often: at whichever limit comes first, and at the end."""

    path: Path
    every_s: float = 60.0
    every_steps: int = 1_000_000_000


class Best(NamedTuple):
    """The weights that validated best."""

    validation: float
    weights: dict[str, Tensor]


class Checkpoint(NamedTuple):
    """A run after `step` steps."""

    run: str  # `run_digest` of what must be equal for the run to go on
    step: int
    elapsed_s: float
    done: float
    model: State
    step_state: State  # of the optimiser and what belongs to it
    average: State | None  # of the averaged weights; None where none are
    losses: list[float]  # of the steps since the last report
    curve: list[tuple[float | None, ...]]  # reports so far, field by field
    best: Best | None
    worse: int  # validations since the best


def run_digest(*parts: object) -> str:
    """A digest of everything that decides what a run gives; parts are JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_of(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """A digest of the arrays' numbers, in their order."""
    digest = hashlib.blake2b(digest_size=32)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """Where the random numbers of one step of one process begin."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """`path` holds the checkpoint; whatever happens meanwhile, it holds a whole one, this or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    plain = checkpoint._asdict() | {"best": None if checkpoint.best is None else tuple(checkpoint.best)}
    with unfinished.open("wb") as file:
        torch.save(plain, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, must survive a power cut
    finally:
        os.close(folder)


def read_checkpoint(path: Path, run: str) -> Checkpoint | None:
    """The checkpoint at `path`, on the CPU; None when there is none.

    Raises:
        ArtefactError: the file is damaged.
        InputError: it belongs to another run.
    """
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
        best = plain.pop("best")
        found = Checkpoint(**plain, best=None if best is None else Best(*best))
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ArtefactError(f"{path}: found no readable checkpoint ({error}); remove it to begin anew") from None
    if found.run != run:
        raise InputError(
            f"{path}: found a checkpoint of run {found.run[:12]}, expected {run[:12]}: arguments, examples, codes or "
            "first weights have changed; remove it to begin anew, or name another path"
        )
    return found
