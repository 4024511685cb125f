"""Rows as ordinary values: what people and Feast see of a stored record.

The schema of every view is derived from its layout, so the two cannot drift: a scalar field becomes
a number, an array becomes a list cut to the length that its row names. Lengths themselves and the
hashes of seen events stay inside, and the time of a row is told beside its values. Names are distinct
over all views, so that a feature service can be read without full feature names.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError
from feature_repo.layouts import CELLS, HISTORY_ROW, INTERESTS, ITEMS, PLACES, WATCH
from feature_repo.schema import (
    CELL_POPULARITY,
    ITEM_STATISTICS,
    USER_HISTORY,
    USER_INTERESTS,
    USER_PLACES,
    USER_WATCH,
)

Value: TypeAlias = int | float | list[int] | list[float]


class View(NamedTuple):
    """How the values of one view lie in its row."""

    name: str  # of the Feast view
    row: np.dtype[np.void]
    fields: dict[str, str]  # visible name -> field of the row, in the row's order
    lengths: dict[str, str]  # array field -> the field that says how much of it is used


def _view(
    name: str,
    row: np.dtype[np.void],
    lengths: dict[str, str] | None = None,
    inside: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
) -> View:
    hidden = {"updated_ms", *inside}
    renamed = renamed or {}
    visible = {renamed.get(field, field): field for field in row.names or () if field not in hidden}
    return View(name, row, visible, lengths or {})


USER_VIEWS: Final = (
    _view(USER_INTERESTS, INTERESTS),
    _view(
        USER_HISTORY,
        HISTORY_ROW,
        {
            **dict.fromkeys(("item", "at_s", "actions", "watch"), "length"),
            **dict.fromkeys(("positive_item", "positive_at_s", "positive_code"), "positive_length"),
        },
        inside=("length", "positive_length", "seen_count", "seen"),
    ),
    _view(USER_WATCH, WATCH, {"play_ds": "length"}, renamed={"count": "plays_ever", "length": "plays_kept"}),
    _view(USER_PLACES, PLACES, dict.fromkeys(("cell", "night", "day"), "length"), inside=("length",)),
)
CELL_VIEW: Final = _view(
    CELL_POPULARITY,
    CELLS,
    dict.fromkeys(("item", "score"), "length"),
    inside=("length",),
    renamed={
        "item": "popular_item",
        "score": "popular_score",
        "weight": "context_weight",
        "context": "context_vector",
    },
)
ITEM_VIEW: Final = _view(ITEM_STATISTICS, ITEMS)
VIEWS: Final = {view.name: view for view in (*USER_VIEWS, CELL_VIEW, ITEM_VIEW)}


def decode(view: View, value: bytes) -> dict[str, Value]:
    """The visible values of a stored row. Lists of lists are joined: play_ds holds one bucket's plays after another."""
    row = np.frombuffer(value, view.row)[0]
    return {name: _visible(row, field, view.lengths.get(field)) for name, field in view.fields.items()}


def encode(view: View, values: Mapping[str, Value], updated_ms: int) -> bytes:
    """The row that holds `values`; what they do not name is zero, lengths follow the lists.

    Raises:
        InputError: a list is longer than the row has room for, or shorter than a vector, or disagrees with its lengths.
    """
    row = np.zeros((), view.row)
    row["updated_ms"] = updated_ms
    visible = {field: name for name, field in view.fields.items()}
    for name, value in values.items():
        field = view.fields.get(name)
        if field is None:
            continue
        shape = view.row[field].shape
        length = view.lengths.get(field)
        if isinstance(value, list) and length is None:
            if len(value) != np.prod(shape):
                raise InputError(f"{view.name}.{name}: found {len(value)} values, expected {np.prod(shape)}")
            row[field] = np.reshape(value, shape)
        elif isinstance(value, list) and len(shape) == 2:
            _put_joined(row[field], f"{view.name}.{name}", value, values.get(visible[view.lengths[field]]))
        elif isinstance(value, list):
            if len(value) > shape[0]:
                raise InputError(f"{view.name}.{name}: found {len(value)} values, expected at most {shape[0]}")
            row[field][: len(value)] = value
            row[length] = len(value)
        else:
            row[field] = value
    return row.tobytes()


def updated_ms(view: View, value: bytes) -> int:
    """The event time of a stored row, milliseconds since 1970; 0 = nothing was ever folded in."""
    return int(np.frombuffer(value, view.row)["updated_ms"][0])


def _visible(row: np.void, name: str, length: str | None) -> Any:
    value = row[name]
    if length is not None:
        used = row[length]
        value = value[:used] if np.ndim(used) == 0 else value[np.arange(value.shape[1]) < used[:, None]]
    return value.ravel().tolist() if np.ndim(value) > 1 else value.tolist()


def _put_joined(places: NDArray[Any], name: str, value: list[Any], lengths: Value | None) -> None:
    width = places.shape[1]
    if not isinstance(lengths, list) or sum(lengths) != len(value) or max(lengths, default=0) > width:
        raise InputError(f"{name}: found {len(value)} values in lists of {lengths}, expected lists of at most {width}")
    places[np.arange(width) < np.asarray(lengths)[:, None]] = value
