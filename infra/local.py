"""Real Kafka and PostgreSQL on this machine, without containers: the default for the demo and for live tests.

    with LocalServers(Path("var/demo/servers"), jars=Path("var/kafka-jars")) as servers:
        servers.kafka_bootstrap   # "127.0.0.1:20017"
        servers.postgres_dsn      # "postgresql://nearfeed:…@127.0.0.1:20018/nearfeed"

Everything is written below the home; the servers end with this process, however it ends, and start again on the same
data. Kafka on 127.0.0.1 knows no passwords: whoever has an account on this machine can reach it.

PostgreSQL refuses to run as root. So root's servers run as the owner of the home or, where that is root too, as
`nobody`, with the one capability that leads through folders closed to others (see `infra.children`).
"""

import fcntl
import os
import pwd
import random
import secrets
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core.errors import InputError, NotReady
from infra.children import Launcher, User
from infra.local_kafka import LocalKafka
from infra.local_postgres import LocalPostgres

START_TIMEOUT_S: Final = 90.0
LEFTOVER_TIMEOUT_S: Final = 15.0
LOCK_FILE: Final = "lock"
# Below Linux's range for outgoing connections (32768-60999): while a server is down, a client that keeps connecting to
# a port in that range can meet itself there and hold the port against the server's return.
PORTS: Final = range(20_000, 30_000)


class LocalServers:
    """Kafka and PostgreSQL, ready after `start()`; ports stay the same until `stop()`, through kills and restarts."""

    kafka_bootstrap: str
    postgres_dsn: str

    def __init__(self, home: Path, *, jars: Path) -> None:
        self._home = home.resolve()
        self._jars = jars.resolve()
        self._running = ExitStack()

    def start(self) -> None:
        """Both servers answer.

        Raises NotReady when another run uses the home or a server does not come up (with the end of its log), and
        InputError when the home cannot be written or Java or the jars are missing. Nothing runs after an error.
        """
        with ExitStack() as undo:
            lock, password = self._open_home()
            undo.callback(os.close, lock)
            launcher = Launcher(servers_user(self._home), lock)
            undo.callback(launcher.close)
            broker_port, controller_port, postgres_port = free_ports(3)
            self._kafka = LocalKafka(self._home / "kafka", self._jars, launcher, broker_port, controller_port)
            undo.callback(self._kafka.stop)
            self._postgres = LocalPostgres(self._home / "postgres", password, launcher, postgres_port)
            undo.callback(self._postgres.stop)
            self.kafka_bootstrap, self.postgres_dsn = self._kafka.bootstrap, self._postgres.dsn
            self._kafka.start()
            self._postgres.start()
            deadline = time.monotonic() + START_TIMEOUT_S
            self._kafka.wait_until_ready(deadline)
            self._postgres.wait_until_ready(deadline)
            self._running = undo.pop_all()

    def stop(self) -> None:
        """Both servers have ended and the home is free; harmless when they already have."""
        self._running.close()

    def check(self) -> None:
        """Raise BrokerUnavailable or StoreUnavailable if a server has ended on its own."""
        self._kafka.check()
        self._postgres.check()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the servers that were started and not stopped or killed."""
        pids = {"kafka": self._kafka.pid, "postgres": self._postgres.pid}
        return {name: pid for name, pid in pids.items() if pid is not None}

    def kill_kafka(self) -> None:
        """Kafka has ended by SIGKILL."""
        self._kafka.kill()

    def restart_kafka(self) -> None:
        """Kafka answers again, on the same port and data; stopped before if it still ran."""
        self._kafka.stop()
        self._kafka.start()
        self._kafka.wait_until_ready(time.monotonic() + START_TIMEOUT_S)

    def kill_postgres(self) -> None:
        """PostgreSQL and its processes have ended by SIGKILL."""
        self._postgres.kill()

    def restart_postgres(self) -> None:
        """PostgreSQL answers again, on the same port and data; stopped before if it still ran."""
        self._postgres.stop()
        self._postgres.start()
        self._postgres.wait_until_ready(time.monotonic() + START_TIMEOUT_S)

    def _open_home(self) -> tuple[int, str]:
        """The home exists and is ours: its lock's file descriptor, and the password kept in it."""
        try:
            self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
            return lock_home(self._home), _password(self._home / "password")
        except OSError as error:
            raise InputError(
                f"{error.filename}: {error.strerror}; expected a folder that {_user_name(os.geteuid())} can write; "
                f"run as its owner, or remove {self._home}"
            ) from None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def lock_home(home: Path) -> int:
    """One run at a time in a home: the file descriptor that holds the lock, until it is closed everywhere.

    The servers inherit it, so the lock also waits for those of a run that was killed a moment ago.
    Raises NotReady when another run holds the home.
    """
    fd = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LEFTOVER_TIMEOUT_S
    while not _locked(fd):
        owner = os.pread(fd, 20, 0).decode().strip()
        alive = owner.isdigit() and Path("/proc", owner).exists()
        if alive or time.monotonic() > deadline:
            os.close(fd)
            who = f"process {owner}" if alive else "servers whose parent has ended"
            raise NotReady(f"{home} is in use by {who}, expected it free; stop that run or choose another folder")
        time.sleep(0.05)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports on 127.0.0.1 that nobody listens on, drawn at random so that two runs seldom meet."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise NotReady(f"found no {count} free ports in {PORTS.start}-{PORTS.stop - 1}; end what listens there")


def servers_user(home: Path) -> User | None:
    """Whom the servers run as: None for ourselves; for root, see the module's head."""
    if os.geteuid() != 0:
        return None
    owner = home.stat()
    if owner.st_uid != 0:
        return User(owner.st_uid, owner.st_gid)
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


def _password(file: Path) -> str:
    """The password of role `nearfeed`, made once and readable by the home's owner only."""
    if not file.exists():
        draft = file.with_suffix(".unfinished")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(24), "utf-8")
        draft.rename(file)
    return file.read_text("utf-8")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
