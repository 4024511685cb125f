"""Recorded acts -> exposures: who was shown what, what was known of the person before, what followed.

The acts pass through the folds that streaming runs, user by user, and a person's rows are taken as they
stood before the exposure's first act: what a scorer would have read at that moment. Unlike
`models.dataset`, which keeps what turned out good, every exposure is here, the ignored ones above all.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.ids import ItemKey
from feature_repo.folds.act import Act
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.history import EXPOSURE_S
from feature_repo.folds.user import EMPTY, UserState, fold_record, rows_of
from feature_repo.layouts import UserRows
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Interaction
from rl.user_model import ACTS

CHUNK: Final = 2048  # exposures held as rows at once, about 6 MB
FOREVER: Final = 1 << 62


class Exposures(NamedTuple):
    """n exposures, each user's in order of time."""

    user_ids: list[str]  # (n,)
    rows: UserRows  # (n,) before the exposure
    items: npt.NDArray[np.int64]  # (n,) core.ids.item_key
    at_ms: npt.NDArray[np.int64]  # (n,) first act
    locations: npt.NDArray[np.float64]  # (n, 2) where the user was, NaN = unknown
    play_ms: npt.NDArray[np.int64]  # (n,) sum of plays; 0 = shown, not played
    duration_ms: npt.NDArray[np.int64]  # (n,) -1 = unknown
    acts: npt.NDArray[np.bool_]  # (n, A) which of rl.user_model.ACTS followed


class _Open:
    """One exposure while its acts come in."""

    def __init__(self, act: Act, before: UserState) -> None:
        self.user_id, self.item, self.at_ms, self.before = act.user_id, act.item_key, act.at_ms, before
        self.location = (act.latitude, act.longitude)
        self.play_ms, self.duration_ms, self.actions = 0, -1, set[int]()

    def add(self, act: Act) -> None:
        self.actions.add(act.action)
        self.play_ms += max(0, act.play_ms)
        self.duration_ms = max(self.duration_ms, act.duration_ms)


def exposures(
    interactions: Iterable[Interaction], context: FoldContext, *, since_ms: int = 0, until_ms: int = FOREVER
) -> Iterator[Exposures]:
    """All exposures that begin in since_ms <= time < until_ms, in chunks of about CHUNK.

    Args:
        interactions: valid ones, each user's in the order of the log; those before `since_ms` are folded,
            those from `until_ms` on are not looked at.
    """
    logs: dict[str, list[Interaction]] = {}
    for interaction in interactions:
        if interaction.occurred_at.ToMilliseconds() < until_ms:
            logs.setdefault(interaction.user_id, []).append(interaction)
    found: list[_Open] = []
    for log in logs.values():
        found += (one for one in _of_user(log, context) if one.at_ms >= since_ms)
        if len(found) >= CHUNK:
            yield _chunk(found)
            found = []
    if found:
        yield _chunk(found)


def _of_user(log: Sequence[Interaction], context: FoldContext) -> list[_Open]:
    state, found, running = EMPTY, list[_Open](), dict[ItemKey, _Open]()
    for offset, (at_ms, record) in enumerate(groupby(log, lambda event: event.occurred_at.ToMilliseconds())):
        before = state
        activities = [Activity(interaction=event) for event in record]
        state, result = fold_record(before, activities, Record(0, offset, at_ms, at_ms), context)
        for act in result.acts:
            exposure = running.get(act.item_key)
            if exposure is None or act.at_ms - exposure.at_ms > EXPOSURE_S * 1000:
                exposure = running[act.item_key] = _Open(act, before)
                found.append(exposure)
            exposure.add(act)
    return found


def _chunk(found: Sequence[_Open]) -> Exposures:
    return Exposures(
        user_ids=[one.user_id for one in found],
        rows=rows_of([one.before for one in found]),
        items=np.array([one.item for one in found], np.int64),
        at_ms=np.array([one.at_ms for one in found], np.int64),
        locations=np.array([one.location for one in found], np.float64),
        play_ms=np.array([one.play_ms for one in found], np.int64),
        duration_ms=np.array([one.duration_ms for one in found], np.int64),
        acts=np.array([[act in one.actions for act in ACTS] for one in found], np.bool_),
    )
