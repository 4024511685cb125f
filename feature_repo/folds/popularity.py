"""cell_popularity: which items people engage with, around a place and everywhere.

A cell is no user, so acts on it come from many partitions: each partition keeps a partial sum of its
own, and `merged` adds them where a row is read. Scores decay with a half-life of hours.

POPULAR counters cover any number of items by the Space-Saving rule (Metwally, Agrawal and El Abbadi,
ICDT 2005), applied to decayed weights: an item without a counter takes over the smallest one and its
score. So a score may be too high by at most total weight / POPULAR, and no item above that is missing.

Stored form: scores float32 at `updated_ms`, best first; `fold` rounds to it, and a record is one fold.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.geo import cell_name, cell_of
from feature_repo.folds.act import Act
from feature_repo.layouts import CELLS, GLOBAL_CELL, POPULAR

HALF_LIFE_MS: Final = 6 * 3600 * 1000  # lunch is not dinner; a local trend lives for hours
RESOLUTION: Final = 7  # H3: about 5 km2, a city district

_ROW: Final = struct.Struct(f"<qH{POPULAR}q{POPULAR}f")


class CellState(NamedTuple):
    """One partial sum, opened."""

    updated_ms: int
    scores: tuple[tuple[int, float], ...]  # (item key, score), best first, at most POPULAR


EMPTY: Final = CellState(0, ())


def cell_key(latitude: float, longitude: float, location_resolution: int) -> str:
    """The entity key of the cell whose popularity a point belongs to; never finer than locations may be kept."""
    return cell_name(cell_of(latitude, longitude, min(RESOLUTION, location_resolution)))


def cells_of(act: Act, location_resolution: int) -> tuple[str, ...]:
    """The entity keys of the cells that `act` counts for: everywhere, and around the user where known."""
    if act.latitude != act.latitude:
        return (GLOBAL_CELL,)
    return GLOBAL_CELL, cell_key(act.latitude, act.longitude, location_resolution)


def fold(state: CellState, acts: Sequence[Act]) -> CellState:
    """The state after the acts that one record brings to one cell, in order."""
    newest = max(state.updated_ms, *(act.at_ms for act in acts)) if acts else state.updated_ms
    scores = _at(state, newest)
    for act in acts:
        if act.weight == 0.0:
            continue
        weight = act.weight * 0.5 ** ((newest - act.at_ms) / HALF_LIFE_MS)
        score = scores.get(act.item_key)
        if score is not None:
            scores[act.item_key] = max(0.0, score + weight)
        elif weight > 0.0:
            taken_over = 0.0
            if len(scores) >= POPULAR:
                least = min(scores, key=scores.__getitem__)  # of equals the one that has stood longest
                taken_over = scores.pop(least)
            scores[act.item_key] = taken_over + weight
    return CellState(newest, _best(scores))


def merged(partials: Sequence[CellState]) -> CellState:
    """The sum of partial sums, as of the newest of them."""
    newest = max((partial.updated_ms for partial in partials), default=0)
    total: dict[int, float] = {}
    for partial in partials:
        for item, score in _at(partial, newest).items():
            total[item] = total.get(item, 0.0) + score
    return CellState(newest, _best(total))


def pack(state: CellState) -> bytes:
    """The row of a state."""
    items, scores = zip(*state.scores, strict=True) if state.scores else ((), ())
    unused = (0,) * (POPULAR - len(items))
    return _ROW.pack(state.updated_ms, len(items), *items, *unused, *scores, *unused)


def unpack(row: bytes) -> CellState:
    """The state that `row` holds."""
    flat = _ROW.unpack(row)
    length = flat[1]
    return CellState(flat[0], tuple(zip(flat[2 : 2 + length], flat[2 + POPULAR : 2 + POPULAR + length], strict=True)))


def rows_of(states: Sequence[CellState]) -> NDArray[np.void]:
    """The states as one array of CELLS, (len(states),)."""
    return np.frombuffer(b"".join(map(pack, states)), CELLS)


def _at(state: CellState, now_ms: int) -> dict[int, float]:
    decay = 0.5 ** ((now_ms - state.updated_ms) / HALF_LIFE_MS)
    return {item: score * decay for item, score in state.scores}


def _best(scores: dict[int, float]) -> tuple[tuple[int, float], ...]:
    """Best first, ties by item; rounded to float32."""
    kept = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:POPULAR]
    rounded = np.array([score for _, score in kept], np.float32).tolist()
    return tuple((item, score) for (item, _), score in zip(kept, rounded, strict=True))
