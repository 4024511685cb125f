"""The Feast online store behind which the states live: one packed row per user, cell or item.

Feast finds it by `online_store: {type: feature_repo.packed_store.PackedPostgresOnlineStore}` when the
repository root is importable. It reads and writes the very rows that the stream workers write
(feature_repo/store.py) and gives them as ordinary values; `get_online_features`, `feast ui` and the
feature server need nothing else.

Kept from Feast's own PostgreSQL store: the contract of `OnlineStore`. Left out: vector search, a row
per feature, filters, versioned reads; the scorer never goes through here.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
import psycopg
from feast import Entity, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import FloatList, Int64List
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from psycopg_pool import ConnectionPool
from pydantic import SecretStr, StrictStr

from core.clock import as_datetime
from core.errors import ContractError
from core.settings import Postgres
from feature_repo import schema, values
from feature_repo.layouts import LAYOUT_VERSION, USER
from feature_repo.postgres import conninfo, named_errors
from feature_repo.schema import USER_FEATURES, USER_HISTORY, USER_INTERESTS, USER_PLACES, USER_WATCH
from feature_repo.sums import SUMS
from feature_repo.values import Value, View

PUSHED: Final = -1  # partition of a partial sum that was pushed through Feast rather than folded

assert USER.fields is not None
_PARTS: Final = zip((USER_INTERESTS, USER_HISTORY, USER_WATCH, USER_PLACES), USER.fields.values(), strict=True)
_USER_PARTS: Final = {name: int(part[1]) for name, part in _PARTS}  # where each view's part of a USER row begins
_SUMS: Final = {sums.table: sums for sums in SUMS}


class PackedPostgresOnlineStoreConfig(FeastConfigBaseModel):
    """The `online_store` section of feature_store.yaml."""

    type: Literal["feature_repo.packed_store.PackedPostgresOnlineStore"] = (
        "feature_repo.packed_store.PackedPostgresOnlineStore"
    )
    dsn: StrictStr  # libpq URL, as in the setting postgres.dsn
    connect_timeout_s: int = 5
    statement_timeout_ms: int = 10_000


class PackedPostgresOnlineStore(OnlineStore):
    """Feast's OnlineStore over the packed tables. Thread safe; connects at the first use."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """Event time and values per entity, in order; (None, None) where nothing was ever folded into the view."""
        view = _view(table)
        keys = [_text(key) for key in entity_keys]
        with self._connection(config) as connection, connection.cursor(binary=True) as cursor:
            stored = cursor.execute(_read(view), (keys,)).fetchall()
        found: dict[str, list[bytes]] = {}
        for key, layout, value in stored:
            if layout != LAYOUT_VERSION:
                raise ContractError(
                    f"{view.name}: found layout version {layout}, expected {LAYOUT_VERSION}; "
                    "`nearfeed replay` rebuilds the rows"
                )
            found.setdefault(key, []).append(value)
        wanted = requested_features or list(view.fields)
        return [_answer(view, found.get(key, []), wanted) for key in keys]

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Afterwards the rows hold the given values, newer or not; what they do not name is zero.

        For corrections by hand: a stream worker that holds the user's row overwrites them with its next act. Values
        of a cell or an item stand beside what the partitions counted, as a partial sum of their own.
        """
        view = _view(table)
        rows = []
        for key, features, event_time, _ in data:
            plain = {name: _plain(proto) for name, proto in features.items()}
            event_time = event_time if event_time.tzinfo else event_time.replace(tzinfo=UTC)
            updated_ms = round(event_time.timestamp() * 1000)
            value = values.encode(view, plain, updated_ms)
            rows.append({"key": _text(key), "time": event_time, "value": value, "tokenizer": plain.get("tokenizer", 0)})
        with self._connection(config) as connection, connection.cursor() as cursor:
            cursor.executemany(_write(view), rows)
        if progress:
            progress(len(rows))

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Afterwards the tables of all views exist; those of deleted views are gone."""
        self.teardown(config, tables_to_delete, entities_to_delete)
        with self._connection(config) as connection, connection.transaction():
            schema.create(connection)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Afterwards the tables of which no other view is left are gone, with all their rows."""
        gone = {table.name for table in tables}
        with self._connection(config) as connection:
            for name in sorted({_table(name) for name in gone & set(values.VIEWS)}):
                if {view for view in values.VIEWS if _table(view) == name} <= gone:
                    connection.execute(f"drop table if exists {name}".encode())

    @contextmanager
    def _connection(self, config: RepoConfig) -> Iterator[psycopg.Connection[Any]]:
        """A pooled connection in autocommit."""
        with named_errors():
            with self._opening:
                if self._pool is None:
                    self._pool = _pool(config.online_store)
                    # Feast never closes its store; without this its threads outlive the interpreter.
                    weakref.finalize(self, self._pool.close)
            with self._pool.connection() as connection:
                yield connection


def _pool(config: PackedPostgresOnlineStoreConfig) -> ConnectionPool[psycopg.Connection[Any]]:
    settings = Postgres(
        dsn=SecretStr(config.dsn),
        connect_timeout_s=config.connect_timeout_s,
        statement_timeout_ms=config.statement_timeout_ms,
    )
    return ConnectionPool(
        conninfo(settings, "nearfeed-feast"),
        min_size=1,
        max_size=4,
        timeout=config.connect_timeout_s,
        kwargs={"autocommit": True},
        open=True,
    )


def _view(table: FeatureView) -> View:
    view = values.VIEWS.get(table.name)
    if view is None:
        raise ContractError(
            f"found feature view {table.name!r}, expected one of {', '.join(values.VIEWS)}; "
            "a new view needs a layout, a fold and a table first"
        )
    return view


def _text(key: EntityKeyProto) -> str:
    """Entities have one join key, a string."""
    return str(key.entity_values[0].string_val)


def _table(view: str) -> str:
    return USER_FEATURES if view in _USER_PARTS else view


def _read(view: View) -> bytes:
    value = "value"
    if view.name in _USER_PARTS:  # the view's part of the row
        value = f"substring(value from {_USER_PARTS[view.name] + 1} for {view.row.itemsize})"
    return f"select entity_key, layout_version, {value} from {_table(view.name)} where entity_key = any(%s)".encode()


def _write(view: View) -> bytes:
    if view.name not in _USER_PARTS:
        return f"""
