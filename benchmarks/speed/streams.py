"""Speed of the stream workers, beside other libraries around the same driver, folds and PostgreSQL store.

make bench
make bench BENCH='--quick'
make bench BENCH='--case frames --case single --system nearfeed --system plain'
"""

import tempfile
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from benchmarks.speed.rows import Row, table_of, write_rows
from benchmarks.speed.systems import SYSTEMS
from core.clock import PlatformClock
from core.errors import NearfeedError

with warnings.catch_warnings():  # Feast changes the filters: it would show every library's notes
    from benchmarks.speed.cases import CASES, Plan
    from benchmarks.speed.ground import prepared_ground

_ROOT: Final = Path(__file__).resolve().parents[2]
_RESULTS: Final = _ROOT / "benchmarks" / "results" / "streams.json"
_PARTIAL: Final = _ROOT / "var" / "bench" / "streams.json"  # of a run that is not, or not yet, the whole one

_QUICK: Final = ("frames", "fresh", "reads")

Case = StrEnum("Case", list(CASES))  # type: ignore[misc]  # mypy wants the names spelled out
Name = StrEnum("Name", [system.name for system in SYSTEMS])  # type: ignore[misc]


def main(
    case: Annotated[list[Case] | None, typer.Option(help="Only this case; may be repeated.")] = None,
    system: Annotated[list[Name] | None, typer.Option(help="Only this system; may be repeated.")] = None,
    events: Annotated[int, typer.Option(min=10_000, help="Events of a run with full frames and one worker.")] = 400_000,
    users: Annotated[int, typer.Option(min=1_000, help="Users, drawn by Zipf 1.0.")] = 100_000,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of every system in the compared cases.")] = 3,
    rate: Annotated[
        float | None, typer.Option(min=1.0, help="Events a second of the case `fresh`; half of the capacity if absent.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run of three cases, to see that all is in order.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="JSON file; only a whole run writes to benchmarks/results.")
    ] = None,
) -> None:
    """Measure the stream workers beside other libraries doing the same work.

    Everything runs here: Kafka, PostgreSQL, the systems one after another. Close other programs first.

    Examples:

        make bench

        make bench BENCH='--quick'

        make bench BENCH='--case frames --case single --system nearfeed --system plain'

        make bench BENCH='--case fresh --system nearfeed --rate 15000'
    """
    if quick:
        case, events, users, repeats = case or [Case(name) for name in _QUICK], 40_000, 10_000, 1
    whole = not (case or system or quick or rate)
    written = output or (_RESULTS if whole else _PARTIAL)
    console = Console()
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="nearfeed-bench-") as home:
            folder = Path(home)
            with prepared_ground(folder, jars=_ROOT / "var" / "kafka-jars") as ground:
                plan = Plan(
                    ground,
                    [one for one in SYSTEMS if system is None or one.name in system],
                    events,
                    users,
                    repeats,
                    5.0 if quick else 20.0,
                    rate,
                    PlatformClock().now_ms(),
                    folder,
                    lambda text: console.print(text, style="dim"),
                )
                for name in case or CASES:
                    rows += CASES[name](plan)
                    write_rows(rows, _PARTIAL)  # a later case may fail
    except NearfeedError as error:
        console.print(f"bench: {error}", style="red")
        raise typer.Exit(1) from None
    write_rows(rows, written)
    console.print(table_of(rows))
    console.print(f"rows are in {written}")


if __name__ == "__main__":
    typer.run(main)
