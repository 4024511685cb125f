"""The command line: verbs in the order of the data.

    nearfeed topics apply · features apply · train · serve · stream · ask · learn · models · demo

Each verb reads the settings, builds the parts and runs them; the work is elsewhere. Imports stand inside
the verbs so that `--help` is quick and serving never loads the training framework.

Exit codes: 0 done, 1 the work failed, 2 asked wrongly.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table

from core.errors import NearfeedError
from core.settings import Settings, explain, load
from core.telemetry import configure_logging

app = typer.Typer(
    name="nearfeed",
    help="Nearfeed: streaming, real-time, generative recommendation.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
settings_app = typer.Typer(no_args_is_help=True, help="What this process would run with.")
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics.")
features_app = typer.Typer(no_args_is_help=True, help="Feast definitions and a user's features.")
rejects_app = typer.Typer(no_args_is_help=True, help="What could not be applied.")
serve_app = typer.Typer(no_args_is_help=True, help="The gRPC servers.")
models_app = typer.Typer(no_args_is_help=True, help="Published versions.")
app.add_typer(settings_app, name="settings")
app.add_typer(topics_app, name="topics")
app.add_typer(features_app, name="features")
app.add_typer(serve_app, name="serve")
app.add_typer(rejects_app, name="rejects")
app.add_typer(models_app, name="models")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of a table.")]


def main() -> None:
    """Run the command line; a NearfeedError becomes one line and its exit code."""
    try:
        code = app(standalone_mode=False)
    except NearfeedError as error:
        print(f"nearfeed: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except (click.Abort, KeyboardInterrupt):
        print("nearfeed: interrupted", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(code or 0)


def _settings(process: str) -> Settings:
    settings = load()
    configure_logging(settings.telemetry.log_level, process)
    return settings


def _show(rows: list[dict[str, Any]], as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
        return
    table = Table(title=title)
    for column in rows[0] if rows else ["nothing"]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


@settings_app.command("show")
def settings_show(as_json: AsJson = False) -> None:
    """Every setting, its value, and where it came from. Secrets are masked.

    Example: `NEARFEED_STREAMS__HORIZON_S=600 nearfeed settings show`
    """
    _show([value._asdict() for value in explain()], as_json, "Settings: environment over file over default")


@topics_app.command("apply")
def topics_apply(as_json: AsJson = False) -> None:
    """Make the topics that are missing; refuse a broker that disagrees about one."""
    from core.topics_admin import apply_topics

    _show([state._asdict() for state in apply_topics(_settings("topics").kafka)], as_json, "Topics")
