"""One stored record as named fields, the same as the log has it, and the first field in which the two differ.

Integers, lists and texts must be equal. Floats have tolerances, which hide rounding and nothing else: a lost or doubled
act changes a whole number beside them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from feature_repo.layouts import UserRows
from tests.faults.plain_user import User

Value: TypeAlias = int | float | list[Any] | dict[Any, Any]


class Tolerance(NamedTuple):
    absolute: float
    relative: float


TOLERANCES = {
    "places.last": Tolerance(1e-4, 0.0),  # degrees; float32 has steps of 1e-5 there
    "places.mean": Tolerance(1e-4, 0.0),
    "places.radius_m": Tolerance(2.0, 1e-6),  # computed from such positions
    "score": Tolerance(1e-3, 1e-4),  # float32, rounded at each act
    "counts": Tolerance(1e-3, 1e-4),
}


def expected_fields(user: User) -> dict[str, Value]:
    """What the row of a user must hold, by field."""
    places = user.places
    ring = [0] * 64
    for count, hashed in enumerate(user.remembered):
        ring[count % 64] = hashed
    return {
        "history.updated_ms": user.updated_ms,
        "history.applied": user.applied,
        "history.duplicates": user.duplicates,
        "history.log_partition": user.log_partition,
        "history.log_offset": user.log_offset,
        "history.at_s": [entry[0] for entry in user.exposures],
        "history.item": [entry[1] for entry in user.exposures],
        "history.actions": [entry[2] for entry in user.exposures],
        "history.watch": [entry[3] for entry in user.exposures],
        "history.positive_at_s": [entry[0] for entry in user.positives],
        "history.positive_item": [entry[1] for entry in user.positives],
        "history.positive_code": [255] * len(user.positives),
        "history.seen_count": len(user.remembered),
        "history.seen": ring,
        "watch.updated_ms": user.watch_updated_ms,
        "watch.count": user.watch_count,
        "watch.play_ds": user.play_ds,
        "places.updated_ms": places.updated_ms,
        "places.last_cell": places.last_cell,
        "places.last": list(places.last),
        "places.mean": list(places.mean),
        "places.radius_m": places.radius_m,
        "places.home_cell": places.home_cell,
        "places.work_cell": places.work_cell,
        "places.cells": places.cells,
        "interests": [],
    }


def stored_fields(rows: UserRows, at: int) -> dict[str, Value]:
    """The same of a stored row."""
    history, watch, places = rows.history[at], rows.watch[at], rows.places[at]
    length, positives = int(history["length"]), int(history["positive_length"])
    fields: dict[str, Value] = {f"history.{name}": int(history[name]) for name in _HISTORY_NUMBERS}
    fields |= {f"history.{name}": history[name][:length].tolist() for name in ("at_s", "item", "actions", "watch")}
    fields |= {
        f"history.{name}": history[name][:positives].tolist()
        for name in ("positive_at_s", "positive_item", "positive_code")
    }
    fields |= {"history.seen": history["seen"].tolist()}
    fields |= {"watch.updated_ms": int(watch["updated_ms"]), "watch.count": watch["count"].tolist()}
    fields["watch.play_ds"] = [
        plays[:used].tolist() for plays, used in zip(watch["play_ds"], watch["length"], strict=True)
    ]
    fields |= {f"places.{name}": int(places[name]) for name in ("updated_ms", "last_cell", "home_cell", "work_cell")}
    fields["places.radius_m"] = float(places["radius_m"])
    for name in ("last", "mean"):
        fields[f"places.{name}"] = [float(places[f"{name}_latitude"]), float(places[f"{name}_longitude"])]
    columns = (places[name][: places["length"]].tolist() for name in ("cell", "night", "day"))
    fields["places.cells"] = [list(cell) for cell in zip(*columns, strict=True)]
    fields["interests"] = _not_zero(rows.interests[at])
    return fields


_HISTORY_NUMBERS = ("updated_ms", "applied", "duplicates", "log_partition", "log_offset", "seen_count")


def first_difference(found: Mapping[str, Value], expected: Mapping[str, Value]) -> str:
    """The first field that differs, in words; empty when none does."""
    for name, must in expected.items():
        allowed = TOLERANCES.get(name)
        same = found[name] == must if allowed is None else _close(found[name], must, allowed)
        if not same:
            return f"{name} found {_short(found[name])}, expected {_short(must)}"
    return ""


def differing_field(found: Message, expected: Message) -> str:
    """The first field in which two messages of one kind differ, in words."""
    for field in expected.DESCRIPTOR.fields:
        mine, must = getattr(found, field.name), getattr(expected, field.name)
        presence = field.has_presence and found.HasField(field.name) != expected.HasField(field.name)
        if mine != must or presence:
            return f"{field.name} found {_short(mine)}, expected {_short(must)}"
    return "unknown fields"


def _close(found: Value, expected: Value, allowed: Tolerance) -> bool:
    return all(
        abs(mine - must) <= allowed.absolute + allowed.relative * abs(must) for mine, must in _pairs(found, expected)
    )


def _pairs(found: Value, expected: Value) -> Iterator[tuple[float, float]]:
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        return iter([(found[key], must) for key, must in expected.items()])
    if isinstance(expected, list):
        assert isinstance(found, list)
        return zip(found, expected, strict=True)
    return iter([(float(found), expected)])  # type: ignore[arg-type]


def _not_zero(row: NDArray[np.void]) -> list[str]:
    """The fields of a row that are not zero everywhere."""
    return [name for name in row.dtype.names or () if np.any(row[name])]


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
