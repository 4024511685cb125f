"""Where states live: the packed PostgreSQL store, and the same in memory.

Reading gives arrays of the stored records (feature_repo/layouts.py) without decoding a value; Feast
reads the same rows as ordinary values (feature_repo/packed_store.py). Writing happens inside the
stream worker's transaction, beside its cursor, so nothing here commits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, Self, TypeAlias

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from core.errors import ContractError
from core.settings import Postgres
from feature_repo.folds import attribution
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.layouts import LAYOUT_VERSION, USER, UserRows, user_rows
from feature_repo.postgres import conninfo, int_array, named_errors, text_array
from feature_repo.schema import USER_FEATURES
from feature_repo.sums import CELL_SUMS, Sum

Transaction: TypeAlias = psycopg.Connection[Any]  # open and owned by the caller

POOL_SIZE: Final = 4  # connections of one process; readers hold one for about a millisecond

_READ_USERS: Final = f"select entity_key, layout_version, value from {USER_FEATURES} where entity_key = any(%s)"
_READ_SUMS: Final = "select entity_key, layout_version, value from {table} where entity_key = any(%s)"
_READ_CELLS: Final = _READ_SUMS.format(table=CELL_SUMS.table)

# Values travel as one bytes parameter and are cut up there: cheaper than an array of bytes.
_WRITE_USERS: Final = f"""
insert into {USER_FEATURES} (entity_key, event_time, layout_version, tokenizer_version, value)
select entity_key, to_timestamp(updated_ms / 1000.0), {LAYOUT_VERSION}, tokenizer,
       substring(%s::bytea from ((place - 1) * {USER.itemsize} + 1)::int for {USER.itemsize})
from unnest(%s::text[], %s::bigint[], %s::bigint[]) with ordinality as new (entity_key, updated_ms, tokenizer, place)
on conflict (entity_key) do update set
    event_time = excluded.event_time, layout_version = excluded.layout_version,
    tokenizer_version = excluded.tokenizer_version, value = excluded.value""".encode()

_REMOVE_USERS: Final = f"delete from {USER_FEATURES} where entity_key = any(%s)".encode()

_WRITE_SUMS: Final = f"""
insert into {{table}} (entity_key, partition, event_time, layout_version, value)
select entity_key, %s, to_timestamp(updated_ms / 1000.0), {LAYOUT_VERSION},
       substring(%s::bytea from ((place - 1) * {{size}} + 1)::int for {{size}})
