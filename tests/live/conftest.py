"""Real servers for live tests: Kafka and PostgreSQL of `infra/local.py`, fresh for every test module.

Topic names are part of the contract, so isolation comes from fresh servers rather than fresh names;
a pair starts in a few seconds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings, load
from infra.local import LocalServers

JARS = Path(__file__).resolve().parents[2] / "var" / "kafka-jars"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """Kafka and PostgreSQL, empty, ended with the module."""
    with LocalServers(tmp_path_factory.mktemp("servers"), jars=JARS) as running:
        yield running


@pytest.fixture(scope="module")
def platform_settings(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings that point at `servers`, with every port free to choose and a registry of their own."""
    return load(
        {
            "NEARFEED_KAFKA__BOOTSTRAP_SERVERS": servers.kafka_bootstrap,
            "NEARFEED_POSTGRES__DSN": servers.postgres_dsn,
            "NEARFEED_SCORER__ADDRESS": "127.0.0.1:0",
            "NEARFEED_INGEST__ADDRESS": "127.0.0.1:0",
            "NEARFEED_REGISTRY__HOME": str(tmp_path_factory.mktemp("registry")),
        }
    )
