"""Recorded interactions -> what the generator learns from: the rows a scorer would have read, and what came next.

The interactions pass through the very folds that streaming runs (feature_repo.folds.user), and a user's rows are
taken as they stood before the exposure that turned out good. So a model is trained on what it will be asked with, and
no act of the target's own exposure, nor anything later, is in its context.

Users are independent in these folds, so each is folded to the end before the next: the memory needed is that of the
interactions and of the samples asked for, not of everybody's state.

Source: OneRec-V2, arXiv:2508.20900 §2: samples by time, loss on the newest item only, so that no transition is
learned twice. Chosen here: one sample per exposure with a positive act, where the paper takes every impression of
the request; a platform that records only acts has no others.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.ids import ItemKey
from feature_repo.folds.act import is_positive
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.history import EXPOSURE_S
from feature_repo.folds.user import EMPTY, UserState, fold_record, rows_of
from feature_repo.layouts import UserRows
from models.batches import ContextBatch, Ints
from models.catalog import Catalog
from models.contexts import context_batch
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction

FOREVER: Final = 1 << 62
_OPEN: Final = 64  # exposures of one user that are looked after before old ones are closed


class Samples(NamedTuple):
    """n exposures that turned out good, by time: what was known before each, and the item."""

    rows: UserRows  # of n users
    users: list[str]
    items: npt.NDArray[np.int64]  # (n,) core.ids.item_key
    at_ms: npt.NDArray[np.int64]  # (n,) first act of the exposure
    locations: npt.NDArray[np.float64]  # (n, 2) where the user was then; NaN = unknown


class _Exposure(NamedTuple):
    item: ItemKey
    at_ms: int
    latitude: float
    longitude: float
    before: UserState
    liked: bool = False
    disliked: bool = False


def folded_samples(
    interactions: Iterable[Interaction], context: FoldContext, *, since_ms: int = 0, until_ms: int = FOREVER
) -> Samples:
    """A sample for each good exposure that begins in since_ms <= time < until_ms.

    An exposure is one user's acts on one item within `history.EXPOSURE_S` of its first; it is good when one of them
    is positive and none a dislike. Interactions outside the range are folded all the same.

    Args:
        interactions: valid ones; each user's in the order of the log. Neighbouring acts of one user at one instant
            count as one record, as a client sends them.
    """
    logs: dict[str, list[Interaction]] = {}
    for interaction in interactions:
        logs.setdefault(interaction.user_id, []).append(interaction)
    users: list[str] = []
    found: list[tuple[int, int, float, float]] = []
    packed = [rows_of([])]
    for user_id, log in logs.items():
        good = [exposure for exposure in _good_exposures(log, context) if since_ms <= exposure.at_ms < until_ms]
        if good:
            users += [user_id] * len(good)
            found += [(exposure.item, exposure.at_ms, exposure.latitude, exposure.longitude) for exposure in good]
            packed.append(rows_of([exposure.before for exposure in good]))
    items, at_ms = np.array([row[:2] for row in found], np.int64).reshape(-1, 2).T
    order = np.argsort(at_ms, kind="stable")
    return Samples(
        rows=_rows_at(UserRows._make(np.concatenate(views) for views in zip(*packed, strict=True)), order),
        users=[users[row] for row in order],
        items=items[order],
        at_ms=at_ms[order],
        locations=np.array([row[2:] for row in found], np.float64).reshape(-1, 2)[order],
    )


def example_contexts(samples: Samples, catalog: Catalog) -> tuple[ContextBatch, Ints]:
    """Model input of the m samples whose item the catalogue knows, and (m, 1) the catalogue indices of those items."""
    items = catalog.indices_of(samples.items)
    known = np.flatnonzero(items >= 0)
    rows = _rows_at(samples.rows, known)
    return context_batch(rows, catalog, samples.at_ms[known], samples.locations[known]), items[known, None]


def _good_exposures(log: Sequence[Interaction], context: FoldContext) -> Iterator[_Exposure]:
    """One user's good exposures, each once, in the order in which they close."""
    state = EMPTY
    running: dict[ItemKey, _Exposure] = {}
    for offset, (at_ms, together) in enumerate(groupby(log, _at_ms)):
        before = state
        activities = [Activity(interaction=act) for act in together]
        state, result = fold_record(before, activities, Record(0, offset, at_ms, at_ms), context)
        for act in result.acts:
            exposure = running.get(act.item_key)
            if exposure is None or act.at_ms - exposure.at_ms > EXPOSURE_S * 1000:
                if exposure is not None:
                    yield from _if_good(exposure)
                exposure = _Exposure(act.item_key, act.at_ms, act.latitude, act.longitude, before)
            running[act.item_key] = exposure._replace(
                liked=exposure.liked or is_positive(act),
                disliked=exposure.disliked or act.action == Action.ACTION_DISLIKE,
            )
        if len(running) > _OPEN:
            for exposure in list(running.values()):
                if at_ms - exposure.at_ms > EXPOSURE_S * 1000:
                    yield from _if_good(running.pop(exposure.item))
    for exposure in running.values():
        yield from _if_good(exposure)


def _if_good(exposure: _Exposure) -> tuple[_Exposure, ...]:
    return (exposure,) if exposure.liked and not exposure.disliked else ()


def _rows_at(rows: UserRows, places: npt.NDArray[np.intp]) -> UserRows:
    return UserRows._make(view[places] for view in rows)


def _at_ms(interaction: Interaction) -> int:
    return interaction.occurred_at.ToMilliseconds()
