"""One run of one system over a log, measured between two looks at its cursors."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from benchmarks.speed.ground import Ground, Progress
from benchmarks.speed.systems import Running, family_cpu_s
from core.errors import ContractError, NotReady

_POLL_S: Final = 0.1
_PATIENCE_S: Final = 90.0  # without any progress; the first includes imports and compiling
_SETTLE_S: Final = 6.0  # workers of a group that start together share the partitions by then


class Window(NamedTuple):
    """What happened between the first look that saw progress and the end of the log."""

    seconds: float
    events: int
    cpu_s: tuple[float, ...]  # of each worker
    postgres_cpu_s: float

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        return 1e6 * sum(self.cpu_s) / self.events

    @property
    def postgres_us_per_event(self) -> float:
        return 1e6 * self.postgres_cpu_s / self.events


class _Look(NamedTuple):
    at_s: float
    applied: int
    cpu_s: list[float]
    postgres_cpu_s: float


def measured(ground: Ground, group: str, running: Running, *, records: int, events: int, workers: int) -> Window:
    """The window from the first applied events to the end of a log of `records` frames with `events` in all.

    With several workers it begins a few seconds later, when each has its partitions.

    Raises:
        ContractError: not every event of the log was applied exactly once.
        NotReady: the system ended, or stood still.
    """
    started = wait_until(ground, group, running, lambda now: now.applied > 0)
    if workers > 1:
        time.sleep(_SETTLE_S)
        started = ground.progress(group)
    first = _look(ground, started, running)
    ended = wait_until(ground, group, running, lambda now: now.records >= records)
    last = _look(ground, ended, running)
    if ended.applied != events or ended.refused:
        raise ContractError(f"applied {ended.applied} of {events} events and refused {ended.refused}: not valid")
    if last.applied - first.applied < events // 10:
        raise ContractError(f"only {last.applied - first.applied} of {events} events left to measure; use more events")
    used = tuple(after - before for before, after in zip(first.cpu_s, last.cpu_s, strict=True))
    spent = last.postgres_cpu_s - first.postgres_cpu_s
    return Window(last.at_s - first.at_s, last.applied - first.applied, used, spent)


def wait_until(ground: Ground, group: str, running: Running, reached: Callable[[Progress], bool]) -> Progress:
    """The first progress that has `reached` it.

    Raises:
        NotReady: the system ended, or stood still.
    """
    before, since = None, time.monotonic()
    while True:
        now = ground.progress(group)
        if reached(now):
            return now
        if now != before:
            before, since = now, time.monotonic()
        running.check()
        if time.monotonic() - since > _PATIENCE_S:
            raise NotReady(f"no progress for {_PATIENCE_S:.0f} s: {now}")
        time.sleep(_POLL_S)


def _look(ground: Ground, progress: Progress, running: Running) -> _Look:
    return _Look(time.monotonic(), progress.applied, running.cpu_s(), family_cpu_s(ground.postgres_pid))
