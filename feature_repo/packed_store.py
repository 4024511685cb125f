"""The Feast online store behind which the states live: one packed row per entity and view.

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

from core.errors import ContractError
from core.settings import Postgres
from feature_repo import schema, values
from feature_repo.folds import popularity
from feature_repo.layouts import LAYOUT_VERSION
from feature_repo.postgres import conninfo, named_errors
from feature_repo.values import Value, View

PUSHED: Final = -1  # partition of a cell's partial sum that was pushed through Feast rather than folded


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
        """Event time and values per entity, in order; (None, None) where there is no row."""
        view = _view(table)
        keys = [_text(key) for key in entity_keys]
        query = f"select entity_key, event_time, layout_version, value from {view.name} where entity_key = any(%s)"
        with self._connection(config) as connection, connection.cursor(binary=True) as cursor:
            stored = cursor.execute(query.encode(), (keys,)).fetchall()
        found: dict[str, list[tuple[datetime, bytes]]] = {}
        for key, event_time, layout, value in stored:
            if layout != LAYOUT_VERSION:
                raise ContractError(
                    f"{view.name}: found layout version {layout}, expected {LAYOUT_VERSION}; replay the log into it"
                )
            found.setdefault(key, []).append((event_time, value))
        wanted = requested_features or list(view.fields)
        return [_answer(view, found[key], wanted) if key in found else (None, None) for key in keys]

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Afterwards the rows hold the given values, newer or not; what they do not name is zero.

        For corrections by hand: the stream worker overwrites them with its next act. A cell's values
        stand beside what the partitions counted, as a partial sum of their own.
        """
        view = _view(table)
        of_cells = view is values.CELL_VIEW
        extra, conflict = (", partition", "entity_key, partition") if of_cells else ("", "entity_key")
        statement = f"""
insert into {view.name} (entity_key, event_time, layout_version, tokenizer_version, value{extra})
values (%s, %s, {LAYOUT_VERSION}, %s, %s{f", {PUSHED}" if of_cells else ""})
on conflict ({conflict}) do update set event_time = excluded.event_time, layout_version = excluded.layout_version,
    tokenizer_version = excluded.tokenizer_version, value = excluded.value"""
        rows = []
        for key, features, event_time, _ in data:
            plain = {name: _plain(proto) for name, proto in features.items()}
            event_time = event_time if event_time.tzinfo else event_time.replace(tzinfo=UTC)
            updated_ms = round(event_time.timestamp() * 1000)
            rows.append((_text(key), event_time, plain.get("tokenizer", 0), values.encode(view, plain, updated_ms)))
        with self._connection(config) as connection, connection.cursor() as cursor:
            cursor.executemany(statement.encode(), rows)
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
        """Afterwards the tables of the given views are gone, with all their rows."""
        with self._connection(config) as connection:
            for name in {table.name for table in tables} & set(values.VIEWS):
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


def _answer(
    view: View, rows: list[tuple[datetime, bytes]], wanted: Sequence[str]
) -> tuple[datetime | None, dict[str, ValueProto] | None]:
    value = rows[0][1]
    if view is values.CELL_VIEW:
        value = popularity.pack(popularity.merged([popularity.unpack(partial) for _, partial in rows]))
    decoded = values.decode(view, value)
    return max(at for at, _ in rows), {name: _proto(view.row[view.fields[name]], decoded[name]) for name in wanted}


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
