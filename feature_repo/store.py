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
from feature_repo.folds import attribution, popularity
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.folds.popularity import CellState
from feature_repo.layouts import HISTORY_ROW, INTERESTS, LAYOUT_VERSION, PLACES, WATCH, UserRows
from feature_repo.postgres import conninfo, named_errors
from feature_repo.schema import CELL_POPULARITY, USER_HISTORY, USER_INTERESTS, USER_PLACES, USER_WATCH

Transaction: TypeAlias = psycopg.Connection[Any]  # open and owned by the caller

POOL_SIZE: Final = 4  # connections of one process; readers hold one for about a millisecond

_READ_USERS: Final = f"""
select history.layout_version, interests.value, history.value, watch.value, places.value
from unnest(%s::text[]) with ordinality as asked (entity_key, place)
left join {USER_INTERESTS} interests using (entity_key)
left join {USER_HISTORY} history using (entity_key)
left join {USER_WATCH} watch using (entity_key)
left join {USER_PLACES} places using (entity_key)
order by asked.place"""

_READ_CELLS: Final = f"select entity_key, layout_version, value from {CELL_POPULARITY} where entity_key = any(%s)"

# A view's values travel as one bytes parameter and are cut up there: cheaper than an array of bytes.
# Rows that no act has touched yet are not written, rows that did not change are not rewritten.
_WRITE_VIEW: Final = """
insert into {table} (entity_key, event_time, layout_version, tokenizer_version, value)
select entity_key, to_timestamp(updated_ms / 1000.0), {layout}, tokenizer,
       substring(%s::bytea from ((place - 1) * {size} + 1)::int for {size})
from unnest(%s::text[], %s::bigint[], %s::bigint[]) with ordinality as new (entity_key, updated_ms, tokenizer, place)
where updated_ms > 0
on conflict (entity_key) do update set
    event_time = excluded.event_time, layout_version = excluded.layout_version,
    tokenizer_version = excluded.tokenizer_version, value = excluded.value
where {table}.value is distinct from excluded.value"""