from unnest(%s::text[], %s::bigint[]) with ordinality as new (entity_key, updated_ms, place)
on conflict (entity_key, partition) do update set
    event_time = excluded.event_time, layout_version = excluded.layout_version, value = excluded.value"""

_WRITE_ANSWERS: Final = """
insert into user_attribution (user_id, request_id, partition, due_at_ms, value)
select user_id, request_id, %s, due_at_ms, value
from unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[]) as new (user_id, request_id, due_at_ms, value)
on conflict (user_id, request_id) do update set due_at_ms = excluded.due_at_ms, value = excluded.value"""

_REMOVE_ANSWERS: Final = """
delete from user_attribution using unnest(%s::text[], %s::text[]) as gone (user_id, request_id)
where user_attribution.user_id = gone.user_id and user_attribution.request_id = gone.request_id"""


class FeatureReader(Protocol):
    """Reads rows as arrays. Each call may raise StoreUnavailable."""

    def read_users(self, user_ids: Sequence[str]) -> UserRows:
        """The rows of (B,) users, in order; zeros where not found."""

    def read_cells(self, cells: Sequence[str]) -> NDArray[np.void]:
        """The merged rows of (B,) cells, dtype CELLS, in order; zeros where absent."""


class FeatureWriter(Protocol):
    """Writes rows inside the caller's transaction, and reads back what a worker must know there."""

    def write_users(self, tx: Transaction, user_ids: Sequence[str], rows: NDArray[np.void]) -> None:
        """Afterwards `rows`, (B,) USER, are stored; users are distinct. Zeros, of a forgotten user, are removed."""

    def write_answers(self, tx: Transaction, partition: int, changed: Mapping[str, Changes]) -> None:
        """Afterwards the open answers of each user are changed as told."""

    def write_sums(
        self, tx: Transaction, sums: Sum, partition: int, keys: Sequence[str], rows: NDArray[np.void]
    ) -> None:
        """Afterwards the partial sums of `partition` for `keys` are `rows`, (B,); keys are distinct."""

    def load_users(self, tx: Transaction, user_ids: Sequence[str]) -> NDArray[np.void]:
        """The rows of (B,) distinct users, USER; zeros where not found. Owned by the caller."""

    def load_answers(self, tx: Transaction, user_ids: Sequence[str]) -> list[AttributionState]:
        """The open answers of each user, in order."""

    def load_sums(self, tx: Transaction, sums: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        """The partial sums of `partition` for (B,) distinct keys; zeros where absent. Owned by the caller."""

    def sum_keys(self, tx: Transaction, sums: Sum, partition: int) -> list[str]:
        """The keys that `partition` has a partial sum of."""

    def due_users(self, tx: Transaction, partition: int, log_time_ms: int, limit: int) -> list[str]:
        """At most `limit` users of `partition` with an answer due at `log_time_ms`, longest due first."""

    def next_due_ms(self, tx: Transaction, partition: int) -> int | None:
        """When the next answer of `partition` is due; None when none is open."""


class PackedWriter:
    """The FeatureWriter of the packed PostgreSQL store. Holds nothing: all state is the transaction's."""

    def write_users(self, tx: Transaction, user_ids: Sequence[str], rows: NDArray[np.void]) -> None:
        updated_ms = rows["history"]["updated_ms"]
        gone = [user_ids[place] for place in np.flatnonzero(updated_ms == 0).tolist()]
        if gone:
            kept = np.flatnonzero(updated_ms)
            user_ids, rows, updated_ms = [user_ids[place] for place in kept.tolist()], rows[kept], updated_ms[kept]
        tokenizers = rows["interests"]["tokenizer"]
        with named_errors():
            tx.execute(
                _WRITE_USERS, (rows.tobytes(), text_array(user_ids), int_array(updated_ms), int_array(tokenizers))
            )
            if gone:
                tx.execute(_REMOVE_USERS, (gone,))

    def write_answers(self, tx: Transaction, partition: int, changed: Mapping[str, Changes]) -> None:
        put = [(user_id, answer) for user_id, changes in changed.items() for answer in changes.put]
        removed = [(user_id, request_id) for user_id, changes in changed.items() for request_id in changes.removed]
        with named_errors():
            if put:
                tx.execute(
                    _WRITE_ANSWERS,
                    (
                        partition,
                        [user_id for user_id, _ in put],
                        [answer.request_id for _, answer in put],
                        [answer.due_ms for _, answer in put],
                        [attribution.pack(answer) for _, answer in put],
                    ),
                )
            if removed:
                tx.execute(_REMOVE_ANSWERS, ([user_id for user_id, _ in removed], [key for _, key in removed]))

    def write_sums(
        self, tx: Transaction, sums: Sum, partition: int, keys: Sequence[str], rows: NDArray[np.void]
    ) -> None:
        statement = _WRITE_SUMS.format(table=sums.table, size=sums.row.itemsize).encode()
        with named_errors():
            tx.execute(statement, (partition, rows.tobytes(), text_array(keys), int_array(rows["updated_ms"])))

    def load_users(self, tx: Transaction, user_ids: Sequence[str]) -> NDArray[np.void]:
        with named_errors(), tx.cursor(binary=True) as cursor:
            return _rows(user_ids, USER, cursor.execute(_READ_USERS.encode(), (list(user_ids),)).fetchall())

    def load_answers(self, tx: Transaction, user_ids: Sequence[str]) -> list[AttributionState]:
        found: dict[str, list[bytes]] = {user_id: [] for user_id in user_ids}
        query = "select user_id, value from user_attribution where user_id = any(%s)"
        with named_errors(), tx.cursor(binary=True) as cursor:
            for user_id, value in cursor.execute(query, (list(found),)):
                found[user_id].append(value)
        return [attribution.unpack(found[user_id]) for user_id in user_ids]

    def load_sums(self, tx: Transaction, sums: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        query = _READ_SUMS.format(table=sums.table) + " and partition = %s"
        with named_errors(), tx.cursor(binary=True) as cursor:
            return _rows(keys, sums.row, cursor.execute(query.encode(), (list(keys), partition)).fetchall())

    def sum_keys(self, tx: Transaction, sums: Sum, partition: int) -> list[str]:
        query = f"select entity_key from {sums.table} where partition = %s"
        with named_errors():
            return [key for (key,) in tx.execute(query.encode(), (partition,))]

    def due_users(self, tx: Transaction, partition: int, log_time_ms: int, limit: int) -> list[str]:
        query = """
select user_id from user_attribution where partition = %s and due_at_ms <= %s
group by user_id order by min(due_at_ms), user_id limit %s"""
        with named_errors():
            return [user_id for (user_id,) in tx.execute(query, (partition, log_time_ms, limit))]

    def next_due_ms(self, tx: Transaction, partition: int) -> int | None:
        query = "select min(due_at_ms) from user_attribution where partition = %s"
        with named_errors():
            row = tx.execute(query, (partition,)).fetchone()
        return None if row is None else row[0]


class PackedStore(PackedWriter):
    """FeatureReader and FeatureWriter over PostgreSQL; thread safe. Connects at the first use."""

    def __init__(self, settings: Postgres, application: str = "nearfeed", connections: int = POOL_SIZE) -> None:
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            conninfo(settings, application),
            min_size=1,
            max_size=connections,
            timeout=settings.connect_timeout_s,
            kwargs={"autocommit": True},
            open=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Afterwards no connection is open."""
        self._pool.close()

    def read_users(self, user_ids: Sequence[str]) -> UserRows:
        """The rows of (B,) users in one round trip; zeros where not found. Raises StoreUnavailable."""
        with named_errors():
            self._pool.open()
            with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                return _user_rows(user_ids, cursor.execute(_READ_USERS.encode(), (list(user_ids),)).fetchall())

    def read_cells(self, cells: Sequence[str]) -> NDArray[np.void]:
        """The merged rows of (B,) cells, dtype CELLS; zeros where absent. Raises StoreUnavailable."""
        with named_errors():
            self._pool.open()
            with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                return _cell_rows(cells, cursor.execute(_READ_CELLS.encode(), (list(cells),)).fetchall())


class AsyncPackedReader:
    """The reading half of PackedStore for an event loop. Connects at the first use."""

    def __init__(self, settings: Postgres, application: str = "nearfeed", connections: int = POOL_SIZE) -> None:
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
            conninfo(settings, application),
            min_size=1,
            max_size=connections,
            timeout=settings.connect_timeout_s,
            kwargs={"autocommit": True},
            open=False,
        )

    async def close(self) -> None:
        """Afterwards no connection is open."""
        await self._pool.close()

    async def read_users(self, user_ids: Sequence[str]) -> UserRows:
        """The rows of (B,) users in one round trip; zeros where not found. Raises StoreUnavailable."""
        with named_errors():
            return _user_rows(user_ids, await self._fetch(_READ_USERS, user_ids))

    async def read_cells(self, cells: Sequence[str]) -> NDArray[np.void]:
        """The merged rows of (B,) cells, dtype CELLS; zeros where absent. Raises StoreUnavailable."""
        with named_errors():
            return _cell_rows(cells, await self._fetch(_READ_CELLS, cells))

    async def _fetch(self, query: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        await self._pool.open()
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(query.encode(), (list(keys),))
            return await cursor.fetchall()


class MemoryStore:
    """FeatureReader and FeatureWriter without a server, for tests and replays; `tx` is not looked at."""

    def __init__(self) -> None:
        self._users: dict[str, bytes] = {}
        self._answers: dict[str, dict[str, tuple[int, int, bytes]]] = {}  # partition, due, packed
        self._sums: dict[str, dict[tuple[str, int], bytes]] = {}  # by table: key, partition

    def read_users(self, user_ids: Sequence[str]) -> UserRows:
        return _user_rows(user_ids, self._stored(user_ids))

    def _stored(self, user_ids: Sequence[str]) -> list[tuple[str, int, bytes]]:
        wanted = [user_id for user_id in dict.fromkeys(user_ids) if user_id in self._users]
        return [(user_id, LAYOUT_VERSION, self._users[user_id]) for user_id in wanted]

    def read_cells(self, cells: Sequence[str]) -> NDArray[np.void]:
        kept = self._sums.get(CELL_SUMS.table, {})
        wanted = set(cells)
        return _cell_rows(cells, [(cell, LAYOUT_VERSION, row) for (cell, _), row in kept.items() if cell in wanted])

    def write_users(self, tx: object, user_ids: Sequence[str], rows: NDArray[np.void]) -> None:
        for user_id, row in zip(user_ids, rows, strict=True):
            if row["history"]["updated_ms"]:
                self._users[user_id] = row.tobytes()
            else:
                self._users.pop(user_id, None)

    def write_answers(self, tx: object, partition: int, changed: Mapping[str, Changes]) -> None:
        for user_id, changes in changed.items():
            kept = self._answers.setdefault(user_id, {})
            for answer in changes.put:
                kept[answer.request_id] = (partition, answer.due_ms, attribution.pack(answer))
            for request_id in changes.removed:
                kept.pop(request_id, None)

    def write_sums(self, tx: object, sums: Sum, partition: int, keys: Sequence[str], rows: NDArray[np.void]) -> None:
        kept = self._sums.setdefault(sums.table, {})
        for key, row in zip(keys, rows, strict=True):
            kept[key, partition] = row.tobytes()

    def load_users(self, tx: object, user_ids: Sequence[str]) -> NDArray[np.void]:
        return _rows(user_ids, USER, self._stored(user_ids))

    def load_answers(self, tx: object, user_ids: Sequence[str]) -> list[AttributionState]:
        return [
            attribution.unpack([value for _, _, value in self._answers.get(user_id, {}).values()])
            for user_id in user_ids
        ]

    def load_sums(self, tx: object, sums: Sum, partition: int, keys: Sequence[str]) -> NDArray[np.void]:
        kept = self._sums.get(sums.table, {})
        found = [(key, LAYOUT_VERSION, kept[key, partition]) for key in keys if (key, partition) in kept]
        return _rows(keys, sums.row, found)

    def sum_keys(self, tx: object, sums: Sum, partition: int) -> list[str]:
        return [key for key, source in self._sums.get(sums.table, {}) if source == partition]

    def due_users(self, tx: object, partition: int, log_time_ms: int, limit: int) -> list[str]:
        due = {
            user_id: due_ms for due_ms, user_id in sorted(self._due(partition), reverse=True) if due_ms <= log_time_ms
        }
        return sorted(due, key=lambda user_id: (due[user_id], user_id))[:limit]

    def next_due_ms(self, tx: object, partition: int) -> int | None:
        return min((due_ms for due_ms, _ in self._due(partition)), default=None)

    def _due(self, partition: int) -> list[tuple[int, str]]:
        return [
            (due_ms, user_id)
            for user_id, answers in self._answers.items()
            for source, due_ms, _ in answers.values()
            if source == partition
        ]


def _rows(keys: Sequence[str], row: np.dtype[np.void], fetched: Sequence[tuple[str, int, bytes]]) -> NDArray[np.void]:
    """One row per key, (B,) writable; zeros where nothing was fetched."""
    _check_layout(fetched)
    stored = {key: value for key, _, value in fetched}
    absent = bytes(row.itemsize)
    # Joined as bytes: numpy copies a record field by field, 15 times slower.
    return np.frombuffer(bytearray().join([stored.get(key, absent) for key in keys]), row)


def _user_rows(user_ids: Sequence[str], fetched: Sequence[tuple[str, int, bytes]]) -> UserRows:
    found = {key for key, _, _ in fetched}
    present = np.array([user_id in found for user_id in user_ids], bool)
    return user_rows(_rows(user_ids, USER, fetched), present)


def _cell_rows(cells: Sequence[str], fetched: Sequence[tuple[str, int, bytes]]) -> NDArray[np.void]:
    _check_layout(fetched)
    partials: dict[str, list[bytes]] = {cell: [] for cell in cells}
    for cell, _, value in fetched:
        partials[cell].append(value)
    rows = [CELL_SUMS.merged(np.frombuffer(b"".join(partials[cell]), CELL_SUMS.row)) for cell in cells]
    return np.concatenate(rows) if rows else np.zeros(0, CELL_SUMS.row)


def _check_layout(fetched: Sequence[tuple[str, int, bytes]]) -> None:
    versions = {version for _, version, _ in fetched} - {LAYOUT_VERSION}
    if versions:
        raise ContractError(
            f"found rows of layout version {sorted(versions)}, expected {LAYOUT_VERSION}; "
            "`nearfeed replay` rebuilds them"
        )
