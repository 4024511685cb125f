"""A tiny world: real catalogue, trie and pipeline; a store, a broker and a clock that do as they are told."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from core.clock import FixedClock
from core.errors import BrokerUnavailable, LeaseExpired, StoreUnavailable
from core.ids import item_key
from core.producer import Acknowledged
from feature_repo import layouts
from feature_repo.folds.popularity import EMPTY, CellState
from feature_repo.layouts import CELLS, DIM, USER, UserRows
from grpc_api.serving import Serving
from models.catalog import Catalog
from models.item_vectors import FEATURES, ItemEncoder
from models.runtime import Generator, UniformGenerator
from models.semantic_ids import Codebook
from models.tokenizer import Tokenizer
from protos.catalog.v1.catalog_pb2 import Item, OpeningHours
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Location
from protos.registry.v1.manifest_pb2 import ModelManifest

NOW_MS = 1_700_000_000_000  # Tuesday 2023-11-14 22:13:20 UTC
HERE = (31.23, 121.47)  # UTC+8 by its longitude
CODES = 8
FREQUENCIES = 4


def tokenizer(version: int = 1) -> Tokenizer:
    """Random, but the same every time."""
    rng = np.random.default_rng(7)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    joined = 2 * DIM + 2 * FREQUENCIES
    encoder = ItemEncoder(
        np.ones(FEATURES, np.float32),
        floats(FEATURES, DIM),
        floats(DIM, DIM),
        floats(FREQUENCIES, 3),
        np.zeros(joined, np.float32),
        floats(joined, DIM),
        np.ones(3, np.float32),
    )
    return Tokenizer(version, encoder, Codebook(floats(3, CODES, DIM)))


def item(name: str, at: tuple[float, float] | None = None, hours: Sequence[OpeningHours] = ()) -> Item:
    """An available item: a video, or a place where `at` says so."""
    location = None if at is None else Location(latitude=at[0], longitude=at[1])
    return Item(item_id=name, author_id="a", tags=[name], available=True, location=location, opening_hours=hours)


def catalog_of(items: Sequence[Item]) -> Catalog:
    """A catalogue with a path per item, in the order of the digits."""
    codes = np.array([(i // CODES**2, i // CODES % CODES, i % CODES) for i in range(len(items))], np.int32)
    vectors = np.eye(DIM, dtype=np.float32)[np.arange(len(items)) % DIM]
    return Catalog(items, codes.reshape(-1, 3), vectors, tokenizer())


def serving_of(catalog: Catalog, generator: Generator | None = None, version: int = 3) -> Serving:
    """A published version, as if loaded."""
    manifest = ModelManifest(
        model_version=version, tokenizer_version=1, feature_service="generator_v1", catalog_digest="digest"
    )
    return Serving(manifest, catalog, generator or UniformGenerator(16, CODES))


def user_row(
    acts: Sequence[tuple[str, int]], *, place: tuple[float, float] | None = None, offset: int = 41
) -> np.ndarray:
    """A user, (1,) USER, with acts (item, ms), oldest first, and maybe a last place."""
    rows = np.zeros(1, USER)
    row = rows["history"][0]
    row["length"] = row["applied"] = len(acts)
    row["updated_ms"] = acts[-1][1] if acts else 0
    row["log_partition"], row["log_offset"] = 2, offset
    for position, (name, at_ms) in enumerate(acts):
        row["item"][position] = item_key(name)
        row["at_s"][position] = at_ms // 1000
        row["actions"][position] = 2
    rows["interests"]["updated_ms"] = row["updated_ms"]
    places = rows["places"]
    if place is not None:
        places["updated_ms"], places["last_cell"] = row["updated_ms"], 1
        places["last_latitude"], places["last_longitude"] = place
    return rows


def user_rows(
    acts: Sequence[tuple[str, int]], *, place: tuple[float, float] | None = None, offset: int = 41
) -> UserRows:
    """The same as a store reads it."""
    return layouts.user_rows(user_row(acts, place=place, offset=offset))


def cell_row(state: CellState) -> np.ndarray:
    """The merged row, (1,) CELLS, that opens as `state`."""
    rows = np.zeros(1, CELLS)
    rows["updated_ms"], rows["length"] = state.updated_ms, len(state.scores)
    for position, (key, score) in enumerate(state.scores):
        rows["item"][0, position], rows["score"][0, position] = key, score
    return rows


class Store:
    """An online store in memory; `down` makes it refuse, `slow_s` makes it late."""

    def __init__(self) -> None:
        self.users: dict[str, UserRows] = {}
        self.cells: dict[str, CellState] = {}
        self.down = False
        self.slow_s = 0.0

    def popular(self, cell: str, *names: str) -> None:
        """Items popular in a cell, best first."""
        scores = tuple((item_key(name), float(len(names) - i)) for i, name in enumerate(names))
        self.cells[cell] = CellState(NOW_MS - 5000, scores)

    async def read_users(self, user_ids: Sequence[str]) -> UserRows:
        await self._answer()
        nobody = layouts.user_rows(np.zeros(1, USER), np.zeros(1, bool))
        rows = [self.users.get(user_id, nobody) for user_id in user_ids]
        return UserRows(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))

    async def read_cells(self, cells: Sequence[str]) -> np.ndarray:
        await self._answer()
        return np.concatenate([cell_row(self.cells.get(cell, EMPTY)) for cell in cells])

    async def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("PostgreSQL did not answer")
        await asyncio.sleep(self.slow_s)


class Sink:
    """A broker in memory; `down` makes it fail, `silent` makes it never acknowledge."""

    def __init__(self) -> None:
        self.sent: list[tuple[Activity, str, int]] = []
        self.down = False
        self.silent = False

    def send(self, activity: Activity, user_id: str, timestamp_ms: int) -> "Future[Acknowledged]":
        waiting: Future[Acknowledged] = Future()
        waiting.set_running_or_notify_cancel()
        if self.down:
            waiting.set_exception(BrokerUnavailable("activity.v1: the broker did not acknowledge"))
        elif not self.silent:
            waiting.set_result(Acknowledged(1, len(self.sent), 0.0))
        self.sent.append((activity, user_id, timestamp_ms))
        return waiting


class Lease:
    """A catalogue lease that is held until `expired`."""

    def __init__(self) -> None:
        self.expired = False
        self.offset = 17

    def check(self) -> None:
        if self.expired:
            raise LeaseExpired("the catalogue lease ran out")


def clock() -> FixedClock:
    return FixedClock(NOW_MS)
