"""cell_popularity: what people engage with around a place and everywhere.

A cell is no user, so acts on it come from many partitions: each partition keeps a partial sum of its
own, and `merged` adds them where a row is read. Everything decays with a half-life of hours: sums are those
as of `updated_ms`, which follows the newest act by steps of STEP_MS; an act after it counts a little more than
its weight.

`context` sums the vectors of the items acted on: what is liked around here, in the space of items.

POPULAR counters cover any number of items by the Space-Saving rule (Metwally, Agrawal and El Abbadi,
ICDT 2005), applied to decayed weights: an item without a counter takes over the smallest one and its
score. So a score may be too high by at most total weight / POPULAR, and no item above that is missing.
Counters stand in the order in which they were taken; merged rows are best first.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.geo import cell_name, cell_of
from feature_repo.folds.compiled import compiled, signed
from feature_repo.layouts import CELLS, DIM, POPULAR

HALF_LIFE_MS: Final = 6 * 3600 * 1000  # lunch is not dinner; a local trend lives for hours
RESOLUTION: Final = 7  # H3: about 5 km2, a city district
STEP_MS: Final = 60_000  # sums are moved on in time by no less: float32 would round finer decays away, or double them


class CellState(NamedTuple):
    """A row, opened."""

    updated_ms: int
    scores: tuple[tuple[int, float], ...]  # (item key, score), best first, at most POPULAR


EMPTY: Final = CellState(0, ())


def cell_key(latitude: float, longitude: float, location_resolution: int) -> str:
    """The entity key of the cell whose popularity a point belongs to; never finer than locations may be kept."""
    return cell_name(popular_cell(latitude, longitude, location_resolution))


def popular_cell(latitude: float, longitude: float, location_resolution: int) -> int:
    """The same as H3 index."""
    return cell_of(latitude, longitude, min(RESOLUTION, location_resolution))


@compiled
def fold(row: Any, entry: Any, vectors: Any) -> None:
    """`row` (CELLS) after one act around it; `vectors` (I, DIM) are those of the catalogue."""
    if entry.weight == 0.0:
        return
    if entry.at_ms - row.updated_ms >= STEP_MS:
        _decay(row, 0.5 ** ((entry.at_ms - row.updated_ms) / HALF_LIFE_MS))
        row.updated_ms = entry.at_ms
    weight = np.float32(entry.weight * 0.5 ** ((row.updated_ms - entry.at_ms) / HALF_LIFE_MS))
    _add(row, entry.item, weight)
    if weight > 0.0 and entry.place >= 0:
        row.weight += weight
        for at in range(DIM):
            row.context[at] += weight * vectors[entry.place, at]


@compiled
def _decay(row: Any, share: float) -> None:
    row.weight = np.float32(row.weight * share)
    for at in range(DIM):
        row.context[at] = np.float32(row.context[at] * share)
    for place in range(row.length):
        row.score[place] = np.float32(row.score[place] * share)


@compiled
def _add(row: Any, item: int, weight: Any) -> None:
    length = signed(row.length)
    for place in range(length):
        if row.item[place] == item:
            row.score[place] = max(np.float32(0.0), row.score[place] + weight)
            return
    if weight <= 0.0:
        return
    if length < POPULAR:
        row.item[length] = item
        row.score[length] = weight
        row.length = length + 1
        return
    least = 0
    for place in range(1, POPULAR):
        if row.score[place] < row.score[least]:
            least = place
    row.item[least] = item
    row.score[least] += weight


def merged(partials: NDArray[np.void]) -> NDArray[np.void]:
    """One CELLS row, (1,): the sum of partial sums as of the newest of them, best first; zeros of none."""
    row = np.zeros(1, CELLS)
    if not len(partials):
        return row
    newest = int(partials["updated_ms"].max())
    shares = 0.5 ** ((newest - partials["updated_ms"]) / HALF_LIFE_MS)
    used = np.arange(POPULAR) < partials["length"][:, None]
    items, at = np.unique(partials["item"][used], return_inverse=True)
    total = np.bincount(at, (partials["score"] * shares[:, None])[used], len(items))
    best = np.lexsort((items, -total))[:POPULAR]
    row["updated_ms"] = newest
    row["weight"] = partials["weight"] @ shares
    row["context"] = shares @ partials["context"]
    row["length"] = len(best)
    row["item"][0, : len(best)] = items[best]
    row["score"][0, : len(best)] = total[best]
    return row


def opened(row: np.void | NDArray[np.void]) -> CellState:
    """The scores that a merged row holds."""
    length = int(row["length"])
    scores = zip(row["item"][:length].tolist(), row["score"][:length].tolist(), strict=True)
    return CellState(int(row["updated_ms"]), tuple(scores))


def top_of(states: Sequence[CellState]) -> CellState:
    """Several merged cells as one, e.g. a place and the cells around it."""
    newest = max((state.updated_ms for state in states), default=0)
    total: dict[int, float] = {}
    for state in states:
        share = 0.5 ** ((newest - state.updated_ms) / HALF_LIFE_MS)
        for item, score in state.scores:
            total[item] = total.get(item, 0.0) + score * share
    return CellState(newest, tuple(sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))[:POPULAR]))
