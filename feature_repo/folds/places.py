"""user_places: where a person is, lives and works, as coarse as the platform allows.

A location exists in the log only where the user consents; an entry brings it already snapped to the
centre of its H3 cell at the resolution of the setting `streams.location_resolution`, so that nothing
finer is kept anywhere. Home and work are guesses from counts at local solar time (UTC + longitude / 15 h):
without a time zone database, and at most about an hour from the clock on the wall, which the wide
windows below forgive.

The last place is the newest by event time; counts, mean and radius follow the order of the log.
"""

from typing import Any, Final

import numpy as np

from core import geo
from feature_repo.folds.compiled import compiled, signed
from feature_repo.layouts import PLACE_CELLS

NIGHT_FROM, NIGHT_TO = 22, 6  # hours; past midnight
WORK_FROM, WORK_TO = 9, 17
WORK_DAYS: Final = 5  # from Monday
MIN_ACTS: Final = 3  # fewer at night (or at work) name no home (or work)
COUNT_MOST: Final = 1000  # at this count all are halved: where one lived last year fades
SPREAD_SHARE: Final = 0.1  # of mean position and radius that one act moves: about the last 20 acts

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS

_distance_m = compiled(geo.distance_m)


@compiled
def fold(row: Any, entry: Any) -> None:
    """`row` (PLACES) after an act; unchanged when the act has no location."""
    if entry.cell == 0:
        return
    _spread(row, entry.latitude, entry.longitude)
    _count(row, entry.cell, entry.at_ms, entry.longitude)
    row.home_cell = _most(row, row.night, np.uint64(0))
    row.work_cell = _most(row, row.day, row.home_cell)
    if entry.at_ms >= row.updated_ms:
        row.updated_ms = entry.at_ms
        row.last_cell = entry.cell
        row.last_latitude = entry.latitude
        row.last_longitude = entry.longitude


@compiled
def _spread(row: Any, latitude: float, longitude: float) -> None:
    """Radius and mean position after one more act."""
    if row.last_cell == 0:
        row.radius_m = 0.0
        row.mean_latitude = latitude
        row.mean_longitude = longitude
        return
    mean_latitude, mean_longitude = np.float64(row.mean_latitude), np.float64(row.mean_longitude)
    away_m = _distance_m(mean_latitude, mean_longitude, latitude, longitude)
    east = (longitude - mean_longitude + 180.0) % 360.0 - 180.0  # the short way round
    row.radius_m = np.float64(row.radius_m) + SPREAD_SHARE * (away_m - np.float64(row.radius_m))
    row.mean_latitude = mean_latitude + SPREAD_SHARE * (latitude - mean_latitude)
    row.mean_longitude = (mean_longitude + SPREAD_SHARE * east + 180.0) % 360.0 - 180.0


@compiled
def _count(row: Any, cell: int, at_ms: int, longitude: float) -> None:
    """One act is counted; when all places are taken, the cell with the fewest acts gives way."""
    solar_ms = at_ms + int(longitude / 15.0 * _HOUR_MS)
    hour = solar_ms % _DAY_MS // _HOUR_MS
    night = hour >= NIGHT_FROM or hour < NIGHT_TO
    weekday = (solar_ms // _DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    day = WORK_FROM <= hour < WORK_TO and weekday < WORK_DAYS
    if not night and not day:
        return
    place = _place_of(row, cell)
    row.night[place] += night
    row.day[place] += day
    if row.night[place] >= COUNT_MOST or row.day[place] >= COUNT_MOST:
        for known in range(row.length):
            row.night[known] = row.night[known] // 2
            row.day[known] = row.day[known] // 2


@compiled
def _place_of(row: Any, cell: int) -> int:
    """Where the cell's counts stand; the newest cell stands last."""
    length = signed(row.length)
    for place in range(length):
        if row.cell[place] == cell:
            return place
    if length == PLACE_CELLS:
        fewest = 0
        for place in range(1, length):
            if signed(row.night[place]) + row.day[place] < signed(row.night[fewest]) + row.day[fewest]:
                fewest = place
        for place in range(fewest, length - 1):
            row.cell[place] = row.cell[place + 1]
            row.night[place] = row.night[place + 1]
            row.day[place] = row.day[place + 1]
        length -= 1
    row.cell[length] = cell
    row.night[length] = row.day[length] = 0
    row.length = length + 1
    return length


@compiled
def _most(row: Any, counts: Any, besides: Any) -> Any:
    """The cell with most acts, the first seen among equals; 0 when none has MIN_ACTS."""
    best, best_count = np.uint64(0), MIN_ACTS - 1
    for place in range(row.length):
        if counts[place] > best_count and row.cell[place] != besides:
            best, best_count = row.cell[place], signed(counts[place])
    return best
