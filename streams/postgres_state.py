"""The StateStore and Outbox in PostgreSQL: states, cursor and produced records in one transaction.

The first statement of a commit writes the cursor row where the epoch is still the owner's. It locks that
row, so a new owner's take-over waits for a commit in flight, and a commit after a take-over finds no row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg_pool import ConnectionPool

from core.errors import OwnershipLost
from core.settings import Postgres
from feature_repo.folds.attribution import AttributionState
from feature_repo.postgres import conninfo, named_errors
from feature_repo.store import PackedWriter
from feature_repo.sums import Sum
from streams.cursor import Cursor, Partition
from streams.outbox import OutboxRow, Produced
from streams.state_store import NEVER_MS, Commit, Users, ownership_lost

_TRANSACTION_TIMEOUT_SINCE: Final = 170_000  # PostgreSQL 17

_POSITION: Final = ", ".join(Cursor._fields[1:])

_TAKE_OVER: Final = f"""
insert into stream_cursor (processor, topic, topic_id, partition, epoch) values (%s, %s, %s, %s, 1)
on conflict (processor, topic_id, partition) do update set epoch = stream_cursor.epoch + 1
returning epoch, {_POSITION}""".encode()

# Owners of an earlier topic of the same name write the same users' rows: they are fenced as well.
_FENCE_EARLIER: Final = b"""
update stream_cursor set epoch = epoch + 1
where processor = %s and topic = %s and topic_id <> %s and partition = %s"""

_ADVANCE: Final = f"""
update stream_cursor set ({_POSITION}) = row({", ".join(["%s"] * (len(Cursor._fields) - 1))})
where processor = %s and topic_id = %s and partition = %s and epoch = %s
returning epoch""".encode()

_PRODUCE: Final = b"""
insert into stream_outbox (processor, source_partition, topic, partition, key, value, timestamp_ms)
select %s, %s, topic, partition, key, value, timestamp_ms
from unnest(%s::text[], %s::integer[], %s::bytea[], %s::bytea[], %s::bigint[])
  with ordinality as new (topic, partition, key, value, timestamp_ms, place)
order by place"""


class PostgresStateStore:
    """Thread safe. Every method raises StoreUnavailable when PostgreSQL does not answer in time."""

    def __init__(self, settings: Postgres, processor: str, *, connections: int) -> None:
        self._processor = processor
        self._features = PackedWriter()
        self._conninfo = conninfo(settings, "nearfeed-stream")
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            self._conninfo,
            min_size=1,
            max_size=connections,
            timeout=settings.connect_timeout_s,
            # Without it the pauses between attempts to connect grow as long as the server's absence was.
            reconnect_timeout=settings.connect_timeout_s,
            kwargs={"autocommit": True},
            configure=partial(_prepare, longest_commit_ms=settings.statement_timeout_ms),
            open=False,
        )

    def open(self) -> None:
        """Connected, and the tables exist.

        Raises:
            ContractError: they do not.
        """
        # Not from the pool: it would try again until its timeout and not say what went wrong.
        with named_errors(), psycopg.connect(self._conninfo) as connection:
            connection.execute("select from stream_cursor, stream_outbox limit 0")
        self._pool.open()

    def close(self) -> None:
        """No connection is open."""
        self._pool.close()

    def take_over(self, partition: Partition) -> Cursor:
        key = (partition.processor, partition.topic, partition.topic_id, partition.number)
        with self._connection() as connection, connection.transaction():
            connection.execute(_FENCE_EARLIER, key)
            row = connection.execute(_TAKE_OVER, key).fetchone()
        assert row is not None
        return Cursor(*row)

    def users(self, user_ids: Sequence[str]) -> Users:
        with self._connection() as connection:
            rows = self._features.load_users(connection, user_ids)
            return Users(rows, self._features.load_answers(connection, user_ids))

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        with self._connection() as connection:
            return self._features.load_answers(connection, user_ids)

    def sums(self, table: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        with self._connection() as connection:
            return self._features.load_sums(connection, table, partition, keys)

    def due_users(self, partition: int, log_time_ms: int, limit: int) -> list[str]:
        with self._connection() as connection:
            return self._features.due_users(connection, partition, log_time_ms, limit)

    def next_due_ms(self, partition: int) -> int:
        with self._connection() as connection:
            due_ms = self._features.next_due_ms(connection, partition)
        return NEVER_MS if due_ms is None else due_ms

    def commit(self, commit: Commit) -> None:
        partition, cursor = commit.partition, commit.cursor
        key = (partition.processor, partition.topic_id, partition.number, cursor.epoch)
        with self._connection() as connection, connection.pipeline(), connection.transaction():
            advanced = connection.execute(_ADVANCE, (*cursor[1:], *key))
            if commit.users is not None:
                self._features.write_users(connection, *commit.users)
            if commit.answers:
                self._features.write_answers(connection, partition.number, commit.answers)
            for table, changed in commit.sums:
                self._features.write_sums(connection, table, partition.number, *changed)
            if commit.produced:
                columns = [list(column) for column in zip(*commit.produced, strict=True)]
                topics, keys, values, partitions, timestamps = columns
                connection.execute(
                    _PRODUCE,
                    (self._processor, partition.number, topics, partitions, keys, values, timestamps),
                )
            if advanced.fetchone() is None:  # waits for all of the above; what a fenced owner wrote is rolled back
                raise OwnershipLost(ownership_lost(commit))

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        query = """
select id, topic, key, value, partition, timestamp_ms from stream_outbox
where processor = %s and source_partition = %s order by id limit %s"""
        with self._connection() as connection, connection.cursor(binary=True) as cursor:
            rows = cursor.execute(query, (self._processor, partition, limit)).fetchall()
        return [OutboxRow(row[0], Produced(*row[1:])) for row in rows]

    def delete(self, ids: Sequence[int]) -> None:
        with self._connection() as connection:
            connection.execute("delete from stream_outbox where id = any(%s)", (list(ids),))

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        with named_errors(), self._pool.connection() as connection:
            yield connection


def _prepare(connection: psycopg.Connection[Any], longest_commit_ms: int) -> None:
    # A server that answers commits before they are on disk would let a crash take back what Kafka was told.
    connection.execute("set synchronous_commit = on")
    # A process that falls asleep inside a commit holds the lock on its cursor, and nobody can take over, until the
    # server rolls the commit back. No other timeout runs while it waits for the rest of a pipeline.
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        connection.execute(f"set transaction_timeout = {longest_commit_ms}".encode())
