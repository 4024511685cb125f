"""What the log makes of one user, written a second time in the plainest way, for the checker alone.

One object per user, plain lists and dicts, changed entry by entry. No catalogue is known here: durations come
from the events, no item has a vector, so the interests of a user stay zeros.
"""

import math
import struct

import h3.api.basic_int as h3

from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Interaction
from tests.faults.plain_log import DAY_MS, item_number, milliseconds

VIEW, PLAY, CLICK, LIKE, SHARE, COMMENT, FOLLOW, CART, ORDER, CHECK_IN, DISLIKE = range(1, 12)
ALWAYS_POSITIVE = (LIKE, SHARE, COMMENT, FOLLOW, CART, ORDER, CHECK_IN)
EXPOSURE_S = 1800
UNKNOWN = 255


class User:
    """The state of one user; `forget` empties it."""

    def __init__(self) -> None:
        self.updated_ms = 0
        self.applied = 0
        self.duplicates = 0
        self.log_partition = 0
        self.log_offset = 0
        self.exposures: list[tuple[int, int, int, int]] = []  # at_s, item, bits, watch; ascending
        self.positives: list[tuple[int, int]] = []  # at_s, item; ascending
        self.remembered: list[int] = []  # every hash, in order; the newest 64 count
        self.watch_updated_ms = 0
        self.watch_count = [0] * 12
        self.play_ds: list[list[int]] = [[] for _ in range(12)]
        self.places = Places()

    def seen(self, hashed: int) -> bool:
        return hashed in self.remembered[-64:]

    def apply(self, event: Interaction, late: bool, resolution: int) -> None:
        """One act that was not seen before."""
        at_ms = milliseconds(event.occurred_at)
        item = item_number(event.item_id)
        self.applied += 1
        self.updated_ms = max(self.updated_ms, at_ms)
        bits = self._expose(event, at_ms // 1000, item)
        if bits >> (DISLIKE - 1) & 1:
            self._drop_positive(at_ms // 1000, item)
        elif is_positive(event):
            self._add_positive(at_ms // 1000, item)
        if late:
            return
        if event.HasField("play_ms") and duration_of(event) > 0:
            bucket = bucket_of(duration_of(event))
            self.watch_count[bucket] += 1
            self.play_ds[bucket] = [*self.play_ds[bucket], deciseconds(event.play_ms)][-24:]
            self.watch_updated_ms = max(self.watch_updated_ms, at_ms)
        if event.HasField("location"):
            self.places.visit(event.location.latitude, event.location.longitude, at_ms, resolution)

    def _expose(self, event: Interaction, at_s: int, item: int) -> int:
        bits, watch = 1 << (event.action - 1), watch_share(event)
        place = newest_near([(entry[0], entry[1]) for entry in self.exposures], at_s, item)
        if place is not None:
            old_at_s, _, old_bits, old_watch = self.exposures.pop(place)
            at_s, bits = min(at_s, old_at_s), bits | old_bits
            known = [share for share in (watch, old_watch) if share != UNKNOWN]
            watch = min(250, sum(known)) if known else UNKNOWN
        self.exposures.append((at_s, item, bits, watch))
        self.exposures.sort(key=lambda entry: entry[:2])
        del self.exposures[:-50]
        return bits

    def _drop_positive(self, at_s: int, item: int) -> None:
        place = newest_near(self.positives, at_s, item)
        if place is not None:
            del self.positives[place]

    def _add_positive(self, at_s: int, item: int) -> None:
        place = newest_near(self.positives, at_s, item)
        if place is not None:
            at_s = min(at_s, self.positives.pop(place)[0])
        self.positives.append((at_s, item))
        self.positives.sort()
        del self.positives[:-48]  # every item's code is unknown here, so the oldest of all leaves


class Places:
    """Where a user is, lives and works."""

    def __init__(self) -> None:
        self.updated_ms = 0
        self.last_cell = 0
        self.last = (0.0, 0.0)
        self.mean = (0.0, 0.0)
        self.radius_m = 0.0
        self.home_cell = 0
        self.work_cell = 0
        self.cells: list[list[int]] = []  # cell, nights, days; in order of first sight

    def visit(self, latitude: float, longitude: float, at_ms: int, resolution: int) -> None:
        cell = int(h3.latlng_to_cell(latitude, longitude, resolution))
        latitude, longitude = h3.cell_to_latlng(cell)
        if self.last_cell == 0:
            self.radius_m, self.mean = 0.0, (float32(latitude), float32(longitude))
        else:
            away_m = metres(*self.mean, latitude, longitude)
            east = (longitude - self.mean[1] + 180.0) % 360.0 - 180.0
            self.radius_m = float32(self.radius_m + 0.1 * (away_m - self.radius_m))
            self.mean = (
                float32(self.mean[0] + 0.1 * (latitude - self.mean[0])),
                float32((self.mean[1] + 0.1 * east + 180.0) % 360.0 - 180.0),
            )
        self._count(cell, at_ms, longitude)
        self.home_cell = self._most(1, besides=0)
        self.work_cell = self._most(2, besides=self.home_cell)
        if at_ms >= self.updated_ms:
            self.updated_ms, self.last_cell = at_ms, cell
            self.last = (float32(latitude), float32(longitude))

    def _count(self, cell: int, at_ms: int, longitude: float) -> None:
        solar_ms = at_ms + int(longitude / 15.0 * 3_600_000)
        hour = solar_ms // 3_600_000 % 24
        weekday = (solar_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
        night = hour >= 22 or hour < 6
        day = 9 <= hour < 17 and weekday < 5
        if not night and not day:
            return
        if cell not in [known[0] for known in self.cells]:
            if len(self.cells) == 8:
                fewest = min(known[1] + known[2] for known in self.cells)
                self.cells.remove(next(known for known in self.cells if known[1] + known[2] == fewest))
            self.cells.append([cell, 0, 0])
        counted = next(known for known in self.cells if known[0] == cell)
        counted[1] += night
        counted[2] += day
        if max(counted[1], counted[2]) >= 1000:
            for known in self.cells:
                known[1], known[2] = known[1] // 2, known[2] // 2

    def _most(self, column: int, besides: int) -> int:
        best, most = 0, 2
        for known in self.cells:
            if known[column] > most and known[0] != besides:
                best, most = known[0], known[column]
        return best


def is_late(activity: Activity, recorded_ms: int) -> bool:
    return recorded_ms - milliseconds(activity.interaction.occurred_at) > DAY_MS


def newest_near(entries: list[tuple[int, int]], at_s: int, item: int) -> int | None:
    """The place of the newest entry (at_s, item) of the item within half an hour."""
    for place in reversed(range(len(entries))):
        if entries[place][1] == item and abs(entries[place][0] - at_s) <= EXPOSURE_S:
            return place
    return None


def duration_of(event: Interaction) -> int:
    return event.duration_ms if event.HasField("duration_ms") else -1


def play_of(event: Interaction) -> int:
    return event.play_ms if event.HasField("play_ms") else -1


def long_view_ms(duration_ms: int) -> int:
    return min(duration_ms, 18_000) if duration_ms > 0 else 18_000


def is_positive(event: Interaction) -> bool:
    return event.action in ALWAYS_POSITIVE or play_of(event) >= long_view_ms(duration_of(event))


def watch_share(event: Interaction) -> int:
    if not event.HasField("play_ms") or duration_of(event) <= 0:
        return UNKNOWN
    return min(250, 100 * event.play_ms // event.duration_ms)


def bucket_of(duration_ms: int) -> int:
    """-1 when the duration is not known."""
    if duration_ms <= 0:
        return -1
    return min(11, max(0, math.floor(math.log2(duration_ms / 1000.0 + 1e-6))))


def deciseconds(play_ms: int) -> int:
    return min(65_535, (play_ms + 50) // 100)


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def metres(latitude1: float, longitude1: float, latitude2: float, longitude2: float) -> float:
    """Great-circle distance by the haversine formula."""
    north = math.radians(latitude2 - latitude1) / 2.0
    east = math.radians(longitude2 - longitude1) / 2.0
    cosines = math.cos(math.radians(latitude1)) * math.cos(math.radians(latitude2))
    chord = math.sin(north) ** 2 + cosines * math.sin(east) ** 2
    return 2.0 * 6_371_008.8 * math.asin(min(1.0, math.sqrt(chord)))
