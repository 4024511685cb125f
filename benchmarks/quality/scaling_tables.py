"""The scaling rows as people read them: a table and two charts."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.quality.scaling_data import PER_REQUEST
from benchmarks.quality.scaling_rows import Row


def table_of(rows: Sequence[Row]) -> Table:
    """The rows as a person reads them."""
    table = Table(title=f"Scaling: {PER_REQUEST} items share a context", title_justify="left")
    for name in ("part", "data", "model", "seed"):
        table.add_column(name)
    for name in ("weights", "N", "requests", "loss", "95 %", "R@10", "GFLOP", "formula", "of twin", "ms p50", "s"):
        table.add_column(name, justify="right")
    part = None
    for row in rows:
        if part not in (None, row.part):
            table.add_section()
        part = row.part
        between = None if row.low is None else f"{row.low:.3f} .. {row.high:.3f}"
        shown = (row.part, row.data, row.model, row.seed, row.weights, row.tokens, row.requests, row.loss, between)
        costs = (row.recall_at_10, row.gflops, row.gflops_formula, row.share_of_twin, row.latency_p50_ms, row.seconds)
        table.add_row(*(_text(value) for value in (*shown, *costs)))
    return table


def draw(rows: Sequence[Row], path: Path) -> None:
    """`path` holds two charts: what a request costs over its context, and loss over size for each share of data."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    cost, size = figure.subplots(1, 2)
    for model in ("twin", "lazy"):
        costs = sorted((row.tokens, row.gflops) for row in rows if row.part == "cost" and row.model == model)
        if costs:
            cost.plot(*zip(*costs, strict=True), marker=".", label=model)
    cost.set(xlabel="context tokens", ylabel="GFLOP a request, training", xscale="log", yscale="log")
    sized = [row for row in rows if row.part == "size"]
    for requests in sorted({row.requests for row in sized if row.requests is not None}):
        losses = sorted((row.weights, row.loss) for row in sized if row.requests == requests)
        size.plot(*zip(*losses, strict=True), marker=".", label=f"{requests:,} requests")
    size.set(xlabel="weights of the blocks", ylabel="loss, nats a code", xscale="log")
    for axes in (cost, size):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
