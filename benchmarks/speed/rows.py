"""What was measured, as rows: benchmarks/results/streams.json for programs, a table for people."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table


class Row(NamedTuple):
    """One case of one system; None where the case does not measure it. Medians over the repeats."""

    case: str
    system: str
    workers: int
    events_per_s: float | None  # of all workers together, on the wall clock
    cpu_us_per_event: float | None  # user and system time of the worker processes, all threads
    freshness_p50_ms: float | None  # broker's acknowledgement -> readable through Feast
    freshness_p99_ms: float | None
    command: str  # what repeats the row
    users: int | None = None
    partitions: int | None = None
    events: int | None = None  # in the window that was measured
    repeats: int = 1
    events_per_s_spread: tuple[float, float] | None = None  # lowest, highest
    cpu_us_spread: tuple[float, float] | None = None
    postgres_us_per_event: float | None = None  # CPU of the PostgreSQL processes, for information
    freshness_store_p50_ms: float | None = None  # ... -> readable through PackedStore, before Feast's own cost
    freshness_store_p99_ms: float | None = None
    read_p50_ms: float | None = None  # one read of 32 users
    read_p99_ms: float | None = None
    memory_mb: float | None = None  # resident memory that 100,000 cached users add to a worker
    note: str = ""


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """`path` holds the rows as a JSON list of objects, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(_rounded(row)) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", "utf-8")


def table_of(rows: Sequence[Row]) -> Table:
    """The rows as a person reads them."""
    table = Table(title="Streams: medians, with lowest and highest of the repeats", title_justify="left")
    table.add_column("case")
    table.add_column("system")
    for name in ("workers", "events/s", "CPU µs/event", "PostgreSQL µs", "fresh p50/p99 ms", "read p50/p99 ms", "MB"):
        table.add_column(name, justify="right")
    table.add_column("note")
    case = None
    for row in rows:
        if case not in (None, row.case):
            table.add_section()
        case = row.case
        table.add_row(
            _label(row),
            row.system,
            str(row.workers),
            _spread(row.events_per_s, row.events_per_s_spread, 0),
            _spread(row.cpu_us_per_event, row.cpu_us_spread, 1),
            _number(row.postgres_us_per_event, 1),
            _pair(row.freshness_p50_ms, row.freshness_p99_ms),
            _pair(row.read_p50_ms, row.read_p99_ms),
            _number(row.memory_mb, 0),
            row.note,
        )
    return table


def _label(row: Row) -> str:
    """The case, with what grows in it."""
    grows = {"users": row.users, "partitions": row.partitions}.get(row.case)
    return row.case if grows is None else f"{grows:,} {row.case}"


def _rounded(row: Row) -> dict[str, object]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row._asdict().items()}


def _spread(median: float | None, spread: tuple[float, float] | None, digits: int) -> str:
    if median is None or spread is None or spread[0] == spread[1]:
        return _number(median, digits)
    return f"{_number(median, digits)} ({_number(spread[0], digits)}-{_number(spread[1], digits)})"


def _pair(p50: float | None, p99: float | None) -> str:
    return "" if p50 is None else f"{_number(p50, 2)} / {_number(p99, 2)}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
