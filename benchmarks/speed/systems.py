"""The systems that are compared, and their processes while they run."""

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from core.errors import NotReady
from core.settings import Settings, as_environment
from infra.children import Child, Launcher
from infra.local import free_ports

_ROOT: Final = Path(__file__).resolve().parents[2]
_STOP_GRACE_S: Final = 15.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class System(NamedTuple):
    """Something that folds activity.v1 into the store."""

    name: str
    library: str  # around the driver
    module: tuple[str, ...]  # what comes after `python -m`
    meets_by_address: bool = False  # its workers are told of each other, instead of meeting in a consumer group

    def absent(self) -> str:
        """Why it cannot run here; empty when it can."""
        if importlib.util.find_spec(self.library) is None:
            return f"{self.library} is not installed; `make bench` installs it"
        return ""


_PEERS: Final = "benchmarks.speed.peers"
SYSTEMS: Final = (
    System("nearfeed", "faust", ("streams.worker",)),
    System("quixstreams", "quixstreams", (f"{_PEERS}.quix",)),
    System("bytewax", "bytewax", ("bytewax.run", f"{_PEERS}.bytewax_flow:flow"), meets_by_address=True),
    System("plain", "confluent_kafka", (f"{_PEERS}.plain",)),
)


class Running:
    """`workers` processes of a system, until the end of the block."""

    def __init__(self, system: System, settings: Settings, workers: int, logs: Path) -> None:
        self._system = system
        self._environment = {**os.environ, **as_environment(settings), "OMP_NUM_THREADS": "1"}
        self._logs = logs
        self._workers = workers
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self._open = os.open(os.devnull, os.O_RDONLY)
        self._launcher = Launcher(None, self._open)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(self._workers)]
        for number in range(self._workers):
            more = []
            if self._system.meets_by_address and self._workers > 1:
                more = ["--process-id", str(number), "--addresses", ";".join(addresses)]
            log = self._logs / f"{self._system.name}-{time.monotonic_ns()}.log"
            self._children.append(
                self._launcher.start(
                    [sys.executable, "-m", *self._system.module, *more],
                    folder=_ROOT,
                    log=log,
                    env=self._environment,
                    stop_signal=signal.SIGTERM,
                    death_signal=signal.SIGKILL,
                )
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            if child.exit_code is None:
                child.stop(_STOP_GRACE_S)
        self._launcher.close()
        os.close(self._open)

    def check(self) -> None:
        """Raise NotReady if a process has ended."""
        for child in self._children:
            if child.exit_code is not None:
                raise NotReady(f"{self._system.name} ended with {child.exit_code}: {child.last_words()}")

    def cpu_s(self) -> list[float]:
        """User and system time of each process, all threads."""
        return [cpu_s_of(child.pid) for child in self._children]

    def memory_bytes(self) -> int:
        """Resident memory of all processes."""
        pages = [int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) for child in self._children]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_s_of(pid: int, *, with_ended: bool = False) -> float:
    """User and system time of a process; `with_ended` adds that of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_ended else 13])) / _TICKS_PER_S


def family_cpu_s(pid: int) -> float:
    """User and system time of a process and of all children it has or had."""
    total = cpu_s_of(pid, with_ended=True)
    children: Sequence[str] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        try:
            total += cpu_s_of(int(child))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since: it counts from the next time on
    return total
