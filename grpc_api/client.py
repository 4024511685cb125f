"""A small typed client of the three services: what the command line, the demo and the tests call with.

Every call has a deadline. Only UNAVAILABLE is tried again, with a growing pause, and only where a
repeat is harmless: events carry an id, catalogue changes say the state they want. A recommendation is
not repeated; whoever asked has its own deadline to keep.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.catalog.v1.catalog_pb2 import CatalogChange, UpdateCatalogRequest, UpdateCatalogResponse
from protos.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from protos.events.v1.interaction_pb2 import Interaction
from protos.ingest.v1.ingest_pb2 import IngestRequest, IngestResponse
from protos.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from protos.scoring.v1.recommend_pb2 import RecommendRequest, RecommendResponse
from protos.scoring.v1.recommend_pb2_grpc import RecommendServiceStub

INGEST_DEADLINE_S: Final = 10.0
CATALOG_DEADLINE_S: Final = 10.0
RECOMMEND_DEADLINE_S: Final = 0.2  # design §5
HEALTH_DEADLINE_S: Final = 1.0
ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 0.1  # doubled at every attempt, and spread so that clients do not return together

_OPTIONS: Final = [("grpc.max_receive_message_length", 16 << 20)]

Answer = TypeVar("Answer")


class Client:
    """One channel to one server. Use it as an async context manager.

    Calls raise grpc.aio.AioRpcError with the status and the message that the server gave.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._recommend = RecommendServiceStub(self._channel)
        self._ingest = IngestServiceStub(self._channel)
        self._catalog = CatalogServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)  # typed for the blocking channel only

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def recommend(
        self, request: RecommendRequest, *, deadline_s: float = RECOMMEND_DEADLINE_S
    ) -> RecommendResponse:
        """The slate, degraded or not; asked once."""
        return await self._recommend.Recommend(request, timeout=deadline_s)

    async def ingest(self, events: Sequence[Interaction], *, deadline_s: float = INGEST_DEADLINE_S) -> IngestResponse:
        """One result per event, after the broker has them; sent again while the broker is away."""
        request = IngestRequest(events=events)
        return await _again_while_unavailable(lambda left: self._ingest.Ingest(request, timeout=left), deadline_s)

    async def update_catalog(
        self, changes: Sequence[CatalogChange], *, deadline_s: float = CATALOG_DEADLINE_S
    ) -> UpdateCatalogResponse:
        """One result per change, when every scorer follows or the server's patience ends."""
        request = UpdateCatalogRequest(changes=changes)
        return await _again_while_unavailable(
            lambda left: self._catalog.UpdateCatalog(request, timeout=left), deadline_s
        )

    async def wait_until_serving(self, deadline_s: float, service: str = "") -> None:
        """Health says SERVING.

        Raises:
            TimeoutError: it did not within `deadline_s`; the message names the address.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while not await self._serving(service):
                    await asyncio.sleep(FIRST_PAUSE_S)
        except TimeoutError:
            raise TimeoutError(f"{self._address} was not SERVING within {deadline_s:.0f} s; look at its log") from None

    async def _serving(self, service: str) -> bool:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await self._health.Check(request, timeout=HEALTH_DEADLINE_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _again_while_unavailable(call: Callable[[float], Awaitable[Answer]], deadline_s: float) -> Answer:
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await call(max(0.0, end - clock()))
        except grpc.aio.AioRpcError as error:
            pause = FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
            if not unavailable or attempt == ATTEMPTS or clock() + pause >= end:
                raise
            await asyncio.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
