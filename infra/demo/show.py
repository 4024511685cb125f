"""What the person at the terminal sees: steps with their times, progress, tables.

On a terminal progress is a bar; elsewhere (a log, CI) it is a line every few seconds, so that something
always moves.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_LINE_EVERY_S: Final = 5.0


class Show:
    """The demo's voice."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_s = time.monotonic()
        self._progress: Progress | None = None

    def step(self, title: str) -> None:
        """A new step of the demo begins."""
        self._console.print(f"[bold][{self._elapsed()}] {title}[/bold]", highlight=False)

    def say(self, text: str) -> None:
        """Something worth knowing within a step."""
        self._console.print(f"        {text}", highlight=False, soft_wrap=True)

    def fail(self, text: str) -> None:
        """The demo cannot go on, or found something wrong."""
        self._console.print(f"[bold red]{text}[/bold red]", highlight=False)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator["Bar"]:
        """A bar that the caller moves; it goes when the block ends."""
        columns = (TextColumn("        {task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        with Progress(
            *columns, TimeElapsedColumn(), console=self._console, transient=True, disable=not self._console.is_terminal
        ) as shown:
            yield Bar(self, shown, title, total)

    def table(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows with the same keys as a table."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in rows[0] if rows else ("nothing",):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_text(value) for value in row.values()))
        self._console.print(table)

    @property
    def is_terminal(self) -> bool:
        """Whether bars can be drawn."""
        return self._console.is_terminal

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._started_s)
        return f"{seconds // 60:d}:{seconds % 60:02d}"


class Bar:
    """Progress of one thing."""

    def __init__(self, show: Show, shown: Progress, title: str, total: float) -> None:
        self._show, self._shown, self._title, self._total = show, shown, title, total
        self._task = shown.add_task(title, total=total, note="")
        self._said_s = time.monotonic()

    def at(self, done: float, note: str = "") -> None:
        """The thing has come to `done` of its total."""
        self._shown.update(self._task, completed=done, note=note)
        now = time.monotonic()
        if not self._show.is_terminal and now - self._said_s >= _LINE_EVERY_S:
            self._said_s = now
            share = min(100, round(100 * done / self._total)) if self._total else 100
            self._show.say(f"{self._title}: {share} % {note}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