_WRITE_CELLS: Final = f"""
insert into {CELL_POPULARITY} (entity_key, partition, event_time, layout_version, tokenizer_version, value)
select entity_key, %s, to_timestamp(updated_ms / 1000.0), {LAYOUT_VERSION}, 0, value
from unnest(%s::text[], %s::bigint[], %s::bytea[]) as new (entity_key, updated_ms, value)
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

    def write_users(self, tx: Transaction, user_ids: Sequence[str], rows: UserRows) -> None:
        """Afterwards the views hold `rows`, (B,) each; user ids are distinct."""

    def write_answers(self, tx: Transaction, partition: int, changed: Mapping[str, Changes]) -> None:
        """Afterwards the open answers of each user are changed as told."""

    def write_cells(self, tx: Transaction, partition: int, cells: Sequence[str], rows: NDArray[np.void]) -> None:
        """Afterwards the partial sums of `partition` for `cells` are `rows`, (B,) CELLS; cells are distinct."""

    def load_users(self, tx: Transaction, user_ids: Sequence[str]) -> UserRows:
        """`read_users` inside the transaction."""

    def load_answers(self, tx: Transaction, user_ids: Sequence[str]) -> list[AttributionState]:
        """The open answers of each user, in order."""

    def load_cells(self, tx: Transaction, partition: int, cells: Sequence[str]) -> list[CellState]:
        """The partial sums of `partition` for `cells`, in order; EMPTY where absent."""

    def partial_cells(self, tx: Transaction, partition: int) -> list[str]:
        """The cells that `partition` has a partial sum of."""

    def due_users(self, tx: Transaction, partition: int, log_time_ms: int, limit: int) -> list[str]:
        """At most `limit` users of `partition` with an answer due at `log_time_ms`, longest due first."""

    def next_due_ms(self, tx: Transaction, partition: int) -> int | None:
        """When the next answer of `partition` is due; None when none is open."""


class PackedWriter:
    """The FeatureWriter of the packed PostgreSQL store. Holds nothing: all state is the transaction's."""

    def write_users(self, tx: Transaction, user_ids: Sequence[str], rows: UserRows) -> None:
        keys = list(user_ids)
        tokenizers = rows.interests["tokenizer"].tolist()
        none = [0] * len(keys)
        with named_errors(), tx.pipeline():
            for statement, values, used in (
                (_WRITE_INTERESTS, rows.interests, tokenizers),
                (_WRITE_HISTORY, rows.history, none),
                (_WRITE_WATCH, rows.watch, none),
                (_WRITE_PLACES, rows.places, none),
            ):
                tx.execute(statement, (values.tobytes(), keys, values["updated_ms"].tolist(), used))

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

    def write_cells(self, tx: Transaction, partition: int, cells: Sequence[str], rows: NDArray[np.void]) -> None:
        updated_ms = rows["updated_ms"].tolist()
        with named_errors():
            tx.execute(_WRITE_CELLS, (partition, list(cells), updated_ms, [row.tobytes() for row in rows]))

    def load_users(self, tx: Transaction, user_ids: Sequence[str]) -> UserRows:
        with named_errors(), tx.cursor(binary=True) as cursor:
            return _user_rows(cursor.execute(_READ_USERS, (list(user_ids),)).fetchall())

    def load_answers(self, tx: Transaction, user_ids: Sequence[str]) -> list[AttributionState]:
        found: dict[str, list[bytes]] = {user_id: [] for user_id in user_ids}
        query = "select user_id, value from user_attribution where user_id = any(%s)"
        with named_errors(), tx.cursor(binary=True) as cursor:
            for user_id, value in cursor.execute(query, (list(found),)):
                found[user_id].append(value)
        return [attribution.unpack(found[user_id]) for user_id in user_ids]

    def load_cells(self, tx: Transaction, partition: int, cells: Sequence[str]) -> list[CellState]:
        with named_errors(), tx.cursor(binary=True) as cursor:
            rows = cursor.execute(f"{_READ_CELLS} and partition = %s", (list(cells), partition)).fetchall()
        partials = _partials(rows)
        return [partials[cell][0] if cell in partials else popularity.EMPTY for cell in cells]

    def partial_cells(self, tx: Transaction, partition: int) -> list[str]:
        query = f"select entity_key from {CELL_POPULARITY} where partition = %s"
        with named_errors():
            return [cell for (cell,) in tx.execute(query, (partition,))]

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
            with self._pool.connection() as connection:
                return self.load_users(connection, user_ids)

    def read_cells(self, cells: Sequence[str]) -> NDArray[np.void]:
        """The merged rows of (B,) cells, dtype CELLS; zeros where absent. Raises StoreUnavailable."""
        with named_errors():
            self._pool.open()
            with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                return _cell_rows(cells, cursor.execute(_READ_CELLS, (list(cells),)).fetchall())


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
            return _user_rows(await self._fetch(_READ_USERS, user_ids))

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
        self._users: dict[str, tuple[bytes, bytes, bytes, bytes]] = {}
        self._answers: dict[str, dict[str, tuple[int, int, bytes]]] = {}  # partition, due, packed
        self._cells: dict[str, dict[int, bytes]] = {}

    def read_users(self, user_ids: Sequence[str]) -> UserRows:
        missing = (None, None, None, None, None)
        return _user_rows([(LAYOUT_VERSION, *self._users[key]) if key in self._users else missing for key in user_ids])

    def read_cells(self, cells: Sequence[str]) -> NDArray[np.void]:
        found = [
            (cell, LAYOUT_VERSION, value)
            for cell in dict.fromkeys(cells)
            for value in self._cells.get(cell, {}).values()
        ]
        return _cell_rows(cells, found)

    def write_users(self, tx: object, user_ids: Sequence[str], rows: UserRows) -> None:
        for place, user_id in enumerate(user_ids):
            self._users[user_id] = (
                rows.interests[place].tobytes(),
                rows.history[place].tobytes(),
                rows.watch[place].tobytes(),
                rows.places[place].tobytes(),
            )

    def write_answers(self, tx: object, partition: int, changed: Mapping[str, Changes]) -> None:
        for user_id, changes in changed.items():
            kept = self._answers.setdefault(user_id, {})
            for answer in changes.put:
                kept[answer.request_id] = (partition, answer.due_ms, attribution.pack(answer))
            for request_id in changes.removed:
                kept.pop(request_id, None)

    def write_cells(self, tx: object, partition: int, cells: Sequence[str], rows: NDArray[np.void]) -> None:
        for cell, row in zip(cells, rows, strict=True):
            self._cells.setdefault(cell, {})[partition] = row.tobytes()

    def load_users(self, tx: object, user_ids: Sequence[str]) -> UserRows:
        return self.read_users(user_ids)

    def load_answers(self, tx: object, user_ids: Sequence[str]) -> list[AttributionState]:
        return [
            attribution.unpack([value for _, _, value in self._answers.get(user_id, {}).values()])
            for user_id in user_ids
        ]

    def load_cells(self, tx: object, partition: int, cells: Sequence[str]) -> list[CellState]:
        rows = [self._cells.get(cell, {}).get(partition) for cell in cells]
        return [popularity.EMPTY if row is None else popularity.unpack(row) for row in rows]

    def partial_cells(self, tx: object, partition: int) -> list[str]:
        return [cell for cell, partials in self._cells.items() if partition in partials]

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


