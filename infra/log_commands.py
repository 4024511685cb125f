"""`nearfeed archive`, `replay`, `backfill` and `forget`: what is done with the log of activity as a whole."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import NearfeedError
from infra.terminal import AsJson, configured, show_rows


def archive_command(
    once: Annotated[bool, typer.Option("--once", help="Archive up to the topic's present end, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow activity.v1 into the archive: Parquet segments by day, which replays, training and backfills read.

    Ends with 0 on SIGTERM after writing what it holds; can be killed at any moment, and goes on where the archive
    ends. One process writes an archive.

    Example: `nearfeed archive --once`
    """
    import signal
    import threading

    from streams.archiver import run_archiver

    settings = configured("archive")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    archived = run_archiver(settings, once=once, stop=stop, clock=settings.clock.clock())
    show_rows([one._asdict() for one in archived], as_json, f"Archive in {settings.archive.home}")


def replay_command(
    verify: Annotated[bool, typer.Option("--verify", help="Compare with what serves; 1 when they differ.")] = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="Let the replayed tables serve; with --verify only when they are equal.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fold the whole log again beside what serves, from archive and topic, under the present catalogue and layout.

    --verify compares row by row at the very place where the serving side stands. --switch exchanges the tables in one
    transaction; running workers are fenced and go on from the replayed cursors once they are started again. What
    served before stays in the schema that ends with _previous until the next switch.

    Example: `nearfeed replay --verify --switch`
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from streams.replay import Progress, replay

    settings = configured("replay")
    clock = settings.clock.clock()
    began_s = clock.monotonic_s()
    console = Console(stderr=True)
    columns = ("records", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console) as bars:
        bar = bars.add_task("records", total=0)
        report = replay(
            settings,
            verify=verify,
            switch_over=switch,
            clock=clock,
            progress=Progress(
                lambda more: bars.update(bar, total=(bars.tasks[0].total or 0) + more),
                lambda more: bars.advance(bar, more),
            ),
        )
    took_s = clock.monotonic_s() - began_s
    events = sum(partition.events for partition in report.partitions)
    if as_json:
        said = {
            "partitions": [partition._asdict() for partition in report.partitions],
            "compared": [table._asdict() for table in report.compared],
            "switched": report.switched,
            "seconds": round(took_s, 3),
            "events_per_s": round(events / took_s),
        }
        print(json.dumps(said, indent=2))
    else:
        title = f"Replay: {events} events in {took_s:.1f} s, {events / took_s:.0f} events/s"
        show_rows([partition._asdict() for partition in report.partitions], False, title)
        if report.compared:
            told_below = ("left_out", "examples")
            rows = [
                {name: value for name, value in table._asdict().items() if name not in told_below}
                for table in report.compared
            ]
            show_rows(rows, False, "Compared with what serves")
            for table in report.compared:
                if table.examples:
                    print(f"{table.table}: not equal, for example {', '.join(table.examples)}")
                if table.left_out:
                    print(f"{table.table}: not compared, {table.left_out}")
        print("the replayed tables serve" if report.switched else "what serves is untouched")
    if not all(table.same for table in report.compared):
        raise SystemExit(1)


def backfill_command(
    files: list[Path],
    replace: Annotated[bool, typer.Option("--replace", help="Put these files in the place of earlier ones.")] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave invalid rows out; else one of them stops it all.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a team's existing log, Parquet files, the prehistory of activity.v1; `nearfeed replay --switch` folds it.

    Columns: user_id, item_id, action (play, like, ...), occurred_at; and where known event_id, play_ms, duration_ms,
    value_micros, currency, latitude, longitude, request_id, surface, session_id. All files in one call, in any order.

    Example: `nearfeed backfill events-2026-10.parquet events-2026-11.parquet`
    """
    from rich.progress import Progress as Bars

    from core.clock import as_datetime
    from streams.activity_log import activity_topic
    from streams.backfill import backfill

    settings = configured("backfill")
    with Bars("rows", "{task.completed}", console=Console(stderr=True)) as bars:
        bar = bars.add_task("rows", total=None)
        done = backfill(
            files,
            settings.archive,
            activity_topic(settings.kafka),
            settings.kafka.activity_partitions,
            now_ms=settings.clock.clock().now_ms(),
            replace=replace,
            skip_invalid=skip_invalid,
            read=lambda more: bars.advance(bar, more),
        )
    invalid = [{"file": str(one.file), "row": one.row, **one.fault._asdict()} for one in done.listed]
    written = done._asdict() | {
        "first": as_datetime(done.first_ms).isoformat() if done.frames else "",
        "last": as_datetime(done.last_ms).isoformat() if done.frames else "",
    }
    for replaced in ("listed", "first_ms", "last_ms"):
        del written[replaced]
    if as_json:
        print(json.dumps(written | {"invalid_rows": invalid}, indent=2))
    else:
        if invalid:
            show_rows(invalid, False, f"Invalid rows, {len(invalid)} of {done.invalid}")
        show_rows([written], False, f"Prehistory in {settings.archive.home}")
    if done.invalid and not skip_invalid:
        raise NearfeedError(
            f"found {done.invalid} invalid rows of {done.rows}, expected none; nothing was written: mend them, or "
            "leave them out with --skip-invalid"
        )


def forget_command(
    user_id: str,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for the worker and the archiver.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Forget one user: a tombstone in the log, after which state and archive hold nothing from before it.

    Says what was removed where, and what remains for how long. Ends with 1 when a worker or the archiver has not
    passed the tombstone in time; it stands all the same.

    Example: `nearfeed forget 12345`
    """
    from streams.forget import forget

    settings = configured("forget")
    done = forget(settings, user_id, timeout_s=timeout_s, clock=settings.clock.clock())
    if as_json:
        print(json.dumps(done._asdict() | {"places": [place._asdict() for place in done.places]}, indent=2))
    else:
        title = f"Forgotten; the tombstone stands at activity.v1/{done.partition}@{done.offset}"
        show_rows([place._asdict() for place in done.places], False, title)
    if done.waiting:
        raise NearfeedError("; ".join(done.waiting))
