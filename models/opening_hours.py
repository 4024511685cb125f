"""Opening hours as intervals of the local week, so that many items are asked at once."""

from typing import Final

import numpy as np
import numpy.typing as npt

from core.validation import Fault
from protos.catalog.v1.catalog_pb2 import Item

WEEK: Final = 7 * 24 * 60  # minutes
DAY: Final = 24 * 60
MAX_INTERVALS: Final = 21  # three a day
_EPOCH_MINUTE: Final = 3 * DAY  # 1970-01-01 was a Thursday; the week starts on Monday

Week = npt.NDArray[np.int16]


def hours_fault(item: Item) -> Fault | None:
    """The first fault of an item's opening hours."""
    if len(item.opening_hours) > MAX_INTERVALS:
        return Fault("opening_hours", f"found {len(item.opening_hours)} intervals, expected at most {MAX_INTERVALS}")
    for hours in item.opening_hours:
        if not 1 <= hours.weekday <= 7:
            return Fault("opening_hours.weekday", f"found {hours.weekday}, expected 1 (Monday) .. 7 (Sunday)")
        if hours.open_minute >= DAY:
            return Fault("opening_hours.open_minute", f"found {hours.open_minute}, expected 0 .. {DAY - 1}")
        if hours.close_minute > DAY or hours.close_minute == hours.open_minute:
            return Fault(
                "opening_hours.close_minute",
                f"found {hours.close_minute}, expected 0 .. {DAY} and not open_minute; 0 to {DAY} is the whole day",
            )
    return None


def week_of(item: Item) -> Week:
    """(MAX_INTERVALS, 2) int16: minute of the week that an interval opens, and its length; 0 = unused."""
    week = np.zeros((MAX_INTERVALS, 2), np.int16)
    for row, hours in enumerate(item.opening_hours):
        week[row, 0] = (hours.weekday - 1) * DAY + hours.open_minute
        week[row, 1] = (hours.close_minute - hours.open_minute) % DAY or DAY
    return week


def open_at(weeks: Week, at_ms: int, utc_offset_minutes: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether places are open at an instant. A place without intervals always is.

    Args:
        weeks: (..., MAX_INTERVALS, 2) from `week_of`.
        at_ms: milliseconds since 1970 UTC.
        utc_offset_minutes: local time minus UTC at the place; scalar or broadcast over the leading axes.
    """
    minute = (at_ms // 60_000 + np.asarray(utc_offset_minutes, np.int64) + _EPOCH_MINUTE) % WEEK
    opens, length = weeks[..., 0].astype(np.int64), weeks[..., 1]
    inside = (minute[..., None] - opens) % WEEK < length
    return np.asarray(inside.any(axis=-1) | ~length.any(axis=-1))
