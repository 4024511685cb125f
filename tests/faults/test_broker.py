"""A broker that is away for longer than a send may take, against real Kafka."""

import os
import signal
import time
from pathlib import Path

import pytest

from core.errors import BrokerUnavailable
from core.producer import make_producer, send_record
from core.settings import Settings
from core.topics import REJECTED
from infra.local import LocalServers

pytestmark = pytest.mark.live

TIMEOUT_MS = 1_500


def test_a_producer_outlives_records_that_ran_out_of_time(servers: LocalServers, settings: Settings) -> None:
    """Records on their way when the broker dies fail in time; those after its return are acknowledged."""
    producer = make_producer(settings.kafka, timeout_ms=TIMEOUT_MS)
    try:
        send_record(producer, REJECTED, b"before", partition=0).result(10.0)
        put_to_sleep(servers.pids["kafka"])
        lost = send_record(producer, REJECTED, b"on its way", partition=0)
        time.sleep(0.5)  # it has left; nobody reads it
        servers.kill_kafka()
        with pytest.raises(BrokerUnavailable):
            lost.result(10.0)
        servers.restart_kafka()
        deadline = time.monotonic() + 30.0
        while True:
            after = send_record(producer, REJECTED, b"after", partition=0)
            if after.exception(30.0) is None:
                break
            assert time.monotonic() < deadline, after.exception()
    finally:
        producer.close(timeout=1.0)


def put_to_sleep(pid: int) -> None:
    """Every thread of the process has stopped: the signal is on its way for a while, longer on a busy machine."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10.0
    while any(_state(task) not in "TtZX" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.01)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # the thread has ended
        return "X"