def _write_view(table: str, row: np.dtype[np.void]) -> bytes:
    return _WRITE_VIEW.format(table=table, layout=LAYOUT_VERSION, size=row.itemsize).encode()


_WRITE_INTERESTS: Final = _write_view(USER_INTERESTS, INTERESTS)
_WRITE_HISTORY: Final = _write_view(USER_HISTORY, HISTORY_ROW)
_WRITE_WATCH: Final = _write_view(USER_WATCH, WATCH)
_WRITE_PLACES: Final = _write_view(USER_PLACES, PLACES)


def _user_rows(fetched: Sequence[tuple[Any, ...]]) -> UserRows:
    """Arrays from (layout version, four values) per user, None where absent."""
    versions = {row[0] for row in fetched} - {None, LAYOUT_VERSION}
    if versions:
        raise _other_layout(versions)
    return UserRows(
        _column(fetched, 1, INTERESTS),
        _column(fetched, 2, HISTORY_ROW),
        _column(fetched, 3, WATCH),
        _column(fetched, 4, PLACES),
        np.array([row[2] is not None for row in fetched], bool),
    )


def _column(fetched: Sequence[tuple[Any, ...]], place: int, row: np.dtype[np.void]) -> NDArray[np.void]:
    absent = bytes(row.itemsize)
    return np.frombuffer(b"".join([absent if one[place] is None else one[place] for one in fetched]), row)


def _partials(fetched: Sequence[tuple[Any, ...]]) -> dict[str, list[CellState]]:
    versions = {version for _, version, _ in fetched} - {LAYOUT_VERSION}
    if versions:
        raise _other_layout(versions)
    partials: dict[str, list[CellState]] = {}
    for cell, _, value in fetched:
        partials.setdefault(cell, []).append(popularity.unpack(value))
    return partials


def _cell_rows(cells: Sequence[str], fetched: Sequence[tuple[Any, ...]]) -> NDArray[np.void]:
    partials = _partials(fetched)
    return popularity.rows_of([popularity.merged(partials.get(cell, ())) for cell in cells])


def _other_layout(versions: set[int]) -> ContractError:
    return ContractError(
        f"found rows of layout version {sorted(versions)}, expected {LAYOUT_VERSION}; replay the log into this version"
    )
