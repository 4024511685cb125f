"""The tables of a replay in PostgreSQL: a schema beside the one that serves, and the exchange of the two.

Names of tables are unqualified everywhere else; here the schema that the settings' connection names is the serving
one, `<serving>_replay` is filled by a replay, and `<serving>_previous` keeps what served before the last switch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from core.errors import NotReady, StoreUnavailable
from core.settings import Postgres
from core.topics import ACTIVITY
from feature_repo import schema
from feature_repo.postgres import conninfo, named_errors

# What a fold of the log makes. The cursor comes first: it is what a worker's commit locks first, so that a switch
# and a commit wait for each other there and nowhere else.
CURSOR: Final = "stream_cursor"
ANSWERS: Final = "user_attribution"
FOLDED_TABLES: Final = (CURSOR, schema.USER_FEATURES, schema.CELL_POPULARITY, schema.ITEM_STATISTICS, ANSWERS)

_LOCK: Final = 0x7265706C  # "repl": one replay of a database at a time
_LOCK_WAIT_MS: Final = 3_000
_SWITCH_MS: Final = 60_000  # one statement of it: the replay's outbox may be long where no worker had run
_ATTEMPTS: Final = 5
_OUTBOX_COLUMNS: Final = "processor, source_partition, topic, partition, key, value, timestamp_ms"


class Schemas(NamedTuple):
    """The names of the three."""

    serving: str
    replay: str
    previous: str


def schemas_of(connection: psycopg.Connection[Any]) -> Schemas:
    """The schemas beside the one that the connection names."""
    row = connection.execute("select current_schema()").fetchone()
    assert row is not None
    return Schemas(row[0], f"{row[0]}_replay", f"{row[0]}_previous")


def in_schema(settings: Postgres, name: str) -> Postgres:
    """The same database, where unqualified names are those of schema `name`."""
    given = conninfo_to_dict(settings.dsn.get_secret_value())
    options = f"{given.get('options') or ''} -c search_path={name}".strip()
    return settings.model_copy(update={"dsn": SecretStr(make_conninfo("", **{**given, "options": options}))})


@contextmanager
def serving(settings: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the serving schema, in autocommit. Raises StoreUnavailable."""
    with named_errors(), psycopg.connect(conninfo(settings, "nearfeed-replay"), autocommit=True) as connection:
        yield connection


@contextmanager
def only_replay(settings: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the serving schema, in autocommit, while no other replay of this database runs.

    Raises:
        NotReady: another one does.
        StoreUnavailable: PostgreSQL did not answer in time.
    """
    with serving(settings) as connection:
        row = connection.execute("select pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if row != (True,):
            raise NotReady("found another replay of this database, expected none; wait for its end")
        yield connection


def positions(connection: psycopg.Connection[Any], processor: str, topic_id: str) -> dict[int, int]:
    """The next offset of each partition that the connection's schema has a cursor for."""
    query = "select partition, next_offset from stream_cursor where processor = %s and topic_id = %s"
    with named_errors():
        return dict(connection.execute(query, (processor, topic_id)).fetchall())


def prepare(
    connection: psycopg.Connection[Any], names: Schemas, processor: str, topic_id: str, starts: Mapping[int, int]
) -> None:
    """The replay schema holds empty tables, and each partition's cursor stands at its start. Earlier ones are gone."""
    replay = sql.Identifier(names.replay)
    with named_errors(), connection.transaction():
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(replay))
        connection.execute(sql.SQL("create schema {}").format(replay))
        connection.execute(sql.SQL("set local search_path to {}").format(replay))
        schema.create(connection)
        connection.cursor().executemany(
            "insert into stream_cursor (processor, topic, topic_id, partition, next_offset) "
            "values (%s, %s, %s, %s, %s)",
            [(processor, ACTIVITY, topic_id, partition, start) for partition, start in starts.items()],
        )


def drop_produced(connection: psycopg.Connection[Any], names: Schemas) -> None:
    """What the replay has produced so far will not be sent: the serving side did so, or will."""
    with named_errors():
        connection.execute(sql.SQL("truncate {}").format(sql.Identifier(names.replay, "stream_outbox")))


def switch(connection: psycopg.Connection[Any], names: Schemas) -> None:
    """The replayed tables serve, in one transaction; those that served are in the previous schema.

    Epochs go on above those of the workers that run, so each of them is fenced at its next commit. Records that wait
    in the outbox go on waiting, and the replay's own join them.

    Raises:
        StoreUnavailable: somebody held the tables for too long; nothing has changed.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with named_errors(), connection.transaction():
                _switch(connection, names)
            return
        except StoreUnavailable:  # also a deadlock with a reader of several tables
            if attempt == _ATTEMPTS:
                raise


def open_answers(connection: psycopg.Connection[Any], user_id: str) -> int:
    """How many of a user's answers wait for their horizon in the serving schema."""
    with named_errors():
        row = connection.execute(f"select count(*) from {ANSWERS} where user_id = %s".encode(), (user_id,)).fetchone()
    assert row is not None
    return int(row[0])


def forget_beside(connection: psycopg.Connection[Any], user_id: str) -> int:
    """The user's rows in the replay and the previous schema are gone; how many there were."""
    removed = 0
    keys = {schema.USER_FEATURES: "entity_key", ANSWERS: "user_id"}
    with named_errors(), connection.transaction():
        there = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname = any(%s) and tablename = any(%s)",
            (list(schemas_of(connection)[1:]), list(keys)),
        ).fetchall()
        for name, table in there:
            statement = sql.SQL("delete from {} where {} = %s").format(
                sql.Identifier(name, table), sql.Identifier(keys[table])
            )
            removed += connection.execute(statement, (user_id,)).rowcount
    return removed


def _switch(connection: psycopg.Connection[Any], names: Schemas) -> None:
    def execute(statement: str, **tables: sql.Composable) -> None:
        connection.execute(sql.SQL(statement).format(**tables))

    connection.execute(f"set local lock_timeout = {_LOCK_WAIT_MS}".encode())
    connection.execute(f"set local statement_timeout = {_SWITCH_MS}".encode())
    found = connection.execute("select tablename from pg_tables where schemaname = %s", (names.serving,)).fetchall()
    served = [table for table in FOLDED_TABLES if (table,) in found]
    for table in served:
        execute("lock table {table} in access exclusive mode", table=sql.Identifier(names.serving, table))
    cursors = {name: sql.Identifier(name, CURSOR) for name in names}
    execute(
        """
update {replayed} replayed set epoch = served.epoch + 1 from {served} served
where (served.processor, served.topic_id, served.partition) =
      (replayed.processor, replayed.topic_id, replayed.partition) and served.epoch >= replayed.epoch""",
        replayed=cursors[names.replay],
        served=cursors[names.serving],
    )
    execute(
        f"insert into {{served}} ({_OUTBOX_COLUMNS}) select {_OUTBOX_COLUMNS} from {{replayed}} order by id",
        served=sql.Identifier(names.serving, "stream_outbox"),
        replayed=sql.Identifier(names.replay, "stream_outbox"),
    )
    execute("drop schema if exists {previous} cascade", previous=sql.Identifier(names.previous))
    execute("create schema {previous}", previous=sql.Identifier(names.previous))
    move = "alter table {table} set schema {to}"
    for table in served:
        execute(move, table=sql.Identifier(names.serving, table), to=sql.Identifier(names.previous))
    for table in FOLDED_TABLES:
        execute(move, table=sql.Identifier(names.replay, table), to=sql.Identifier(names.serving))
    execute("drop schema {replay} cascade", replay=sql.Identifier(names.replay))
