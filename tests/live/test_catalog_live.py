"""A catalogue that takes longer to load than a call lasts, with real Kafka and PostgreSQL."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

import grpc_api.catalog
from core.clock import PlatformClock
from core.producer import make_producer
from core.settings import Settings
from core.topics_admin import apply_topics
from feature_repo import schema
from grpc_api.catalog import CatalogService
from grpc_api.lease import Session
from models.catalog import Catalog
from models.catalog_files import load_catalog
from protos.catalog.v1.catalog_pb2 import CatalogChange, UpdateCatalogRequest
from tests.grpc_api.published import publish_tiny
from tests.grpc_api.world import catalog_of, item

pytestmark = pytest.mark.live

PATIENT_S = 20.0


class Call:
    """What a service asks of the call that it answers."""

    def time_remaining(self) -> float | None:
        return None


@pytest.fixture
async def service(platform_settings: Settings) -> AsyncIterator[CatalogService]:
    apply_topics(platform_settings.kafka)
    with psycopg.connect(platform_settings.postgres.dsn.get_secret_value()) as connection:
        schema.create(connection)
    publish_tiny(platform_settings.registry.home, catalog_of([item(f"v{i}") for i in range(40)]))
    session = Session(platform_settings.postgres, "test-catalog-writer")
    producer = make_producer(platform_settings.kafka, timeout_ms=5_000)
    service = CatalogService(
        platform_settings.kafka, platform_settings.registry.home, session, producer, PlatformClock()
    )
    await service.start()
    yield service
    await service.stop()
    await session.close()
    producer.close(timeout=5.0)


async def test_a_load_outlives_its_call_and_the_next_call_finds_it(
    service: CatalogService, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    may_end = threading.Event()

    def slow(folder: Path) -> Catalog:
        loads.append(folder)
        assert may_end.wait(PATIENT_S)
        return load_catalog(folder)

    monkeypatch.setattr(grpc_api.catalog, "load_catalog", slow)
    change = UpdateCatalogRequest(changes=[CatalogChange(remove="v1")])
    call = asyncio.create_task(service.UpdateCatalog(change, Call()))  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENT_S):
        while not loads:
            await asyncio.sleep(0.01)
    call.cancel()  # what a deadline does
    with pytest.raises(asyncio.CancelledError):
        await call
    may_end.set()
    async with asyncio.timeout(PATIENT_S):
        answer = await service.UpdateCatalog(change, Call())  # type: ignore[arg-type]
    assert [result.kept for result in answer.results] == [True]
    assert len(loads) == 1
