"""What it costs that a new item has neighbours at once, by the size of the catalogue: when it joins, and in every
request afterwards; beside counting the tables again.

python -m benchmarks.speed.newcomers

Items say words of a Zipf-like vocabulary and stand in a city, people walk at random among them. Requests are asked with
and without newcomers in turn.
"""

import time
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from models.evidence import DEPTH, Lent, Neighbours, near_items
from models.neighbours import neighbour_tables
from models.newcomers import Newcomers
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location

SIZES: Final = (3_000, 12_000, 48_000)
CAME: Final = (256, 2_048)
REPEATS: Final = 200  # requests, of which the median is shown
_ACTS: Final = 8  # of a person; there are as many people as items
_WORDS: Final = 20_000


def main() -> None:
    """The command above."""
    table = Table(title="New items have neighbours at once, one thread", title_justify="left")
    for name in ("items", "counting all, s", "joining, ms", "a request, ms", *(f"{n:,} newcomers, ms" for n in CAME)):
        table.add_column(name, justify="right")
    for size in SIZES:
        counted_s, joining_ms, requests_ms = measured(size)
        cells = (f"{counted_s:.1f}", f"{joining_ms:.1f}", *(f"{ms:.2f}" for ms in requests_ms))
        table.add_row(f"{size:,}", *cells)
    Console().print(table)


def measured(size: int) -> tuple[float, float, list[float]]:
    """Seconds to count the tables, milliseconds until an item has joined, one at a time, and of a request: without
    newcomers, and with each number of CAME."""
    rng = np.random.default_rng(size)
    items = _items(rng, size + CAME[-1])
    sequences = list(rng.integers(0, size, (size, _ACTS)))
    began_s = time.perf_counter()
    tables = neighbour_tables(items[:size], sequences)
    counted_s = time.perf_counter() - began_s
    newcomers = Newcomers(items[:size], tables, len(items))
    joining_s, stages = [], [(tables, newcomers.lent)]
    for number, item in enumerate(items[size:]):
        began_s = time.perf_counter()
        newcomers.join([item])
        joining_s.append(time.perf_counter() - began_s)
        if number + 1 in CAME:
            stages.append((newcomers.tables, newcomers.lent))
    histories = rng.integers(0, size, (REPEATS, 1, DEPTH))
    took_ms = [[_took_ms(history, *stage) for stage in stages] for history in histories]
    return counted_s, 1000 * float(np.median(joining_s)), np.median(took_ms, axis=0).tolist()


def _took_ms(history: np.ndarray, tables: tuple[Neighbours, ...], lent: Lent) -> float:
    began_s = time.perf_counter()
    near_items(history, tables, lent=lent)
    return 1000 * (time.perf_counter() - began_s)


def _items(rng: np.random.Generator, count: int) -> list[Item]:
    words = np.minimum(rng.zipf(1.3, (count, 6)), _WORDS)
    points = rng.normal((40.7, -74.0), 0.05, (count, 2))
    return [
        Item(
            item_id=str(number),
            title=" ".join(f"w{word}" for word in said),
            location=Location(latitude=latitude, longitude=longitude),
        )
        for number, (said, (latitude, longitude)) in enumerate(zip(words.tolist(), points.tolist(), strict=True))
    ]


if __name__ == "__main__":
    main()
