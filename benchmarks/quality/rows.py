"""What was measured, as rows: benchmarks/results/quality.json for programs, a table and a chart for people."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.table import Table

_KEY: Final = ("data", "protocol", "group", "seen", "metric", "model")


class Row(NamedTuple):
    """One figure of one model. low, high: paired bootstrap over users at 95 %."""

    protocol: str
    data: str
    model: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    seeds: int
    command: str  # what repeats the row
    seen: str = ""  # "ranked", or "masked": what the user had before is left out
    group: str = "all"
    asked: int = 0
    seed_low: float | None = None  # lowest and highest of the seeds' means
    seed_high: float | None = None
    baseline: str = ""  # what the gain is against
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_holm: float | None = None  # of the gain, beside the other models of the same command
    trials: int = 0  # settings that were tried at the valid stage
    setting: str = ""  # the one that was chosen
    published: bool = False  # taken from a paper, not run here
    note: str = ""


def read_rows(path: Path) -> list[Row]:
    """The rows of the file, none when there is no file."""
    return [Row(**row) for row in json.loads(path.read_text("utf-8"))] if path.exists() else []


def merge_rows(rows: Sequence[Row], path: Path) -> list[Row]:
    """`path` holds `rows` and whatever it held of other figures, ordered by figure; so a queue can be interrupted."""
    key = {tuple(getattr(row, name) for name in _KEY): row for row in (*read_rows(path), *rows)}
    merged = [key[name] for name in sorted(key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("[\n" + ",\n".join(json.dumps(_rounded(row)) for row in merged) + "\n]\n", "utf-8")
    partial.replace(path)
    return merged


def table_of(rows: Sequence[Row]) -> Table:
    """The rows of one or more questions as a person reads them: a line per model, a column per metric.

    A cell holds the mean and half its interval; below, the same of the gain over the baseline, with a star where
    Holm's correction leaves it below 5 %.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = Table(
        title="Quality ± half the 95 % interval over users; below, the gain over the baseline", title_justify="left"
    )
    table.add_column("model", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.data, row.group, row.seen, row.model), {})[row.metric] = row
    section: tuple[str, ...] | None = None
    for (data, group, seen, model), cells in sorted(lines.items(), key=lambda line: line[0][:3]):
        if section != (data, group, seen):
            section = (data, group, seen)
            told = ", ".join(part for part in (data, group, "seen items masked" if seen == "masked" else "") if part)
            table.add_section()
            table.add_row(f"[bold]{told}: {next(iter(cells.values())).asked} asked[/bold]")
        row = next(iter(cells.values()))
        mark = " (published)" if row.published else f" ({row.seeds} seeds)" if row.seeds > 1 else ""
        table.add_row(model + mark, *(_cell(cells[metric]) if metric in cells else "" for metric in metrics))
    return table


def draw(rows: Sequence[Row], path: Path) -> None:
    """A picture at `path`: one panel per data set and metric, one bar per model with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = list(dict.fromkeys((row.data, row.metric, row.seen) for row in rows))
    if not figures:
        return
    figure, panels = pyplot.subplots(len(figures), 1, figsize=(8, 2.6 * len(figures)), squeeze=False)
    for panel, (data, metric, seen) in zip(panels[:, 0], figures, strict=True):
        bars = sorted((row for row in rows if (row.data, row.metric, row.seen) == (data, metric, seen)), key=_mean)
        below = [row.mean - (row.mean if row.low is None else row.low) for row in bars]
        above = [(row.mean if row.high is None else row.high) - row.mean for row in bars]
        names = [row.model + (" (published)" if row.published else "") for row in bars]
        panel.barh(names, [row.mean for row in bars], xerr=[below, above], color="#4c78a8", ecolor="#333333")
        panel.set_title(f"{data}: {metric}{', seen items masked' if seen == 'masked' else ''}", loc="left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _mean(row: Row) -> float:
    return row.mean


def _rounded(row: Row) -> dict[str, object]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row._asdict().items()}


def _cell(row: Row) -> str:
    cell = f"{row.mean:.4f}{_half(row.low, row.high)}"
    if row.gain is None:
        return cell
    star = "*" if row.p_holm is not None and row.p_holm < 0.05 else " "
    return f"{cell} \n{row.gain:+.4f}{_half(row.gain_low, row.gain_high)}{star}"


def _half(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"±{(high - low) / 2:.4f}"
