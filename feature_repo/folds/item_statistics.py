"""item_statistics: how often an item is shown, played, watched and liked, with a half-life of days.

Like cells, items are nobody's own: each partition of the log keeps a partial sum, `merged` adds them.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.folds.compiled import compiled
from feature_repo.folds.popularity import STEP_MS
from feature_repo.layouts import ITEMS
from protos.events.v1.interaction_pb2 import Action

HALF_LIFE_MS: Final = 3 * 24 * 3600 * 1000  # a video's life; long enough for a rare place
_SHARE_MOST: Final = 2.5  # as in histories
_DISLIKE: Final = int(Action.ACTION_DISLIKE)
_COUNTS: Final = ("shown", "plays", "watched", "positives", "dislikes")


@compiled
def fold(row: Any, entry: Any) -> None:
    """`row` (ITEMS) after one act on the item."""
    share = _moved(row, entry.at_ms)
    if entry.play_ms >= 0:
        row.plays += share
        if entry.duration_ms > 0:
            row.watched += share * min(_SHARE_MOST, entry.play_ms / entry.duration_ms)
    if entry.positive:
        row.positives += share
    if entry.action == _DISLIKE:
        row.dislikes += share


@compiled
def show(row: Any, at_ms: int) -> None:
    """`row` (ITEMS) after the item stood in an answer."""
    share = _moved(row, at_ms)
    row.shown += share


@compiled
def _moved(row: Any, at_ms: int) -> float:
    """The counts are those of nearly the newest time, as in cells; what one more at `at_ms` counts then."""
    if at_ms - row.updated_ms >= STEP_MS:
        share = 0.5 ** ((at_ms - row.updated_ms) / HALF_LIFE_MS)
        row.shown = np.float32(row.shown * share)
        row.plays = np.float32(row.plays * share)
        row.watched = np.float32(row.watched * share)
        row.positives = np.float32(row.positives * share)
        row.dislikes = np.float32(row.dislikes * share)
        row.updated_ms = at_ms
    return 0.5 ** ((row.updated_ms - at_ms) / HALF_LIFE_MS)


def merged(partials: NDArray[np.void]) -> NDArray[np.void]:
    """One ITEMS row, (1,): the sum of partial sums as of the newest of them; zeros of none."""
    row = np.zeros(1, ITEMS)
    if len(partials):
        newest = int(partials["updated_ms"].max())
        shares = 0.5 ** ((newest - partials["updated_ms"]) / HALF_LIFE_MS)
        row["updated_ms"] = newest
        for count in _COUNTS:
            row[count] = partials[count] @ shares
    return row
