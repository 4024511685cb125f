"""What the platform itself counted: read from the store and the topics, to be held against the ledger."""

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import psycopg
from kafka import KafkaConsumer, TopicPartition

from core.settings import Settings
from core.topics import ACTIVITY, OUTCOMES, REJECTED
from feature_repo.layouts import USER
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected

_READ_S: Final = 30.0


class Stored(NamedTuple):
    """Sums over the state rows of all users, and over the cursors."""

    users: int
    applied: int  # per-user counters: interactions applied
    duplicates: int  # per-user counters: interactions skipped
    records: int
    impressions: int
    outcomes: int  # closed, each once
    let_go: int  # acts that no outcome holds
    rejected: int
    behind: int  # records of activity.v1 that no cursor covers yet
    waiting: int  # answers still open, and outbox rows still to be sent


def stored(settings: Settings) -> Stored:
    """The sums as of now."""
    with psycopg.connect(settings.postgres.dsn.get_secret_value(), connect_timeout=5) as connection:
        rows = connection.execute("select value from user_features").fetchall()
        sums = connection.execute(
            "select coalesce(sum(records), 0), coalesce(sum(impressions), 0), coalesce(sum(outcomes), 0),"
            " coalesce(sum(let_go), 0), coalesce(sum(rejected), 0), coalesce(sum(next_offset), 0) from stream_cursor"
        ).fetchone()
        waiting = connection.execute(
            "select (select count(*) from user_attribution) + (select count(*) from stream_outbox)"
        ).fetchone()
    assert sums is not None and waiting is not None  # aggregates always give a row
    history = np.frombuffer(b"".join(row[0] for row in rows), USER)["history"]
    records, impressions, outcomes, let_go, rejected, covered = (int(value) for value in sums)
    return Stored(
        users=len(history),
        applied=int(history["applied"].sum()),
        duplicates=int(history["duplicates"].sum()),
        records=records,
        impressions=impressions,
        outcomes=outcomes,
        let_go=let_go,
        rejected=rejected,
        behind=sum(log_ends(settings, ACTIVITY).values()) - covered,
        waiting=int(waiting[0]),
    )


def log_ends(settings: Settings, topic: str) -> dict[int, int]:
    """The end offset of every partition."""
    consumer = _consumer(settings)
    try:
        return {at.partition: end for at, end in consumer.end_offsets(_partitions(consumer, topic)).items()}
    finally:
        consumer.close()


def outcomes(settings: Settings) -> dict[str, Outcome]:
    """Every outcome on the topic by its id: a repeat counts once."""
    found = {}
    for value in _values(settings, OUTCOMES):
        outcome = Outcome.FromString(value)
        found[outcome.outcome_id] = outcome
    return found


def rejects(settings: Settings) -> list[Rejected]:
    """Every record of rejected.v1, a repeat (same place in the log) once."""
    found = {}
    for value in _values(settings, REJECTED):
        rejected = Rejected.FromString(value)
        found[rejected.topic, rejected.partition, rejected.offset, rejected.index] = rejected
    return list(found.values())


def _values(settings: Settings, topic: str) -> Iterator[bytes]:
    consumer = _consumer(settings)
    try:
        partitions = _partitions(consumer, topic)
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        deadline = time.monotonic() + _READ_S
        while any(consumer.position(at) < ends[at] for at in partitions) and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200, max_records=5000).values():
                for record in records:
                    yield record.value
    finally:
        consumer.close()


def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


def _consumer(settings: Settings) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers.split(","),
        request_timeout_ms=settings.kafka.request_timeout_ms,
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
