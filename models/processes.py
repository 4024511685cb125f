"""Training by several processes: who is among them, and what they have to tell each other.

    torchrun --nproc-per-node 4 -m models.train_from_shards ...

Every process reads every batch and takes its share of the rows; gradients are averaged by
`torch.nn.parallel.DistributedDataParallel`. Only the first process writes and speaks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, NamedTuple

import torch
from torch import distributed

_TIMEOUT: Final = timedelta(minutes=10)  # for the slowest to arrive, a validation of the first included


class Processes(NamedTuple):
    """This process among those that train together."""

    rank: int
    world: int  # how many there are
    device: torch.device  # of this one

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum over the processes of what each hands in."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared)
        return float(shared)

    def of_first(self, value: float) -> float:
        """What the first process hands in; what the others do is not looked at."""
        return self.total(value if self.first else 0.0)


ALONE: Final = Processes(0, 1, torch.device("cpu"))


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes that torchrun started, joined until the block ends; without torchrun this one alone.

    On CUDA where there is a device for this process, and then they speak by NCCL; else on the CPU, by gloo.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if local < torch.cuda.device_count() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Processes(rank, world, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(rank, world, device)
    finally:
        distributed.destroy_process_group()
