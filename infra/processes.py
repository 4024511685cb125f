"""The platform's own processes, as children: scorer, ingest, stream workers.

Each is started through the command line that an operator would type, gets its settings from the
environment, writes its log to a file, and ends with this process however it ends.
"""

import os
import re
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core.errors import NotReady
from core.settings import Settings, as_environment
from infra.children import Child, Launcher

STOP_GRACE_S: Final = 15.0
_ROOT: Final = Path(__file__).resolve().parents[1]


class Processes:
    """Our processes by name, with one log file each."""

    def __init__(self, logs: Path, settings: Settings, keep_fd: int) -> None:
        """Each process holds `keep_fd` open for as long as it lives: the lock of the demo's home."""
        self._logs = logs
        self._environment = {**os.environ, **as_environment(settings), "OMP_NUM_THREADS": "1"}
        self._running: dict[str, Child] = {}
        self._launcher = Launcher(None, keep_fd)
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *arguments: str) -> None:
        """Start `nearfeed ARGUMENTS` as `name`; its log is begun anew."""
        self.log_of(name).write_bytes(b"")
        self._running[name] = self._launcher.start(
            [sys.executable, "-m", "cli", *arguments],
            folder=_ROOT,
            log=self.log_of(name),
            env=self._environment,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    def wait_for(self, name: str, pattern: str, timeout_s: float) -> re.Match[str]:
        """The first match of `pattern` in the log of `name`.

        Raises:
            NotReady: the process ended, or nothing matched in time; the message holds its last words.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            match = re.search(pattern, self.log_of(name).read_text("utf-8", errors="replace"))
            if match:
                return match
            self.check(name)
            time.sleep(0.05)
        words = self._running[name].last_words()
        raise NotReady(f"{name} was not ready within {timeout_s:.0f} s: {words}; its log is {self.log_of(name)}")

    def check(self, name: str) -> None:
        """Raise NotReady if `name` has ended."""
        child = self._running[name]
        if child.exit_code is not None:
            raise NotReady(f"{name} ended with {child.exit_code}: {child.last_words()}; its log is {self.log_of(name)}")

    def exit_code(self, name: str) -> int | None:
        """The exit code of `name`; None while it runs."""
        return self._running[name].exit_code

    def stop(self, name: str) -> int | None:
        """`name` has ended, by SIGTERM if it can; returns its exit code."""
        child = self._running.pop(name)
        if child.exit_code is None:
            child.stop(STOP_GRACE_S)
        return child.exit_code

    def stop_all(self) -> None:
        """All have ended, the last started first."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def log_of(self, name: str) -> Path:
        """Where `name` writes its log."""
        return self._logs / f"{name}.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
        self._launcher.close()
