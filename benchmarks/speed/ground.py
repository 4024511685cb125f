"""Where systems run: one broker, one PostgreSQL, a topic with the work in it, and the tables.

A log is made once and read by every system in turn: each run has a new consumer group and empty tables.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from confluent_kafka import Producer

from benchmarks.speed.catalogue import publish_catalogue
from benchmarks.speed.load import Frame
from core.errors import BrokerUnavailable, NotReady
from core.settings import PREFIX, Settings, load
from core.topics import ACTIVITY, topics
from core.topics_admin import admin_client, apply_topics, topic_states
from feature_repo import schema
from feature_repo.apply import apply_features
from infra.local import LocalServers

_PATIENCE_S: Final = 60.0
_RUNS = itertools.count(1)


class Progress(NamedTuple):
    """What the cursors of one group say, all partitions together."""

    partitions: int  # taken over so far
    records: int  # read, as offsets
    applied: int
    refused: int  # duplicates and rejected; the work has none


class Ground:
    """Real servers with topics, tables and a catalogue."""

    def __init__(self, settings: Settings, servers: LocalServers) -> None:
        self.settings = settings
        self._servers = servers
        self._database = psycopg.connect(settings.postgres.dsn.get_secret_value(), autocommit=True)

    def close(self) -> None:
        """No connection is open."""
        self._database.close()

    @property
    def postgres_pid(self) -> int:
        """The postmaster."""
        return self._servers.pids["postgres"]

    def lay_out(self, partitions: int) -> None:
        """Every topic is new and empty; activity.v1 has this many partitions."""
        kafka = self.settings.kafka.model_copy(update={"activity_partitions": partitions})
        self.settings = self.settings.model_copy(update={"kafka": kafka})
        names = [topic.name for topic in topics(partitions, 0)]
        with admin_client(kafka) as admin:
            for name in set(names) & topic_states(kafka).keys():
                admin.delete_topics([name])
        deadline = time.monotonic() + _PATIENCE_S
        while set(names) & topic_states(kafka).keys():
            if time.monotonic() > deadline:
                raise NotReady(f"topics still exist {_PATIENCE_S:.0f} s after they were deleted; run again")
            time.sleep(0.1)
        apply_topics(kafka)

    def fresh_run(self, cache_users: int | None = None) -> Settings:
        """The tables are empty, and nobody has read the log: the settings of a system's next run."""
        tables = ", ".join(schema.TABLES)
        self._database.execute(f"truncate {tables}".encode())
        update: dict[str, object] = {"group": f"bench-{next(_RUNS)}"}
        if cache_users is not None:
            update["cache_users"] = cache_users
        return self.settings.model_copy(update={"streams": self.settings.streams.model_copy(update=update)})

    def produce(self, frames: Sequence[Frame]) -> None:
        """The broker has acknowledged every frame, in order within its partition.

        Raises:
            BrokerUnavailable: one was not acknowledged.
        """
        failed: list[str] = []
        producer = make_producer(self.settings)

        def delivered(error: object, _: object) -> None:
            if error is not None:
                failed.append(str(error))

        for frame in frames:
            while True:
                try:
                    send(producer, frame, delivered)
                    break
                except BufferError:
                    producer.poll(0.05)
        waiting = producer.flush(_PATIENCE_S)
        if failed or waiting:
            raise BrokerUnavailable(f"{len(failed) + waiting} of {len(frames)} frames not acknowledged: {failed[:1]}")

    def progress(self, group: str) -> Progress:
        """Where the group stands."""
        row = self._database.execute(
            """
select count(*), coalesce(sum(next_offset), 0)::bigint, coalesce(sum(applied), 0)::bigint,
       coalesce(sum(duplicates + rejected), 0)::bigint
from stream_cursor where processor = %s""",
            (group,),
        ).fetchone()
        assert row is not None
        return Progress(*row)


@contextmanager
def prepared_ground(home: Path, *, jars: Path) -> Iterator[Ground]:
    """Servers below `home`, empty, until the end of the block; their log level lets only warnings through."""
    with LocalServers(home / "servers", jars=jars) as servers:
        settings = load(
            {
                f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": servers.kafka_bootstrap,
                f"{PREFIX}POSTGRES__DSN": servers.postgres_dsn,
                f"{PREFIX}REGISTRY__HOME": str(home / "registry"),
                f"{PREFIX}TELEMETRY__LOG_LEVEL": "WARNING",
            }
        )
        apply_features(settings)
        publish_catalogue(settings.registry.home)
        ground = Ground(settings, servers)
        try:
            yield ground
        finally:
            ground.close()


def make_producer(settings: Settings) -> Producer:
    """librdkafka's producer, in order and acknowledged by all replicas."""
    return Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "delivery.timeout.ms": 30_000,
            "log_level": 3,  # errors; what it tries again is no news
        }
    )


def send(producer: Producer, frame: Frame, delivered: object) -> None:
    """The frame is on its way; `delivered(error, message)` is called from the producer's next poll or flush.

    Raises:
        BufferError: too much is on its way; poll, then send again.
    """
    producer.produce(
        ACTIVITY, frame.value, partition=frame.partition, timestamp=frame.timestamp_ms, on_delivery=delivered
    )
