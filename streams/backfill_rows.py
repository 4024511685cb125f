"""Rows of a team's own log, as Parquet, into activities: which columns there are and what they mean.

| column | type | |
|---|---|---|
| user_id, item_id | text or integer | required |
| action | text: view, play, click, like, share, comment, follow, add_to_cart, order, check_in, dislike | required |
| occurred_at | timestamp (UTC where it names no zone), ISO 8601 text, or integer milliseconds since 1970 | required |
| event_id | text; where absent, made from the row's content, so equal rows are one event | |
| play_ms, duration_ms, value_micros | integer | |
| currency | text, ISO 4217, beside value_micros | |
| latitude, longitude | degrees, both or none | |
| request_id, surface, session_id | text | |

Other columns are named in the report and not read.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from core.validation import Fault, interaction_fault
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction, Origin

_TIME: Final = pa.timestamp("ms", tz="UTC")
REQUIRED: Final = {"user_id": pa.string(), "item_id": pa.string(), "action": pa.string(), "occurred_at": _TIME}
OPTIONAL: Final = {
    "event_id": pa.string(),
    "play_ms": pa.int64(),
    "duration_ms": pa.int64(),
    "value_micros": pa.int64(),
    "currency": pa.string(),
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "request_id": pa.string(),
    "surface": pa.string(),
    "session_id": pa.string(),
}
_COLUMNS: Final = REQUIRED | OPTIONAL
_ACTIONS: Final = {name.removeprefix("ACTION_").lower(): value for name, value in Action.items() if value}
_BATCH_ROWS: Final = 10_000
_LAST_MS: Final = 4_102_444_800_000  # 2100, where the log's time ends


class Row(NamedTuple):
    """One row of a team's log. The fields are the columns, None where the row or the file has none."""

    user_id: str | None
    item_id: str | None
    action: str | None
    occurred_at: int | None  # milliseconds since 1970
    event_id: str | None = None
    play_ms: int | None = None
    duration_ms: int | None = None
    value_micros: int | None = None
    currency: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    request_id: str | None = None
    surface: str | None = None
    session_id: str | None = None


class Entry(NamedTuple):
    """A row that is fit for the log."""

    at_ms: int
    user_id: str
    activity: bytes  # a serialized Activity


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, in order; holds one batch in memory.

    Raises:
        InputError: the file cannot be read, lacks a required column, or has one of another kind.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            missing = REQUIRED.keys() - names
            if missing:
                raise InputError(
                    f"{path}: found no column {', '.join(sorted(missing))}, expected {', '.join(REQUIRED)}; "
                    "`nearfeed backfill --help` lists all columns"
                )
            known = [name for name in _COLUMNS if name in names]
            for batch in file.iter_batches(_BATCH_ROWS, columns=known):
                columns = {name: _values(path, name, batch.column(name)) for name in known}
                absent = [None] * batch.num_rows
                yield from map(Row._make, zip(*(columns.get(name, absent) for name in _COLUMNS), strict=True))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: expected a Parquet file, found {reason}") from None


def unused_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that are not read. Raises InputError where it cannot be read."""
    try:
        return [name for name in pq.read_schema(path).names if name not in _COLUMNS]
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: expected a Parquet file, found {reason}") from None


def entry_of(row: Row, now_ms: int) -> Entry | Fault:
    """The row as an entry of the log, or why it is none. `now_ms` is platform time: what is ahead of it is refused."""
    event = Interaction(
        user_id=row.user_id or "",
        item_id=row.item_id or "",
        event_id=row.event_id or _event_id(row),
        play_ms=row.play_ms,
        duration_ms=row.duration_ms,
        value_micros=row.value_micros,
        currency=row.currency or "",
        request_id=row.request_id or "",
        surface=row.surface or "",
        session_id=row.session_id or "",
        origin=Origin.ORIGIN_IMPORTED,
    )
    action = _ACTIONS.get((row.action or "").lower())
    if action is None:
        return Fault("action", f"found {row.action!r}, expected one of {', '.join(_ACTIONS)}")
    event.action = action
    if row.occurred_at is None or not 0 <= row.occurred_at < _LAST_MS:
        return Fault("occurred_at", f"found {row.occurred_at} ms since 1970, expected a time between 2000 and now")
    event.occurred_at.FromMilliseconds(row.occurred_at)
    if (row.latitude is None) != (row.longitude is None):
        return Fault("latitude, longitude", "found one of the two, expected both or none")
    if row.latitude is not None and row.longitude is not None:
        event.location.latitude, event.location.longitude = row.latitude, row.longitude
    fault = interaction_fault(event, now_ms)
    if fault is not None:
        return fault
    return Entry(row.occurred_at, event.user_id, Activity(interaction=event).SerializeToString())


def _event_id(row: Row) -> str:
    """The same for the same row in every run, another for any other row."""
    content = "\x1f".join("" if value is None else repr(value) for value in row)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _values(path: Path, name: str, column: Any) -> list[Any]:
    try:
        if name in ("user_id", "item_id") and pa.types.is_floating(column.type):
            raise pa.ArrowInvalid("identities that are floating-point numbers")
        if name == "occurred_at":
            if pa.types.is_integer(column.type):
                column = column.cast(pa.int64())
            column = column.cast(_TIME, safe=False).cast(pa.int64())  # finer than milliseconds is cut off
        else:
            column = column.cast(_COLUMNS[name])
        return list(column.to_pylist())
    except pa.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: column {name}: expected {_COLUMNS[name]}, found {reason}") from None
