"""The embedded servers: they come up, keep their data through every end, and leave nothing behind."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from core.errors import BrokerUnavailable, NotReady, StoreUnavailable
from infra.local import LocalServers

pytestmark = pytest.mark.live

JARS = Path(__file__).resolve().parents[2] / "var" / "kafka-jars"
HOLDER = """
import sys, time
from pathlib import Path
from infra.local import LocalServers
servers = LocalServers(Path(sys.argv[1]), jars=Path(sys.argv[2]))
servers.start()
print(servers.pids["kafka"], servers.pids["postgres"], servers.postgres_dsn, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    with LocalServers(tmp_path_factory.mktemp("own"), jars=JARS) as running:
        yield running


def write_row(dsn: str, value: str) -> None:
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        connection.execute("create table if not exists kept (value text primary key)")
        connection.execute("insert into kept values (%s)", [value])


def rows(dsn: str) -> set[str]:
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        return {value for (value,) in connection.execute("select value from kept")}


def write_record(bootstrap: str, topic: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=10_000)
    producer.send(topic, value, partition=0).get(10)
    producer.close(5)


def records(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=None)
    consumer.assign([TopicPartition(topic, 0)])
    found: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += [record.value for batch in consumer.poll(500).values() for record in batch]
    consumer.close()
    return found


def create_topic(bootstrap: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.close()


def alive(pid: int) -> bool:
    """False for a process that has ended, also when nobody has asked for its exit code yet."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return any((thread / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX" for thread in threads)
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def test_data_survives_stop_and_kill_of_each_server_on_the_same_port(own: LocalServers) -> None:
    bootstrap, dsn = own.kafka_bootstrap, own.postgres_dsn
    create_topic(bootstrap, "kept")
    write_record(bootstrap, "kept", b"first")
    write_row(dsn, "first")

    own.restart_kafka()
    own.restart_postgres()
    write_record(bootstrap, "kept", b"second")
    write_row(dsn, "second")

    own.kill_kafka()
    own.kill_postgres()
    assert own.pids == {}
    own.restart_postgres()
    own.restart_kafka()
    assert (own.kafka_bootstrap, own.postgres_dsn) == (bootstrap, dsn)
    assert records(bootstrap, "kept", 2) == [b"first", b"second"]
    assert rows(dsn) == {"first", "second"}


def test_a_killed_postgres_leaves_none_of_its_processes(own: LocalServers) -> None:
    processes = family(own.pids["postgres"])
    assert len(processes) > 3
    own.kill_postgres()
    assert not [pid for pid in processes if alive(pid)]
    own.restart_postgres()


def test_a_server_lives_on_when_the_thread_that_restarted_it_ends(own: LocalServers) -> None:
    thread = threading.Thread(target=own.restart_postgres)
    thread.start()
    thread.join(60)
    time.sleep(0.3)
    own.check()
    with psycopg.connect(own.postgres_dsn, connect_timeout=5) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_second_run_in_the_same_home_is_refused(own: LocalServers) -> None:
    home = Path(f"/proc/{own.pids['kafka']}/cwd").readlink().parent
    with pytest.raises(NotReady, match=f"in use by process {os.getpid()}"):
        LocalServers(home, jars=JARS).start()
    own.check()


def test_only_the_owner_reads_the_password_and_nobody_logs_in_without_it(own: LocalServers) -> None:
    home = Path(f"/proc/{own.pids['kafka']}/cwd").readlink().parent
    assert stat.S_IMODE((home / "password").stat().st_mode) == 0o600
    password = (home / "password").read_text()
    assert password in own.postgres_dsn
    for dsn in (own.postgres_dsn.replace(password, "wrong"), own.postgres_dsn.replace("nearfeed:", "postgres:")):
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no pg_hba\.conf entry"):
            psycopg.connect(dsn, connect_timeout=5)


def test_no_server_runs_as_root(own: LocalServers) -> None:
    for pid in own.pids.values():
        assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_a_server_that_ends_on_its_own_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with LocalServers(tmp_path / "home", jars=JARS) as servers:
        os.kill(servers.pids["kafka"], signal.SIGTERM)
        wait_for(lambda: reported(servers))
        with pytest.raises(BrokerUnavailable, match=r"Kafka ended with code 143: .*Kafka Server started"):
            servers.check()
        os.kill(servers.pids["postgres"], signal.SIGINT)
        servers.restart_kafka()
        wait_for(lambda: reported(servers))
        with pytest.raises(StoreUnavailable, match=r"PostgreSQL ended with code 0: .*database system is shut down"):
            servers.check()


def test_damaged_data_is_one_line_with_the_servers_reason(tmp_path: Path) -> None:
    with LocalServers(tmp_path / "home", jars=JARS):
        pass
    (tmp_path / "home" / "postgres" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(StoreUnavailable, match=r"initialized by PostgreSQL version 12") as caught:
        LocalServers(tmp_path / "home", jars=JARS).start()
    assert "\n" not in str(caught.value)


def test_kill_9_of_the_parent_leaves_no_process_and_the_next_start_has_the_data(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "home"), str(JARS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        kafka, postgres, dsn = parent.stdout.readline().split()
        write_row(dsn, "before the kill")
        busy = psycopg.connect(dsn, connect_timeout=5)
        processes = family(int(kafka)) + family(int(postgres))
        parent.kill()
    with LocalServers(tmp_path / "home", jars=JARS) as servers:
        assert not [pid for pid in processes if alive(pid)]
        assert rows(servers.postgres_dsn) == {"before the kill"}
    busy.close()


def reported(servers: LocalServers) -> bool:
    """Whether the owner knows that a server has ended: a broker's last threads may outlive its first."""
    try:
        servers.check()
    except (BrokerUnavailable, StoreUnavailable):
        return True
    return False


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
