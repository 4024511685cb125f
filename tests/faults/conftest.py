"""Servers, topics and tables for workers that close answers within seconds."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core.settings import Settings
from core.topics_admin import apply_topics
from feature_repo import schema
from tests.faults.crew import Crew
from tests.live.conftest import platform_settings as platform_settings
from tests.live.conftest import servers as servers

HORIZON_S = 3


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    chosen = platform_settings.model_copy(
        update={
            # With three workers instead of two, each partition moves.
            "kafka": platform_settings.kafka.model_copy(update={"activity_partitions": 3}),
            # Also the longest time that somebody asleep may hold a lock.
            "postgres": platform_settings.postgres.model_copy(update={"statement_timeout_ms": 5_000}),
            "streams": platform_settings.streams.model_copy(update={"horizon_s": HORIZON_S, "heartbeat_s": 0.5}),
        }
    )
    apply_topics(chosen.kafka)
    with psycopg.connect(chosen.postgres.dsn.get_secret_value()) as connection:
        schema.create(connection)
    return chosen


@pytest.fixture
def crew(settings: Settings, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(settings, tmp_path)
    yield crew
    crew.end()
