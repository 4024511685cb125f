"""Minutes of faults leave no trace either; `make faults` runs it, with servers of its own."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from infra.local import LocalServers
from tests.live.stream_load import Crew, Load, assert_no_trace, prepared, wait_until_quiet

pytestmark = [pytest.mark.live, pytest.mark.faults]

ENDURANCE_S = 120.0
STOPPED_S = 9.0  # beyond the session timeout: its partitions are somebody else's by then


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    return prepared(platform_settings)


@pytest.fixture
def crew(settings: Settings, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(settings, tmp_path)
    yield crew
    crew.kill()


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
