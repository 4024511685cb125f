"""What the log makes of cells and items, as partial sums of one partition, written a second time, for the checker.

Sums are float32 in the store; here they are rounded at the same places, and still compared with a tolerance: the
order of roundings is no promise of the platform.
"""

import h3.api.basic_int as h3

from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction
from tests.faults.plain_log import item_number, milliseconds
from tests.faults.plain_user import (
    CART,
    CHECK_IN,
    CLICK,
    COMMENT,
    DISLIKE,
    FOLLOW,
    LIKE,
    ORDER,
    PLAY,
    SHARE,
    VIEW,
    duration_of,
    float32,
    is_positive,
    long_view_ms,
    play_of,
)

HOUR_MS = 3_600_000
CELL_HALF_LIFE_MS = 6 * HOUR_MS
ITEM_HALF_LIFE_MS = 3 * 24 * HOUR_MS
STEP_MS = 60_000  # a sum moves on in time by no less
CELL_RESOLUTION = 7
MOST_ITEMS = 48
COUNTS = ("shown", "plays", "watched", "positives", "dislikes")
WEIGHTS = {
    VIEW: 0.05,
    CLICK: 0.5,
    LIKE: 2.0,
    SHARE: 3.0,
    COMMENT: 2.5,
    FOLLOW: 3.0,
    CART: 2.0,
    ORDER: 5.0,
    CHECK_IN: 4.0,
    DISLIKE: -2.0,
}


class Sums:
    """The partial sums of one partition."""

    def __init__(self, resolution: int) -> None:
        self._resolution = min(CELL_RESOLUTION, resolution)
        self.cells: dict[str, Cell] = {}
        self.items: dict[str, Item] = {}

    def act(self, event: Interaction) -> None:
        weight = weight_of(event)
        at_ms, item = milliseconds(event.occurred_at), item_number(event.item_id)
        names = ["global"]
        if event.HasField("location"):
            cell = h3.latlng_to_cell(event.location.latitude, event.location.longitude, self._resolution)
            names.append(str(h3.int_to_str(cell)))
        for name in names:
            if weight != 0.0:
                self.cells.setdefault(name, Cell()).add(item, weight, at_ms)
        counts = self.items.setdefault(event.item_id, Item())
        counts.add("plays", 1.0 if play_of(event) >= 0 else 0.0, at_ms)
        if play_of(event) >= 0 and duration_of(event) > 0:
            counts.add("watched", min(2.5, event.play_ms / event.duration_ms), at_ms)
        counts.add("positives", 1.0 if is_positive(event) else 0.0, at_ms)
        counts.add("dislikes", 1.0 if event.action == DISLIKE else 0.0, at_ms)

    def show(self, shown: Impression) -> None:
        for item_id in dict.fromkeys(slot.item_id for slot in shown.slots):
            self.items.setdefault(item_id, Item()).add("shown", 1.0, milliseconds(shown.served_at))


class Cell:
    """What is popular in one cell, as of `updated_ms`."""

    def __init__(self) -> None:
        self.updated_ms = 0
        self.scores: dict[int, float] = {}

    def add(self, item: int, weight: float, at_ms: int) -> None:
        if at_ms >= self.updated_ms + STEP_MS:
            share = 0.5 ** ((at_ms - self.updated_ms) / CELL_HALF_LIFE_MS)
            self.scores = {known: float32(score * share) for known, score in self.scores.items()}
            self.updated_ms = at_ms
        weight *= 0.5 ** ((self.updated_ms - at_ms) / CELL_HALF_LIFE_MS)
        if item in self.scores:
            self.scores[item] = float32(max(0.0, self.scores[item] + weight))
        elif weight > 0.0:
            replaced = 0.0
            if len(self.scores) == MOST_ITEMS:
                least = min(self.scores, key=lambda known: self.scores[known])
                replaced = self.scores.pop(least)
            self.scores[item] = float32(replaced + weight)


class Item:
    """What people did with one item, as of `updated_ms`."""

    def __init__(self) -> None:
        self.updated_ms = 0
        self.counts = dict.fromkeys(COUNTS, 0.0)

    def add(self, count: str, value: float, at_ms: int) -> None:
        if at_ms >= self.updated_ms + STEP_MS:
            share = 0.5 ** ((at_ms - self.updated_ms) / ITEM_HALF_LIFE_MS)
            self.counts = {known: float32(old * share) for known, old in self.counts.items()}
            self.updated_ms = at_ms
        value *= 0.5 ** ((self.updated_ms - at_ms) / ITEM_HALF_LIFE_MS)
        self.counts[count] = float32(self.counts[count] + value)


def weight_of(event: Interaction) -> float:
    """How much one act says for its item."""
    if event.action == PLAY:
        return max(0.0, min(1.0, play_of(event) / long_view_ms(duration_of(event))))
    return WEIGHTS[event.action]
