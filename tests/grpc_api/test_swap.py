"""From one version to the next: what serves goes on serving until, and unless, the next one can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.errors import ArtefactError
from grpc_api.serving import Host, Serving
from grpc_api.swap import ModelWatch
from protos.catalog.v1.catalog_pb2 import CatalogRecord, Item
from tests.grpc_api.world import catalog_of, item, serving_of


class Log:
    """A catalogue log of a few records."""

    def __init__(self) -> None:
        self.records: list[CatalogRecord] = []

    @property
    def offset(self) -> int:
        return len(self.records) - 1

    def latest(self, after: int = -1) -> list[CatalogRecord]:
        return self.records[after + 1 :]

    def remove(self, name: str) -> None:
        self.records.append(CatalogRecord(item=Item(item_id=name), removed=True))


def version(number: int) -> Serving:
    return serving_of(catalog_of([item("a"), item("b"), item("c")]), version=number)


def point(home: Path, number: int) -> None:
    (home / "CURRENT").write_text(f"{number}\n")


class World:
    """A host of version 1, and a watch over `home`."""

    def __init__(self, home: Path) -> None:
        self.host = Host(version(1))
        self.log = Log()
        self.loaded: list[int] = []
        self.broken: set[int] = set()
        self.between = 0
        self.watch = ModelWatch(self.host, self.log, self.between_batches, self.load, home, poll_ms=5)  # type: ignore[arg-type]

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        self.between += 1
        self.log_in_the_meantime()
        yield

    def log_in_the_meantime(self) -> None:
        """What the log brings while the next version loads."""

    def load(self, number: int) -> Serving:
        self.loaded.append(number)
        if number in self.broken:
            raise ArtefactError(f"version {number}: found damage")
        return version(number)

    @property
    def serves(self) -> int:
        return self.host.serving.manifest.model_version


async def follow(world: World, seconds: float = 0.1) -> None:
    following = asyncio.create_task(world.watch.follow())
    await asyncio.sleep(seconds)
    following.cancel()


async def test_a_newer_version_is_put_in_place_between_batches(tmp_path: Path) -> None:
    world = World(tmp_path)
    point(tmp_path, 2)
    await follow(world)
    assert (world.serves, world.loaded, world.between) == (2, [2], 1)


async def test_a_rollback_is_followed_like_any_other_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    point(tmp_path, 2)
    await follow(world)
    point(tmp_path, 1)
    await follow(world)
    assert (world.serves, world.loaded) == (1, [2, 1])


async def test_a_version_that_fails_to_load_leaves_what_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.broken = {2}
    point(tmp_path, 2)
    await follow(world)
    assert (world.serves, world.loaded) == (1, [2])  # not tried again at every look
    assert "model.swap.failed version=2 error=version 2: found damage" in caplog.text
    point(tmp_path, 3)
    await follow(world)
    assert world.serves == 3


async def test_an_unreadable_registry_leaves_what_serves(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "CURRENT").write_text("what?")
    await follow(world)
    point(tmp_path, 2)
    await follow(world)
    assert world.serves == 2


async def test_the_next_version_knows_what_the_log_said_before_and_during_its_loading(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.log.remove("a")
    world.log_in_the_meantime = lambda: world.log.remove("b")  # type: ignore[method-assign]
    assert await world.watch.swap(2)
    catalog = world.host.serving.catalog
    assert catalog.available.tolist() == [False, False, True]