insert into {view.name} (entity_key, partition, event_time, layout_version, value)
values (%(key)s, {PUSHED}, %(time)s, {LAYOUT_VERSION}, %(value)b)
on conflict (entity_key, partition) do update set event_time = excluded.event_time,
    layout_version = excluded.layout_version, value = excluded.value""".encode()
    start = _USER_PARTS[view.name]
    whole = f"decode(repeat('00', {start}), 'hex') || %(value)b"
    rest = USER.itemsize - start - view.row.itemsize
    tokenizer = ", tokenizer_version = excluded.tokenizer_version" if view.name == USER_INTERESTS else ""
    return f"""
insert into {USER_FEATURES} as stored (entity_key, event_time, layout_version, tokenizer_version, value)
values (%(key)s, %(time)s, {LAYOUT_VERSION}, %(tokenizer)s, {whole} || decode(repeat('00', {rest}), 'hex'))
on conflict (entity_key) do update set event_time = greatest(stored.event_time, excluded.event_time){tokenizer},
    value = overlay(stored.value placing %(value)b from {start + 1} for {view.row.itemsize})""".encode()


def _answer(
    view: View, rows: list[bytes], wanted: Sequence[str]
) -> tuple[datetime | None, dict[str, ValueProto] | None]:
    sums = _SUMS.get(view.name)
    if sums is not None:
        rows = [sums.merged(np.frombuffer(b"".join(rows), sums.row)).tobytes()]
    at_ms = values.updated_ms(view, rows[0]) if rows else 0
    if not at_ms:
        return None, None
    decoded = values.decode(view, rows[0])
    return as_datetime(at_ms), {name: _proto(view.row[view.fields[name]], decoded[name]) for name in wanted}


def _proto(field: np.dtype[Any], value: Value) -> ValueProto:
    """The value as Feast's message; `_plain` is the way back."""
    real = field.base.kind == "f"
    if isinstance(value, list):
        if real:
            return ValueProto(float_list_val=FloatList(val=value))
        return ValueProto(int64_list_val=Int64List(val=[int(one) for one in value]))
    return ValueProto(float_val=value) if real else ValueProto(int64_val=int(value))


def _plain(proto: ValueProto) -> Value:
    kind = proto.WhichOneof("val")
    if kind is None:
        return 0
    value = getattr(proto, kind)
    return list(value.val) if hasattr(value, "val") else value
