"""A gRPC server as every process of the platform runs it: bound, observable, and stopped without loss.

Health and reflection answer from the start; health says NOT_SERVING until told otherwise, for the whole
server and for each service by name.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core.errors import NotReady
from grpc_api.status import StatusInterceptor

GRACE_S: Final = 5.0  # for calls in flight when a stop is asked for

_log = logging.getLogger(__name__)


class Listener:
    """One server on one address."""

    def __init__(self, *, max_request_bytes: int) -> None:
        """A call with a larger request fails with RESOURCE_EXHAUSTED before it is read."""
        self.server = grpc.aio.server(
            interceptors=[StatusInterceptor()],
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a lottery
            ],
        )
        self._health = health.aio.HealthServicer()
        self._names = [health.SERVICE_NAME]

    def add(self, name: str, register: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        """Serve one service, before `start`.

        Args:
            name: full name of the service in its .proto.
            register: the generated add_..._to_server.
        """
        register(servicer, self.server)
        self._names.append(name)

    async def start(self, address: str) -> str:
        """Listen; returns the address with the port that was bound.

        Raises:
            NotReady: the address cannot be bound.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self.server)
        await self.set_serving(False)
        try:
            port = self.server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise NotReady(f"cannot listen on {address}; expected a free port of this machine, or port 0 for any")
        await self.server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    async def set_serving(self, serving: bool) -> None:
        """Say so to every health check."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in (health.OVERALL_HEALTH, *self._names):
            await self._health.set(name, status)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """NOT_SERVING at once; no new calls; calls in flight get `grace_s` to end."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


async def until_stopped(*tasks: "asyncio.Task[None]") -> None:
    """Return at SIGTERM or SIGINT; if one of `tasks` ends before, raise what ended it.

    Further signals change nothing: a terminal and a supervisor often send one each, and the second must
    not cut off what the first one asked for. Everything that follows is bounded in time.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        stopped.cancel()
