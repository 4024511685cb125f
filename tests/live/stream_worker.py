"""A stream worker as a process, and when the log is folded to its end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from kafka import KafkaConsumer, TopicPartition

from core.settings import Settings, as_environment
from core.topics import ACTIVITY
from core.topics_admin import apply_topics
from feature_repo import schema
from streams.cursor import Cursor

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
HORIZON_S = 3
PATIENCE_S = 40.0


class Worker:
    """`nearfeed stream` as a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        environment = {**os.environ, **as_environment(settings), "OMP_NUM_THREADS": "1"}
        self.log = log
        with log.open("wb") as out:
            command = [sys.executable, "-m", "streams.worker"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while "worker.ready" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self, sent: signal.Signals) -> int:
        self.process.send_signal(sent)
        return self.process.wait(PATIENCE_S)


def prepared(platform_settings: Settings) -> Settings:
    """Settings for workers that close answers within seconds; topics and tables exist."""
    chosen = platform_settings.model_copy(
        update={
            "kafka": platform_settings.kafka.model_copy(update={"activity_partitions": PARTITIONS}),
            "streams": platform_settings.streams.model_copy(update={"horizon_s": HORIZON_S, "heartbeat_s": 0.5}),
        }
    )
    apply_topics(chosen.kafka)
    with psycopg.connect(chosen.postgres.dsn.get_secret_value()) as connection:
        schema.create(connection)
    return chosen


def cursors(settings: Settings) -> list[Cursor]:
    with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
        query = f"select {', '.join(Cursor._fields)} from stream_cursor order by partition"
        return [Cursor(*row) for row in connection.execute(query.encode())]


def wait_until_quiet(settings: Settings) -> None:
    """Everything is read, nothing waits for its horizon, the outbox is empty."""
    deadline = time.monotonic() + PATIENCE_S
    waiting = "select (select count(*) from user_attribution) + (select count(*) from stream_outbox)"
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    try:
        while True:
            ends = consumer.end_offsets([TopicPartition(ACTIVITY, number) for number in range(PARTITIONS)])
            with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
                row = connection.execute(waiting.encode()).fetchone()
            read = [cursor.next_offset for cursor in cursors(settings)]
            if row == (0,) and read == [ends[at] for at in sorted(ends)]:
                return
            assert time.monotonic() < deadline, f"read {read} of {ends}, waiting {row}"
            time.sleep(0.2)
    finally:
        consumer.close()
