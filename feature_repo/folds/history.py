"""user_history: what a person did, newest HISTORY exposures and the longer list of positive ones.

An exposure is one item within EXPOSURE_S of event time: a play, a like and an order of the same item
are one entry with three action bits. Entries are ordered by (time, item), so an act that arrives late
takes its place, and the oldest leave first whatever the order of arrival.

Every number is rounded as the act is folded (seconds, per cent), so nothing is left to round per record.
"""

import struct
from bisect import insort
from typing import Final, NamedTuple, TypeAlias

from feature_repo.folds.act import Act, is_positive
from feature_repo.folds.context import Record
from feature_repo.layouts import HISTORY, POSITIVES, SEEN_EVENTS
from protos.events.v1.interaction_pb2 import Action

EXPOSURE_S: Final = 30 * 60  # acts on one item closer than this belong to one exposure
WATCH_UNKNOWN: Final = 255
WATCH_MOST: Final = 250  # per cent; beyond two and a half replays more says nothing

Entry: TypeAlias = tuple[int, int, int, int]  # at_s, item key, action bits, watch per cent
Positive: TypeAlias = tuple[int, int]  # at_s, item key

_DISLIKE_BIT: Final = 1 << (Action.ACTION_DISLIKE - 1)
_ROW: Final = struct.Struct(f"<qIIiqH{HISTORY}q{HISTORY}I{HISTORY}H{HISTORY}BH{POSITIVES}q{POSITIVES}IH{SEEN_EVENTS}Q")


class HistoryState(NamedTuple):
    """One row, opened."""

    updated_ms: int  # newest activity
    applied: int
    duplicates: int
    log_partition: int
    log_offset: int
    entries: tuple[Entry, ...]  # ascending, at most HISTORY
    positives: tuple[Positive, ...]  # ascending, at most POSITIVES
    seen: tuple[int, ...]  # event hashes in order of arrival, at most SEEN_EVENTS


EMPTY: Final = HistoryState(0, 0, 0, 0, 0, (), (), ())


def fold(state: HistoryState, act: Act) -> HistoryState:
    """The state after a new `act`; its event hash is remembered."""
    at_s = act.at_ms // 1000
    entries, bits = _with_act(state.entries, act, at_s)
    positives = state.positives
    if bits & _DISLIKE_BIT:
        positives = _without(positives, at_s, act.item_key)
    elif is_positive(act):
        positives = _with_positive(positives, at_s, act.item_key)
    return HistoryState(
        max(state.updated_ms, act.at_ms),
        state.applied + 1,
        state.duplicates,
        state.log_partition,
        state.log_offset,
        entries,
        positives,
        (*state.seen, act.event_hash)[-SEEN_EVENTS:],
    )


def remember(state: HistoryState, event_hash: int, at_ms: int) -> HistoryState:
    """The state after an activity that is no act (an impression): its id is remembered, its time counts."""
    return state._replace(updated_ms=max(state.updated_ms, at_ms), seen=(*state.seen, event_hash)[-SEEN_EVENTS:])


def stamp(state: HistoryState, duplicates: int, record: Record) -> HistoryState:
    """The state that says which record it reflects, and counts the duplicates found in it."""
    return HistoryState(
        state.updated_ms,
        state.applied,
        state.duplicates + duplicates,
        record.partition,
        record.offset,
        state.entries,
        state.positives,
        state.seen,
    )


def pack(state: HistoryState) -> bytes:
    """The row of a state."""
    at_s, items, actions, watch = zip(*state.entries, strict=True) if state.entries else ((), (), (), ())
    positive_at_s, positive_items = zip(*state.positives, strict=True) if state.positives else ((), ())
    unused, unused_positives = (0,) * (HISTORY - len(at_s)), (0,) * (POSITIVES - len(positive_at_s))
    return _ROW.pack(
        *state[:5],
        len(at_s),
        *items,
        *unused,
        *at_s,
        *unused,
        *actions,
        *unused,
        *watch,
        *unused,
        len(positive_at_s),
        *positive_items,
        *unused_positives,
        *positive_at_s,
        *unused_positives,
        len(state.seen),
        *state.seen,
        *(0,) * (SEEN_EVENTS - len(state.seen)),
    )


def unpack(row: bytes) -> HistoryState:
    """The state that `row` holds."""
    flat = _ROW.unpack(row)
    length = flat[5]
    start = 6
    items, at_s, actions, watch = (flat[start + k * HISTORY : start + k * HISTORY + length] for k in range(4))
    start += 4 * HISTORY
    positive_length = flat[start]
    positive_items = flat[start + 1 : start + 1 + positive_length]
    positive_at_s = flat[start + 1 + POSITIVES : start + 1 + POSITIVES + positive_length]
    start += 1 + 2 * POSITIVES
    entries = tuple(zip(at_s, items, actions, watch, strict=True))
    positives = tuple(zip(positive_at_s, positive_items, strict=True))
    return HistoryState._make((*flat[:5], entries, positives, flat[start + 1 : start + 1 + flat[start]]))


def watch_share(play_ms: int, duration_ms: int) -> int:
    """Per cent of the item that was played, at most WATCH_MOST; WATCH_UNKNOWN without a play or a duration."""
    if play_ms < 0 or duration_ms <= 0:
        return WATCH_UNKNOWN
    return min(WATCH_MOST, 100 * play_ms // duration_ms)


def _with_act(entries: tuple[Entry, ...], act: Act, at_s: int) -> tuple[tuple[Entry, ...], int]:
    """The entries after the act, and the action bits of its exposure."""
    bits = 1 << (act.action - 1)
    watch = watch_share(act.play_ms, act.duration_ms)
    changed = list(entries)
    place = _exposure(entries, at_s, act.item_key)
    if place >= 0:
        old_at_s, _, old_bits, old_watch = changed.pop(place)
        at_s = min(at_s, old_at_s)
        bits |= old_bits
        watch = _added(watch, old_watch)
    insort(changed, (at_s, act.item_key, bits, watch))
    return tuple(changed[-HISTORY:]), bits


def _with_positive(positives: tuple[Positive, ...], at_s: int, item: int) -> tuple[Positive, ...]:
    changed = list(positives)
    place = _exposure(positives, at_s, item)
    if place >= 0:
        at_s = min(at_s, changed.pop(place)[0])
    insort(changed, (at_s, item))
    return tuple(changed[-POSITIVES:])


def _without(positives: tuple[Positive, ...], at_s: int, item: int) -> tuple[Positive, ...]:
    place = _exposure(positives, at_s, item)
    return positives if place < 0 else positives[:place] + positives[place + 1 :]


def _exposure(entries: tuple[Entry, ...] | tuple[Positive, ...], at_s: int, item: int) -> int:
    """Where the newest entry of `item` within EXPOSURE_S of `at_s` stands; -1 when there is none."""
    earliest, latest = at_s - EXPOSURE_S, at_s + EXPOSURE_S
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        if entry[0] < earliest:
            return -1
        if entry[1] == item and entry[0] <= latest:
            return place
    return -1


def _added(watch: int, more: int) -> int:
    if watch == WATCH_UNKNOWN or more == WATCH_UNKNOWN:
        return min(watch, more)
    return min(WATCH_MOST, watch + more)
