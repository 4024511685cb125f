"""Workers that die at any moment leave no trace in states, counters or outcomes: real Kafka, real PostgreSQL."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from tests.live.stream_load import Crew, Load, assert_no_trace, prepared, wait_until_quiet

pytestmark = pytest.mark.live

LOAD_S = 16.0


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    return prepared(platform_settings)


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
