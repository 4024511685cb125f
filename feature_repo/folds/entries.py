"""Entries of the log as columns of numbers: what the compiled folds run over.

One decoding serves every view. What needs text (attribution, names of items) stays beside the numbers as Act.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.geo import cell_of, centre_of
from core.ids import event_hash
from feature_repo.folds.act import ABSENT, UNKNOWN_PLACE, Act, act_of, is_positive
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.popularity import popular_cell
from protos.events.v1.activity_pb2 import Activity, Forget
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction

LATE_MS: Final = 24 * 3600 * 1000  # older than its record by more, an act is history, but no habit: see `fold_entries`

ACT, IMPRESSION, FORGET = 0, 1, 2  # kinds

ENTRY: Final = np.dtype(
    [
        ("slot", "<i4"),  # row of the user
        ("kind", "u1"),
        ("late", "?"),
        ("offset", "<i8"),  # of the record
        ("id_hash", "<u8"),
        ("at_ms", "<i8"),
        ("item", "<i8"),
        ("place", "<i4"),  # of the item in the catalogue, or UNKNOWN_PLACE
        ("action", "u1"),
        ("positive", "?"),
        ("play_ms", "<i8"),
        ("duration_ms", "<i8"),
        ("weight", "<f4"),
        ("cell", "<u8"),  # H3 cell of the user, as fine as may be kept; 0 = unknown
        ("latitude", "<f8"),  # of the cell's centre
        ("longitude", "<f8"),
        ("popular_cell", "<u8"),  # H3 cell whose popularity the act counts for; 0 = unknown
    ]
)


Message: TypeAlias = Interaction | Impression | Forget


class LogEntry(NamedTuple):
    """A valid activity where it stands in the log."""

    record: Record
    user_id: str
    message: Message  # what the Activity holds


class Columns(NamedTuple):
    """n entries, decoded."""

    numbers: NDArray[np.void]  # (n,) ENTRY
    acts: list[Act | None]  # (n,) None where the entry is none
    answering: list[int]  # places of entries that attribution must see: all but acts that name no request


def message_of(activity: Activity) -> Message | None:
    """What an activity holds; None when it is of no kind that is known here."""
    kind = activity.WhichOneof("kind")
    if kind == "interaction":
        return activity.interaction
    if kind == "impression":
        return activity.impression
    return activity.forget if kind == "forget" else None


def columns(entries: Sequence[LogEntry], slots: Sequence[int], context: FoldContext) -> Columns:
    """The entries (n,) as columns; `slots` (n,) are the rows of their users."""
    rows: list[tuple[float, ...]] = []
    acts: list[Act | None] = []
    answering: list[int] = []
    for place, ((record, _, message), slot) in enumerate(zip(entries, slots, strict=True)):
        if isinstance(message, Interaction):
            act = act_of(message, context.items)
            acts.append(act)
            if act.request_id:
                answering.append(place)
            rows.append((slot, ACT, record.recorded_ms - act.at_ms > LATE_MS, record.offset, *_numbers(act, context)))
            continue
        acts.append(None)
        answering.append(place)
        if isinstance(message, Impression):
            id_hash, at_ms = impression_hash(message), served_ms(message)
            rows.append((slot, IMPRESSION, False, record.offset, id_hash, at_ms, *_NO_ACT))
        else:
            rows.append((slot, FORGET, False, record.offset, 0, 0, *_NO_ACT))
    numbers = np.zeros(len(rows), ENTRY)
    for name, column in zip(ENTRY.names or (), zip(*rows, strict=True), strict=False):  # far cheaper than by rows
        numbers[name] = column
    return Columns(numbers, acts, answering)


def _numbers(act: Act, context: FoldContext) -> tuple[float, ...]:
    """The fields of ENTRY from id_hash on."""
    latitude, longitude = act.latitude, act.longitude
    where: tuple[float, ...] = _NOWHERE
    if latitude == latitude:
        cell = cell_of(latitude, longitude, context.location_resolution)
        where = (cell, *_centre(cell), popular_cell(latitude, longitude, context.location_resolution))
    return (
        act.event_hash,
        act.at_ms,
        act.item_key,
        context.items.place(act.item_key),
        act.action,
        is_positive(act),
        act.play_ms,
        act.duration_ms,
        act.weight,
        *where,
    )


def impression_hash(impression: Impression) -> int:
    """The hash by which a user's state recognises an impression it has seen; apart from event ids."""
    return event_hash(f"impression\x00{impression.request_id}")


def served_ms(impression: Impression) -> int:
    """When the answer was given, platform milliseconds."""
    return impression.served_at.seconds * 1000 + impression.served_at.nanos // 1_000_000


_NOWHERE: Final = (0, 0.0, 0.0, 0)
_NO_ACT: Final = (0, UNKNOWN_PLACE, 0, False, ABSENT, ABSENT, 0.0, *_NOWHERE)


@lru_cache(maxsize=1 << 14)
def _centre(cell: int) -> tuple[float, float]:
    return centre_of(cell)
