"""What every verb of the command line begins and ends with: its settings; a table for people, JSON for machines."""

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.settings import Settings, load
from core.telemetry import configure_logging

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of a table.")]


def show_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, title: str) -> None:
    """The rows are on standard output; their columns are those of the first."""
    if as_json:
        print(json.dumps(list(rows), indent=2, default=str))
        return
    table = Table(title=title)
    for column in rows[0] if rows else ["nothing"]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(markup=False).print(table)  # brackets in names and reasons are text


def configured(process: str) -> Settings:
    """The settings of this process, whose log goes to standard error under its name from now on."""
    settings = load()
    configure_logging(settings.telemetry.log_level, process)
    return settings


def load_feast() -> None:
    """Feast is imported, without its change to the warning filters: it shows its users every library's notes."""
    with warnings.catch_warnings():
        importlib.import_module("feast")
