"""user_places: where a person is, lives and works, as coarse as the platform allows.

A location exists in the log only where the user consents; here it is first snapped to the centre of
its H3 cell at the resolution of the setting `streams.location_resolution`, so that nothing finer is
kept anywhere. Home and work are guesses from counts at local solar time (UTC + longitude / 15 h):
without a time zone database, and at most about an hour from the clock on the wall, which the wide
windows below forgive.

Stored form: positions and radius float32; `seal` rounds to it once per record.
"""

import math
import struct
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from core.geo import cell_of, centre_of, distance_m
from feature_repo.folds.act import Act
from feature_repo.layouts import PLACE_CELLS

NIGHT_HOURS: Final = frozenset((22, 23, 0, 1, 2, 3, 4, 5))
WORK_HOURS: Final = frozenset(range(9, 17))
WORK_DAYS: Final = frozenset(range(5))  # Monday .. Friday
MIN_ACTS: Final = 3  # fewer at night (or at work) name no home (or work)
COUNT_MOST: Final = 1000  # at this count all are halved: where one lived last year fades
SPREAD_SHARE: Final = 0.1  # of mean position and radius that one act moves: about the last 20 acts

Cell: TypeAlias = tuple[int, int, int]  # H3 index, acts at night, acts in working hours

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_ROW: Final = struct.Struct(f"<qQffQQfffB{PLACE_CELLS}Q{PLACE_CELLS}H{PLACE_CELLS}H")
_FLOATS: Final = struct.Struct("<5f")


class PlacesState(NamedTuple):
    """One row, opened."""

    updated_ms: int
    last_cell: int
    last_latitude: float
    last_longitude: float
    home_cell: int
    work_cell: int
    radius_m: float
    mean_latitude: float
    mean_longitude: float
    cells: tuple[Cell, ...]  # in order of first sight, at most PLACE_CELLS


EMPTY: Final = PlacesState(0, 0, 0.0, 0.0, 0, 0, 0.0, 0.0, 0.0, ())


def fold(state: PlacesState, act: Act, resolution: int) -> PlacesState:
    """The state after `act`; unchanged when the act has no location."""
    if math.isnan(act.latitude):
        return state
    cell = cell_of(act.latitude, act.longitude, resolution)
    latitude, longitude = _centre(cell)
    radius_m, mean_latitude, mean_longitude = _spread(state, latitude, longitude)
    cells = _counted(state.cells, cell, act.at_ms, longitude)
    home = _most(cells, 1, 0)
    newest = act.at_ms >= state.updated_ms
    return PlacesState(
        act.at_ms if newest else state.updated_ms,
        cell if newest else state.last_cell,
        latitude if newest else state.last_latitude,
        longitude if newest else state.last_longitude,
        home,
        _most(cells, 2, home),
        radius_m,
        mean_latitude,
        mean_longitude,
        cells,
    )


def seal(state: PlacesState) -> PlacesState:
    """The state as its row will give it back."""
    last_latitude, last_longitude, radius_m, mean_latitude, mean_longitude = _FLOATS.unpack(
        _FLOATS.pack(
            state.last_latitude, state.last_longitude, state.radius_m, state.mean_latitude, state.mean_longitude
        )
    )
    return PlacesState(
        state.updated_ms,
        state.last_cell,
        last_latitude,
        last_longitude,
        state.home_cell,
        state.work_cell,
        radius_m,
        mean_latitude,
        mean_longitude,
        state.cells,
    )


def pack(state: PlacesState) -> bytes:
    """The row of a sealed state."""
    cells, night, day = zip(*state.cells, strict=True) if state.cells else ((), (), ())
    unused = (0,) * (PLACE_CELLS - len(cells))
    return _ROW.pack(*state[:9], len(cells), *cells, *unused, *night, *unused, *day, *unused)


def unpack(row: bytes) -> PlacesState:
    """The state that `row` holds."""
    flat = _ROW.unpack(row)
    length = flat[9]
    cells, night, day = (flat[10 + k * PLACE_CELLS : 10 + k * PLACE_CELLS + length] for k in range(3))
    return PlacesState._make((*flat[:9], tuple(zip(cells, night, day, strict=True))))


def _spread(state: PlacesState, latitude: float, longitude: float) -> tuple[float, float, float]:
    """Radius and mean position after one more act."""
    if state.last_cell == 0:
        return 0.0, latitude, longitude
    away_m = distance_m(state.mean_latitude, state.mean_longitude, latitude, longitude)
    east = (longitude - state.mean_longitude + 180.0) % 360.0 - 180.0  # the short way round
    return (
        state.radius_m + SPREAD_SHARE * (away_m - state.radius_m),
        state.mean_latitude + SPREAD_SHARE * (latitude - state.mean_latitude),
        (state.mean_longitude + SPREAD_SHARE * east + 180.0) % 360.0 - 180.0,
    )


def _counted(cells: tuple[Cell, ...], cell: int, at_ms: int, longitude: float) -> tuple[Cell, ...]:
    """The cells after one act; when all places are taken, the cell with the fewest acts gives way."""
    solar_ms = at_ms + int(longitude / 15.0 * _HOUR_MS)
    hour = solar_ms % _DAY_MS // _HOUR_MS
    night = hour in NIGHT_HOURS
    day = hour in WORK_HOURS and (solar_ms // _DAY_MS + 3) % 7 in WORK_DAYS  # 1970-01-01 was a Thursday
    if not night and not day:
        return cells
    changed = list(cells)
    place = next((place for place, known in enumerate(changed) if known[0] == cell), -1)
    if place < 0:
        if len(changed) == PLACE_CELLS:
            changed.remove(min(changed, key=lambda known: known[1] + known[2]))
        changed.append((cell, 0, 0))
    _, nights, days = changed[place]
    changed[place] = (cell, nights + night, days + day)
    if nights + night >= COUNT_MOST or days + day >= COUNT_MOST:
        changed = [(known, nights // 2, days // 2) for known, nights, days in changed]
    return tuple(changed)


def _most(cells: tuple[Cell, ...], column: int, besides: int) -> int:
    """The cell with most acts in a column, the first seen among equals; 0 when none has MIN_ACTS."""
    best, best_count = 0, MIN_ACTS - 1
    for cell in cells:
        if cell[column] > best_count and cell[0] != besides:
            best, best_count = cell[0], cell[column]
    return best


@lru_cache(maxsize=1 << 14)
def _centre(cell: int) -> tuple[float, float]:
    return centre_of(cell)
