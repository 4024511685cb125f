"""The StateStore and Outbox in PostgreSQL: states, cursor and produced records in one transaction.

The first statement of a commit writes the cursor row where the epoch is still the owner's. It locks that
row, so a new owner's take-over waits for a commit in flight, and a commit after a take-over finds no row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg_pool import ConnectionPool

from core.errors import OwnershipLost
from core.settings import Postgres
from feature_repo.folds import popularity, user
from feature_repo.folds.attribution import AttributionState
from feature_repo.folds.popularity import CellState
from feature_repo.folds.user import UserState
from feature_repo.postgres import conninfo, named_errors
from feature_repo.store import PackedWriter
from streams.cursor import Cursor, Partition
from streams.outbox import OutboxRow, Produced
from streams.state_store import NEVER_MS, Commit, ownership_lost

_POSITION: Final = ", ".join(Cursor._fields[1:])

_TAKE_OVER: Final = f"""
insert into stream_cursor (processor, topic, topic_id, partition, epoch) values (%s, %s, %s, %s, 1)
on conflict (processor, topic_id, partition) do update set epoch = stream_cursor.epoch + 1
returning epoch, {_POSITION}""".encode()

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
            kwargs={"autocommit": True},
            configure=_durable,
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
        with self._connection() as connection:
            row = connection.execute(_TAKE_OVER, key).fetchone()
        assert row is not None
        return Cursor(*row)

    def users(self, user_ids: Sequence[str]) -> list[UserState]:
        with self._connection() as connection:
            rows = self._features.load_users(connection, user_ids)
            answers = self._features.load_answers(connection, user_ids)
        return [user.unpack(rows, at, answers[at]) for at in range(len(user_ids))]

    def answers(self, user_ids: Sequence[str]) -> list[AttributionState]:
        with self._connection() as connection:
            return self._features.load_answers(connection, user_ids)

    def cells(self, partition: int, cells: Sequence[str]) -> list[CellState]:
        with self._connection() as connection:
            return self._features.load_cells(connection, partition, cells)

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
        with self._connection() as connection, connection.transaction():
            if connection.execute(_ADVANCE, (*cursor[1:], *key)).fetchone() is None:
                raise OwnershipLost(ownership_lost(commit))
            if commit.states:
                rows = user.pack(list(commit.states.values()))
                self._features.write_users(connection, list(commit.states), rows)
            if commit.answers:
                self._features.write_answers(connection, partition.number, commit.answers)
            if commit.cells:
                sums = popularity.rows_of(list(commit.cells.values()))
                self._features.write_cells(connection, partition.number, list(commit.cells), sums)
            if commit.produced:
                columns = [list(column) for column in zip(*commit.produced, strict=True)]
                topics, keys, values, partitions, timestamps = columns
                connection.execute(
                    _PRODUCE,
                    (self._processor, partition.number, topics, partitions, keys, values, timestamps),
                )

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


def _durable(connection: psycopg.Connection[Any]) -> None:
    # A server that answers commits before they are on disk would let a crash take back what Kafka was told.
    connection.execute("set synchronous_commit = on")
