"""Which items may be shown to this person now. A filter gives what it keeps and what it takes away.

    not_live    removed, not available, or no longer under the path that was generated
    excluded    the request named it
    just_seen   the person acted on it lately; a video is not new twice, a place is worth coming back to
    closed      a place outside its opening hours, local time
    too_far     a place beyond the service radius of where the person is

An item is counted under the first filter that takes it, so the counts add up.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.geo import distances_m
from models.catalog import Catalog

SEEN_VIDEO_S: Final = 30 * 24 * 3600  # as far as most histories reach
SEEN_PLACE_S: Final = 12 * 3600  # lunch there today, again tomorrow

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class Circumstances(NamedTuple):
    """What the filters know of one request."""

    now_ms: int
    here: tuple[float, float] | None  # of the request, else the last place known
    service_radius_m: float
    excluded: npt.NDArray[np.int64]  # item keys
    seen: npt.NDArray[np.int64]  # item keys of the person's acts
    seen_at_s: npt.NDArray[np.int64]  # when, one per seen


class Sieved(NamedTuple):
    """What is left, and how many each filter took away (filters that took nothing are not named)."""

    kept: npt.NDArray[np.intp]  # positions among the items that came in, ascending
    removed: dict[str, int]
    removed_by: list[str]  # (M,) the filter that took each item away; empty = kept


def sieve(items: Ints, catalog: Catalog, about: Circumstances, codes: Ints | None = None) -> Sieved:
    """Pass items through every filter, in the order of this module's table.

    Args:
        items: (M,) catalogue indices, none of them -1.
        codes: (M, L) the paths that were generated for them; absent = not generated.
    """
    kept = np.arange(len(items))
    removed: dict[str, int] = {}
    removed_by = [""] * len(items)
    for name, taken in _filters(items, catalog, about, codes):
        gone = taken[kept]
        if gone.any():
            removed[name] = int(np.count_nonzero(gone))
            for position in kept[gone].tolist():
                removed_by[position] = name
            kept = kept[~gone]
    return Sieved(kept, removed, removed_by)


def _filters(items: Ints, catalog: Catalog, about: Circumstances, codes: Ints | None) -> Iterable[tuple[str, Flags]]:
    not_live = ~catalog.available[items]
    if codes is not None:
        not_live |= (catalog.codes[items] != codes).any(axis=1)
    yield "not_live", not_live
    if about.excluded.size:
        yield "excluded", np.isin(items, catalog.indices_of(about.excluded))
    latitudes, longitudes = catalog.locations[items].T
    located = ~np.isnan(latitudes)
    if about.seen.size:
        yield "just_seen", _just_seen(items, located, catalog, about)
    yield "closed", ~catalog.open_at(items, about.now_ms, _zone_minutes(longitudes))
    if about.here is not None and located.any():
        distances = distances_m(*about.here, latitudes, longitudes)
        yield "too_far", np.asarray(distances > about.service_radius_m)  # NaN, an item without a place, is never far


def _just_seen(items: Ints, located: Flags, catalog: Catalog, about: Circumstances) -> Flags:
    age_s = about.now_ms // 1000 - about.seen_at_s
    seen = catalog.indices_of(about.seen)
    lately, today = seen[age_s <= SEEN_VIDEO_S], seen[age_s <= SEEN_PLACE_S]
    return np.where(located, np.isin(items, today), np.isin(items, lately))


def _zone_minutes(longitudes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Local time minus UTC: the nautical zone, whole hours of 15 degrees; UTC for items without a place.

    A time zone database would know politics; the hour on the door of a shop is this one or the next.
    """
    return 60 * np.rint(np.nan_to_num(longitudes) / 15.0).astype(np.int64)
