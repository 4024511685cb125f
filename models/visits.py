"""Where people go again: what a user's own visits say, for models.evidence.

Letters used in this file
    n requests   H acts of a history   h of them known

People come back to places as they do not to videos: visits are evidence for the very place. Three sources: that the
user has been there, newer visits counting more; at such an hour of such a day; and after a visit to where the user
was last. Each says it in percent of the user's visits that count, so that long and short histories speak alike; what
each source weighs is learned with the prior (models.prior).
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.batches import Flags

RECENCY: Final = 0.98  # what a visit counts beside the next: habits last longer than interests
DEPTH: Final = 100  # acts of a history that say something
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_NEAR_HOURS: Final = 1.5  # standard deviation of how near two hours of the day are
_OTHER_KIND: Final = 0.5  # what a visit on a weekday counts on a weekend, and the other way round

Times = npt.NDArray[np.int64]
Said = tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]  # items that a source names, and how near they are


class Visits(NamedTuple):
    """Which acts were visits, and when."""

    visit: Flags  # (n, H) of an item that people come back to
    at_ms: Times  # (n, H) of the acts, on one local clock
    now_ms: Times | None  # (n,) of the request; None = not known

    def of(self, row: int, acts: npt.NDArray[np.integer], ages: npt.NDArray[np.integer]) -> list[Said]:
        """What each source says, percent, in the order of the module's text; less than 100 in all where no whole visit
        counts, such as none at the hour. Nothing without visits.

        Args:
            acts: (h,) items of the request's history, newest first.
            ages: (h,) their places in it.
        """
        visit = self.visit[row, ages] & (ages < DEPTH)
        if not visit.any():
            return []
        places, ages = acts[visit], ages[visit]
        before = np.append(places[1:], -1)  # where the user was before each visit
        weights = [RECENCY**ages, self._at_such_an_hour(row, ages), (before == places[0]).astype(np.float64)]
        return [(places, 100 * each / max(each.sum(), 1.0)) for each in weights]

    def _at_such_an_hour(self, row: int, ages: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        if self.now_ms is None:
            return np.zeros(len(ages))
        now_ms, at_ms = self.now_ms[row], self.at_ms[row, ages]
        apart = np.abs(now_ms % _DAY_MS - at_ms % _DAY_MS) / _HOUR_MS
        apart = np.minimum(apart, 24 - apart)
        alike = np.where(weekend(at_ms) == weekend(now_ms), 1.0, _OTHER_KIND)
        return np.asarray(alike * np.exp(-((apart / _NEAR_HOURS) ** 2) / 2))


def weekend(local_ms: Times) -> Flags:
    """Whether it is Saturday or Sunday on the local clock; any shape."""
    return np.asarray((local_ms // _DAY_MS + 3) % 7 >= 5)  # 1970-01-01 was a Thursday
