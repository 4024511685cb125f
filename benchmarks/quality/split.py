"""One question put to every model: what it may learn from, which acts it is asked for, and what came before them.

Letters used in this file
    N acts   Q acts that are asked for   I items of the catalogue   L length of a history
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from protos.catalog.v1.catalog_pb2 import Item

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.integer]
Flags = npt.NDArray[np.bool_]


class Events(NamedTuple):
    """N acts, ordered by user, then time, then as they were given."""

    users: Ints  # (N,)
    items: Ints  # (N,) catalogue index
    at_s: Longs  # (N,) Unix time, seconds
    good: Flags  # (N,) may be what a model is asked for
    shares: Floats  # (N,) of the video watched, or of the highest rating; NaN = unknown


class Split(NamedTuple):
    """One protocol at one stage. The history of an act is what stands before it among its user's acts."""

    protocol: str
    stage: str  # "valid", by which everything is chosen, or "test", which is read last
    items: Sequence[Item]  # position = catalogue index; text in title, categories in tags, place in location
    events: Events
    learn: Flags  # (N,) acts that training may see, as input or as target
    asked: Longs  # (Q,) which acts are asked for
    mask_seen: bool  # whether the protocol's own figure leaves out what the user had before
    groups: Mapping[str, Flags] = MappingProxyType({})  # name -> (Q,) asked acts that are also reported apart
    ranked: Flags | None = None  # (I,) the items that are candidates; None = all
    new: int = 0  # how many items, the last of the catalogue, came after all training
    exposed: bool = False  # asks how what was shown is ordered (good before the rest), not which item comes next
    traits: Longs | None = None  # (users, F) what is published of each user, by code, -1 = unknown; None = not told
    zone: str = "UTC"  # where hours and weekdays are read, an IANA name
    time_known: bool = True  # whether a model may read the time of the act that is asked for


def ordered(
    users: Whole, items: Whole, at_s: Whole, good: Flags, shares: npt.NDArray[np.floating] | None = None
) -> Events:
    """Events from columns in any order, of which those of one user and second stand as they should stay."""
    order = np.lexsort((np.arange(len(users)), at_s, users))
    known = np.full(len(users), np.nan, np.float32) if shares is None else shares
    return Events(
        users[order].astype(np.int32),
        items[order].astype(np.int32),
        at_s[order].astype(np.int64),
        good[order].astype(np.bool_),
        known[order].astype(np.float32),
    )


def first_of_user(users: Ints) -> Longs:
    """(N,) index of the first act of each act's user."""
    return np.searchsorted(users, users, side="left").astype(np.int64)


def histories(events: Events, asked: Longs, length: int, kept: Flags | None = None) -> Longs:
    """(Q, L) event index of what stands before each asked act, newest first; -1 = none.

    Args:
        asked: (Q,) event indices.
        kept: (N,) acts to look at; None = all.
    """
    index = np.arange(len(events.users)) if kept is None else np.flatnonzero(kept)
    places = np.searchsorted(index, asked)[:, None] - np.arange(1, length + 1)
    found = np.where(places >= 0, np.append(index, -1)[np.maximum(places, 0)], -1)
    return np.where(found >= first_of_user(events.users)[asked][:, None], found, -1)


def good_sequences(split: Split) -> list[Ints]:
    """Per user with any, the items of the good acts that may be learned from, oldest first."""
    kept = split.learn & split.events.good
    users, items = split.events.users[kept], split.events.items[kept]
    return np.split(items, np.flatnonzero(np.diff(users)) + 1) if len(items) else []


def seen_pairs(events: Events, asked: Longs) -> tuple[Longs, Ints]:
    """(row of `asked`, item) of every item in its history, each once."""
    first = first_of_user(events.users)[asked]
    lengths = asked - first
    rows = np.repeat(np.arange(len(asked)), lengths)
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(first, lengths)
    width = int(events.items.max(initial=0)) + 1
    pairs = np.unique(rows * width + events.items[places])
    return pairs // width, (pairs % width).astype(np.int32)


def local_s(at_s: Longs, zone: str) -> Longs:
    """Seconds since 1970-01-01 00:00 on the clocks of the zone; any shape."""
    hours, places = np.unique(at_s // 3_600, return_inverse=True)
    clock = ZoneInfo(zone)
    offsets = [datetime.fromtimestamp(hour * 3_600, clock).utcoffset() for hour in hours.tolist()]
    shifts = np.array([0 if offset is None else offset.total_seconds() for offset in offsets], np.int64)
    return at_s + shifts[places].reshape(at_s.shape)


def check_split(split: Split) -> None:
    """Raises:
    InputError: no model could answer it: shapes that differ, disorder, unknown items, a target that may be learned.
    """
    events, asked = split.events, split.asked
    count = len(events.users)
    for name, column in (*events._asdict().items(), ("learn", split.learn)):
        if column.shape != (count,):
            raise InputError(f"{split.protocol}: {name} has shape {column.shape}, expected ({count},); see Events")
    if not len(asked):
        raise InputError(f"{split.protocol}, {split.stage}: found no act to ask for, expected at least one")
    steps = np.diff(events.users)
    if (steps < 0).any() or (np.diff(events.at_s)[steps == 0] < 0).any():
        raise InputError(f"{split.protocol}: found acts out of order, expected by user, then time; use `ordered`")
    if count and not 0 <= events.items.min() <= events.items.max() < len(split.items):
        raise InputError(f"{split.protocol}: found items beyond the catalogue's {len(split.items)}; drop those acts")
    names = {item.item_id for item in split.items}
    if len(names) < len(split.items):
        raise InputError(f"{split.protocol}: found {len(split.items) - len(names)} repeated item ids, expected none")
    if (events.items[split.learn] >= len(split.items) - split.new).any():
        raise InputError(f"{split.protocol}: found acts on new items among those to learn from, expected none: a leak")
    if split.learn[asked].any():
        raise InputError(f"{split.protocol}: found asked acts among those to learn from, expected none: a leak")
