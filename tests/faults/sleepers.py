"""A worker that falls asleep at one exact place, and wakes when its partitions are somebody else's.

A lock in PostgreSQL brings every owner to that place, SIGSTOP keeps one there.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from core.settings import Settings
from tests.faults.crew import Crew, Member
from tests.faults.load import Load
from tests.faults.stored import end_offsets, read_counters

READING = b"lock table user_features in access exclusive mode"
COMMITTING = b"select from stream_cursor for update"
PATIENCE_S = 60.0
_AT_THE_LOCK = b"""
select client_port from pg_stat_activity where application_name = 'nearfeed-stream' and wait_event_type = 'Lock'"""


def sleep_while(place: bytes, settings: Settings, crew: Crew, load: Load) -> None:
    """An owner slept at `place` until others had taken over its partitions and read all of them, then woke.

    The load pauses meanwhile, so that each owner is at the same step of the same record.
    """

    def others_have_read_all() -> bool:
        crew.replace_the_fallen()  # who woke before may have fenced one of them
        return all_read(settings)

    waiting: list[Member] = []

    def all_wait() -> bool:
        waiting[:] = _at_the_lock(settings, crew)
        return len(waiting) >= settings.kafka.activity_partitions

    rate, load.rate = load.rate, 0.0
    crew.wait_ready()
    wait_until(others_have_read_all, "all is read")
    with psycopg.connect(settings.postgres.dsn.get_secret_value()) as lock:
        lock.execute(place)
        load.newcomers()
        wait_until(all_wait, "all wait at the lock")
        sleeper = waiting[0].process
        sleeper.send_signal(signal.SIGSTOP)
    wait_until(others_have_read_all, "others go on with the sleeper's partitions")
    sleeper.send_signal(signal.SIGCONT)
    load.rate = rate


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.2)


def all_read(settings: Settings) -> bool:
    return [cursor["next_offset"] for cursor in read_counters(settings)] == end_offsets(settings)


def _at_the_lock(settings: Settings, crew: Crew) -> list[Member]:
    """The living workers that wait for a lock, once for each statement of theirs that does.

    PostgreSQL lets a statement wait on whose client is gone, and a worker that was fenced a moment ago may be that
    client: those count for nobody, and who fell has been replaced.
    """
    crew.replace_the_fallen()
    with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
        waiting = {port for (port,) in connection.execute(_AT_THE_LOCK)}
    return [worker for worker in crew.workers for _ in waiting & _ports_of(worker.process.pid)]


def _ports_of(pid: int) -> set[int]:
    """The local ports of a process's TCP connections over IPv4; none of a process that is gone."""
    try:
        return _ports_of_living(pid)
    except OSError:
        return set()


def _ports_of_living(pid: int) -> set[int]:
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if f"socket:[{columns[9]}]" in links:
            ports.add(int(columns[1].partition(":")[2], 16))
    return ports
