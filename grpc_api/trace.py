"""What passes through the stages of one answer: how many in and out, what is taken away and why, in what time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.telemetry import STAGE_IN, STAGE_OUT, STAGE_REMOVED, STAGE_SECONDS


class Trace:
    """Measures stages, for the metrics and for this one answer."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str, entering: int = 1) -> Iterator["Passage"]:
        """Measure one stage: how many enter is said before, what becomes of them inside."""
        STAGE_IN.labels(name).inc(entering)
        started = time.monotonic()
        try:
            yield Passage(name)
        finally:
            took = time.monotonic() - started
            self.seconds.append((name, took))
            STAGE_SECONDS.labels(name).observe(took)


class Passage:
    """What becomes of the things in one stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def out(self, count: int) -> None:
        """That many leave the stage for the next."""
        STAGE_OUT.labels(self._stage).inc(count)

    def removed(self, reason: str, count: int = 1) -> None:
        """That many do not leave it, for this reason."""
        STAGE_REMOVED.labels(self._stage, reason).inc(count)
