"""Stream workers as processes: killed, stopped, put to sleep, replaced as they fall."""

import itertools
import json
import re
import signal
import time
from pathlib import Path

from core.settings import Settings
from tests.live.stream_worker import Worker

PATIENCE_S = 60.0
READY = re.compile(r"worker\.ready partitions=(.*)")
FENCED = "partition.fenced"
ASLEEP_S = 8.0  # beyond the session timeout of 6 s: its partitions are somebody else's by then


class Member(Worker):
    """A worker of a crew."""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def partitions(self) -> list[int] | None:
        """Those that it last said it owns; None before it has said so, and once it has ended."""
        said = READY.findall(self.log.read_text())
        return list(json.loads(said[-1])) if said and self.alive else None


class Crew:
    """Some workers of one group, replaced as they end."""

    def __init__(self, settings: Settings, logs: Path, size: int = 2) -> None:
        self.fallen = 0  # workers that ended themselves
        self.kills = 0
        self._settings = settings
        self._partitions = settings.kafka.activity_partitions
        self._logs = logs
        self._started = 0
        self.workers = [self._start() for _ in range(size)]

    @property
    def fenced(self) -> int:
        """How often a worker tried to commit what a newer owner had taken over."""
        return sum(log.read_text().count(FENCED) for log in self._logs.glob("worker-*.log"))

    def wait_ready(self) -> None:
        """All run, and each partition has one owner among them; who falls on the way is replaced."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            owned = [worker.partitions for worker in self.workers]
            known = [partitions for partitions in owned if partitions is not None]
            if len(known) == len(owned) and sorted(itertools.chain(*known)) == list(range(self._partitions)):
                return
            assert time.monotonic() < deadline, (
                f"{owned} {[worker.log.read_text()[-2_000:] for worker in self.workers]}"
            )
            self.replace_the_fallen()
            time.sleep(0.1)

    def kill(self, place: int) -> None:
        """The worker is gone by `kill -9`, whatever it was doing; a new one has its place."""
        self.workers[place].end(signal.SIGKILL)
        self.kills += 1
        self.workers[place] = self._start()

    def terminate(self, place: int) -> None:
        """The worker has ended in order; a new one has its place."""
        self._dismiss(self.workers[place])
        self.workers[place] = self._start()

    def sleep(self, place: int) -> None:
        """The worker slept beyond its session, stopped in the middle of whatever it did, and goes on."""
        process = self.workers[place].process
        process.send_signal(signal.SIGSTOP)
        time.sleep(ASLEEP_S)
        process.send_signal(signal.SIGCONT)

    def join(self) -> None:
        """One worker more."""
        self.workers.append(self._start())

    def leave(self) -> None:
        """One worker less, in order."""
        self._dismiss(self.workers.pop())

    def replace_the_fallen(self) -> None:
        """A worker may end itself with one line when it was fenced, or when a server was away for long."""
        for place, worker in enumerate(self.workers):
            if not worker.alive:
                self._count(worker)
                self.workers[place] = self._start()

    def stop(self) -> None:
        """All have ended in order, but for one that learnt only now that it was fenced."""
        while self.workers:
            self.leave()

    def end(self) -> None:
        """None runs, whatever happened before."""
        for worker in self.workers:
            if worker.alive:
                worker.end(signal.SIGKILL)

    def _dismiss(self, worker: Member) -> None:
        code = worker.end(signal.SIGTERM)
        importing = code == -signal.SIGTERM and "worker.started" not in worker.log.read_text()
        if code != 0 and not importing:
            self._count(worker)

    def _count(self, worker: Member) -> None:
        text = worker.log.read_text()
        assert "worker.failed" in text or "worker.stop.forced" in text, text
        assert "reason=unexpected" not in text, text
        self.fallen += 1

    def _start(self) -> Member:
        self._started += 1
        return Member(self._settings, self._logs / f"worker-{self._started}.log")
