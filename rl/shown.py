"""Recorded acts -> what the value head learns from: what was shown, what was known then, and what followed."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from core.errors import InputError
from feature_repo.folds.act import LONG_VIEW_MS
from feature_repo.folds.context import FoldContext
from feature_repo.layouts import UserRows
from models.catalog import Catalog
from models.contexts import context_batch
from models.generator import Generator
from models.train_value_head import Flags, Shown, joined, shown_of
from models.values import Value
from protos.events.v1.interaction_pb2 import Action, Interaction
from rl.exposures import FOREVER, Exposures, exposures
from rl.user_model import ACTS

_ACTS: Final = {  # which acts make an outcome; a long watch is told by the play time
    Value.LIKED: [ACTS.index(Action.ACTION_LIKE)],
    Value.ORDERED: [ACTS.index(Action.ACTION_ORDER), ACTS.index(Action.ACTION_CHECK_IN)],
}


def shown_of_log(
    interactions: Iterable[Interaction],
    generator: Generator,
    catalog: Catalog,
    context: FoldContext,
    *,
    since_ms: int = 0,
    until_ms: int = FOREVER,
) -> Shown:
    """Every exposure of a known item that begins in since_ms <= time < until_ms, by time.

    Args:
        interactions: valid ones, each user's in the order of the log; those before `since_ms` are folded.
        generator: whose value head is meant.

    Raises:
        InputError: the days hold no exposure of a known item.
    """
    chunks = exposures(interactions, context, since_ms=since_ms, until_ms=until_ms)
    parts = [part for chunk in chunks for part in (_shown(chunk, generator, catalog),) if len(part.items)]
    if not parts:
        raise InputError("found no exposure of a known item, expected some; name other days")
    return joined(parts)


def _shown(chunk: Exposures, generator: Generator, catalog: Catalog) -> Shown:
    items = catalog.indices_of(chunk.items)
    known = np.flatnonzero(items >= 0)
    rows, at_ms = UserRows._make(view[known] for view in chunk.rows), chunk.at_ms[known]
    batch = context_batch(rows, catalog, at_ms, chunk.locations[known])
    return shown_of(generator, batch, items[known], _outcomes(chunk)[known], at_ms)


def _outcomes(chunk: Exposures) -> Flags:
    """(n, R); of an item of unknown length a watch of `LONG_VIEW_MS` is long."""
    outcomes = np.zeros((len(chunk.items), len(Value)), np.bool_)
    long_ms = np.where(chunk.duration_ms > 0, np.minimum(chunk.duration_ms, LONG_VIEW_MS), LONG_VIEW_MS)
    outcomes[:, Value.WATCHED] = chunk.play_ms >= long_ms
    for outcome, acts in _ACTS.items():
        outcomes[:, outcome] = chunk.acts[:, acts].any(axis=1)
    return outcomes
