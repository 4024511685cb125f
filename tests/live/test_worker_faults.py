"""Workers that die at any moment leave no trace in states, counters or outcomes: real Kafka, real PostgreSQL."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from infra.local import LocalServers
from tests.live.stream_load import Load, Worker, assert_no_trace, prepared, wait_until_quiet

pytestmark = pytest.mark.live

LOAD_S = 16.0
ENDURANCE_S = 120.0
STOPPED_S = 9.0  # beyond the session timeout: its partitions are somebody else's by then


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    return prepared(platform_settings)


class Crew:
    """Two workers, replaced as they end."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self._settings = settings
        self._logs = logs
        self._started = 0
        self.fenced = 0
        self.workers = [self._start(), self._start()]
        for worker in self.workers:
            worker.wait_ready()

    def end(self, place: int, sent: signal.Signals) -> int:
        """The worker's exit code; a new one has its place."""
        code = self.workers[place].end(sent)
        self.workers[place] = self._start()
        return code

    def replace_the_fallen(self) -> None:
        """A worker may end itself with one line when it was fenced, or when a server was away for long."""
        for place, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                text = worker.log.read_text()
                assert "worker.failed" in text and "reason=unexpected" not in text, text
                self.fenced += "another owner" in text
                self.workers[place] = self._start()

    def stop(self) -> None:
        """Both end in order, also one that has only just been started."""
        for worker in self.workers:
            worker.wait_ready()
            assert worker.end(signal.SIGTERM) == 0, worker.log.read_text()

    def kill(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.end(signal.SIGKILL)

    def _start(self) -> Worker:
        self._started += 1
        return Worker(self._settings, self._logs / f"worker-{self._started}.log")


@pytest.fixture
def crew(settings: Settings, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(settings, tmp_path)
    yield crew
    crew.kill()


def test_workers_that_die_leave_no_trace(settings: Settings, crew: Crew) -> None:
    load = Load(settings, LOAD_S)
    load.start()
    time.sleep(LOAD_S * 0.2)
    crew.end(0, signal.SIGKILL)
    time.sleep(LOAD_S * 0.4)
    assert crew.end(1, signal.SIGTERM) == 0
    load.join()
    wait_until_quiet(settings)
    crew.stop()
    assert_no_trace(settings, load.sent)


@pytest.mark.faults
def test_minutes_of_faults_leave_no_trace(servers: LocalServers, settings: Settings, crew: Crew) -> None:
    """Kills, orderly ends, processes that sleep through their session, PostgreSQL killed and started again."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    load = Load(settings, ENDURANCE_S)
    load.start()
    while load.is_alive():
        place = rng.randrange(2)
        fault = rng.choice(("kill", "term", "stop", "postgres"))
        if fault == "kill":
            crew.end(place, signal.SIGKILL)
        elif fault == "term":
            crew.end(place, signal.SIGTERM)  # whatever it was doing; still importing, say
        elif fault == "stop":
            crew.workers[place].process.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_S)
            crew.workers[place].process.send_signal(signal.SIGCONT)
        else:
            servers.kill_postgres()
            servers.restart_postgres()
        load.join(rng.uniform(1.0, 8.0))
        crew.replace_the_fallen()
    wait_until_quiet(settings)
    crew.replace_the_fallen()  # who woke last may have learnt only now that it was fenced
    crew.stop()
    print(f"fenced {crew.fenced}")
    assert_no_trace(settings, load.sent)
