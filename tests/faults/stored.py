"""What the platform has stored and sent, read as it stands, for the checker."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import psycopg
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from core.settings import Settings
from core.topics import ACTIVITY, OUTCOMES, REJECTED
from feature_repo.layouts import CELLS, ITEMS, LAYOUT_VERSION, UserRows
from feature_repo.store import PackedStore
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected
from protos.state.v1.attribution_pb2 import OpenAnswer
from tests.faults.plain_log import Logged
from tests.faults.recompute import COUNTERS


class Stored(NamedTuple):
    """Everything that the workers of one group have made true."""

    counters: list[dict[str, int]]  # by partition, recompute.COUNTERS
    user_ids: list[str]  # whose rows these are: all that the log names, all that have a row
    users: UserRows
    answers: dict[tuple[str, str], OpenAnswer]  # by user and request
    cells: dict[tuple[str, int], NDArray[np.void]]  # by cell and partition
    items: dict[tuple[str, int], NDArray[np.void]]  # by item and partition
    outcomes: list[Outcome]  # in order of partition and offset, repeats included
    rejects: list[Rejected]
    waiting: int  # records that still wait in the outbox


def read_log(settings: Settings) -> list[list[Logged]]:
    """activity.v1, by partition."""
    return read_topic(settings, ACTIVITY, settings.kafka.activity_partitions)


def read_counters(settings: Settings) -> list[dict[str, int]]:
    """The cursors, by partition."""
    query = f"select {', '.join(COUNTERS)} from stream_cursor where processor = %s order by partition"
    with _connected(settings) as connection:
        rows = connection.execute(query.encode(), (settings.streams.group,)).fetchall()
    return [dict(zip(COUNTERS, row, strict=True)) for row in rows]


def read_stored(settings: Settings, user_ids: Sequence[str]) -> Stored:
    """All that is stored, of `user_ids` and of whoever else has a row."""
    with _connected(settings) as connection:
        ids = {user_id for (user_id,) in connection.execute("select entity_key from user_features")}
        answers = {
            (user_id, request_id): OpenAnswer.FromString(value)
            for user_id, request_id, value in connection.execute(
                "select user_id, request_id, value from user_attribution"
            )
        }
        cells = _sums(connection, "cell_popularity", CELLS)
        items = _sums(connection, "item_statistics", ITEMS)
        waiting = connection.execute("select count(*) from stream_outbox").fetchone()
    everyone = sorted(ids | set(user_ids))
    with PackedStore(settings.postgres) as store:
        users = store.read_users(everyone)
    outcomes = read_topic(settings, OUTCOMES, settings.kafka.activity_partitions)
    rejects = read_topic(settings, REJECTED, 1)
    return Stored(
        read_counters(settings),
        everyone,
        users,
        answers,
        cells,
        items,
        [Outcome.FromString(record.value or b"") for records in outcomes for record in records],
        [Rejected.FromString(record.value or b"") for records in rejects for record in records],
        waiting[0] if waiting is not None else 0,
    )


def read_topic(settings: Settings, topic: str, partitions: int) -> list[list[Logged]]:
    """Every record of a topic up to its present end, by partition."""
    found: list[list[Logged]] = [[] for _ in range(partitions)]
    places = [TopicPartition(topic, number) for number in range(partitions)]
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    try:
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning(*places)
        while any(consumer.position(place) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=1_000).items():
                for record in records:
                    if record.offset < ends[place]:
                        found[place.partition].append(Logged(record.offset, record.timestamp, record.value))
    finally:
        consumer.close()
    return found


def end_offsets(settings: Settings) -> list[int]:
    """Where activity.v1 ends, by partition."""
    places = [TopicPartition(ACTIVITY, number) for number in range(settings.kafka.activity_partitions)]
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    try:
        ends = consumer.end_offsets(places)
    finally:
        consumer.close()
    return [ends[place] for place in places]


def _sums(connection: psycopg.Connection[Any], table: str, dtype: np.dtype[Any]) -> dict[tuple[str, int], Any]:
    rows = connection.execute(f"select entity_key, partition, layout_version, value from {table}".encode())
    found = {}
    for key, partition, version, value in rows:
        assert version == LAYOUT_VERSION, f"{table} {key}: layout {version}"
        found[key, partition] = np.frombuffer(value, dtype)[0]
    return found


def _connected(settings: Settings) -> psycopg.Connection[Any]:
    return psycopg.connect(settings.postgres.dsn.get_secret_value(), connect_timeout=5)
