"""user_history: what a person did, newest HISTORY exposures and the longer list of positive ones.

An exposure is one item within EXPOSURE_S of event time: a play, a like and an order of the same item
are one entry with three action bits. Entries are ordered by (time, item), so an act that arrives late
takes its place, and the oldest leave first whatever the order of arrival.

The positive list is at the same time the index `first-level code -> recent items` that hard search asks
(GLASS, arXiv:2602.05663 §4): beyond POSITIVES the code with most entries gives up its oldest, so that a
frequent taste never drives out a rare one. Left out of the paper's memory: its unbounded length.
"""

from typing import Any, Final

import numpy as np

from feature_repo.folds.compiled import compiled, signed
from feature_repo.layouts import HISTORY, NO_CODE, POSITIVES, SEEN_EVENTS
from protos.events.v1.interaction_pb2 import Action

EXPOSURE_S: Final = 30 * 60  # acts on one item closer than this belong to one exposure
WATCH_UNKNOWN: Final = 255
WATCH_MOST: Final = 250  # per cent; beyond two and a half replays more says nothing

_DISLIKE_BIT: Final = 1 << (int(Action.ACTION_DISLIKE) - 1)


@compiled
def was_seen(row: Any, id_hash: int) -> bool:
    """Whether the id is among the last SEEN_EVENTS of the user."""
    for place in range(SEEN_EVENTS):  # noqa: SIM110 - any() needs a generator, which numba does not compile
        if row.seen[place] == id_hash:
            return True
    return False


@compiled
def remember(row: Any, id_hash: int, at_ms: int) -> None:
    """The id of a new activity is remembered in place of the oldest, and its time counts."""
    row.seen[row.seen_count % SEEN_EVENTS] = id_hash
    row.seen_count += 1
    row.updated_ms = max(row.updated_ms, at_ms)


@compiled
def fold(row: Any, entry: Any, first_code: int) -> bool:
    """`row` (HISTORY_ROW) after a new act; whether the act began a positive exposure."""
    row.applied += 1
    at_s = entry.at_ms // 1000
    bits = _with_act(row, entry, at_s)
    if bits & _DISLIKE_BIT:
        _remove_positive(row, at_s, entry.item)
        return False
    return entry.positive and _with_positive(row, at_s, entry.item, first_code)


@compiled
def forget_codes(row: Any) -> None:
    """The first-level codes are not known any more: they belonged to another tokenizer."""
    for place in range(row.positive_length):
        row.positive_code[place] = NO_CODE


@compiled
def watch_share(play_ms: int, duration_ms: int) -> int:
    """Per cent of the item that was played, at most WATCH_MOST; WATCH_UNKNOWN without a play or a duration."""
    if play_ms < 0 or duration_ms <= 0:
        return WATCH_UNKNOWN
    return min(WATCH_MOST, 100 * play_ms // duration_ms)


@compiled
def _with_act(row: Any, entry: Any, at_s: int) -> int:
    """The act has its place among the entries; the action bits of its exposure."""
    bits = 1 << (entry.action - 1)
    watch = watch_share(entry.play_ms, entry.duration_ms)
    length = signed(row.length)
    place = _exposure(row.at_s, row.item, length, at_s, entry.item)
    if place >= 0:
        at_s = min(at_s, signed(row.at_s[place]))
        bits |= signed(row.actions[place])
        watch = _added(watch, signed(row.watch[place]))
        for later in range(place, length - 1):
            _move(row, later, later + 1)
        length -= 1
    place = _rank(row.at_s, row.item, length, at_s, entry.item)
    if length == HISTORY:
        if place == 0:
            return bits  # older than everything kept
        for earlier in range(place - 1):
            _move(row, earlier, earlier + 1)
        place -= 1
    else:
        for later in range(length, place, -1):
            _move(row, later, later - 1)
        length += 1
    row.length = length
    row.item[place] = entry.item
    row.at_s[place] = at_s
    row.actions[place] = bits
    row.watch[place] = watch
    return bits


@compiled
def _move(row: Any, to: int, place: int) -> None:
    row.item[to] = row.item[place]
    row.at_s[to] = row.at_s[place]
    row.actions[to] = row.actions[place]
    row.watch[to] = row.watch[place]


@compiled
def _with_positive(row: Any, at_s: int, item: int, first_code: int) -> bool:
    """The exposure is among the positives, unless it is older than what is kept; whether it is a new one."""
    length = signed(row.positive_length)
    place = _exposure(row.positive_at_s, row.positive_item, length, at_s, item)
    new = place < 0
    if not new:
        at_s = min(at_s, signed(row.positive_at_s[place]))
        first_code = signed(row.positive_code[place])
        _close_positive(row, place)
    elif length == POSITIVES:
        place = _given_up(row, at_s, item, first_code)
        if place < 0:
            return True
        _close_positive(row, place)
    length = signed(row.positive_length)
    place = _rank(row.positive_at_s, row.positive_item, length, at_s, item)
    for later in range(length, place, -1):
        row.positive_at_s[later] = row.positive_at_s[later - 1]
        row.positive_item[later] = row.positive_item[later - 1]
        row.positive_code[later] = row.positive_code[later - 1]
    row.positive_at_s[place] = at_s
    row.positive_item[place] = item
    row.positive_code[place] = first_code
    row.positive_length = length + 1
    return new


@compiled
def _given_up(row: Any, at_s: int, item: int, first_code: int) -> int:
    """Which positive makes room for a new one: the oldest of the code with most entries; -1 = the new one itself."""
    counts = np.zeros(NO_CODE + 1, np.int64)
    counts[first_code] = 1
    for place in range(POSITIVES):
        counts[row.positive_code[place]] += 1
    most = np.argmax(counts)  # the first among equals
    for place in range(POSITIVES):
        if row.positive_code[place] == most:
            older = at_s < row.positive_at_s[place] or (
                at_s == row.positive_at_s[place] and item < row.positive_item[place]
            )
            return -1 if first_code == most and older else place
    return -1


@compiled
def _remove_positive(row: Any, at_s: int, item: int) -> None:
    place = _exposure(row.positive_at_s, row.positive_item, signed(row.positive_length), at_s, item)
    if place >= 0:
        _close_positive(row, place)


@compiled
def _close_positive(row: Any, place: int) -> None:
    length = signed(row.positive_length)
    for later in range(place, length - 1):
        row.positive_at_s[later] = row.positive_at_s[later + 1]
        row.positive_item[later] = row.positive_item[later + 1]
        row.positive_code[later] = row.positive_code[later + 1]
    row.positive_at_s[length - 1] = row.positive_item[length - 1] = row.positive_code[length - 1] = 0
    row.positive_length = length - 1


@compiled
def _exposure(times_s: Any, items: Any, length: int, at_s: int, item: int) -> int:
    """Where the newest entry of `item` within EXPOSURE_S of `at_s` stands; -1 when there is none."""
    for place in range(length - 1, -1, -1):
        known_s = signed(times_s[place])
        if known_s < at_s - EXPOSURE_S:
            return -1
        if items[place] == item and known_s <= at_s + EXPOSURE_S:
            return place
    return -1


@compiled
def _rank(times_s: Any, items: Any, length: int, at_s: int, item: int) -> int:
    """How many of the first `length` entries stand before (at_s, item)."""
    place = length
    while place > 0:
        known_s = signed(times_s[place - 1])
        if known_s < at_s or (known_s == at_s and items[place - 1] <= item):
            return place
        place -= 1
    return 0


@compiled
def _added(watch: int, more: int) -> int:
    if watch == WATCH_UNKNOWN or more == WATCH_UNKNOWN:
        return min(watch, more)
    return min(WATCH_MOST, watch + more)
