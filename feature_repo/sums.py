"""What is counted per thing rather than per user: partial sums, one per source partition, merged where they are read.

Nothing is shared between partitions while streaming: each partition's owner writes its own sums in the
transaction that advances its cursor. There is no merging process to keep alive: a row read is the sum of at most
as many rows as the log has partitions.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.folds import item_statistics, popularity
from feature_repo.layouts import CELLS, ITEMS
from feature_repo.schema import CELL_POPULARITY, ITEM_STATISTICS


class Sum(NamedTuple):
    """One table of partial sums."""

    table: str  # and the name of its Feast view
    row: np.dtype[np.void]
    merged: Callable[[NDArray[np.void]], NDArray[np.void]]  # partial sums (n,) -> one row (1,)


CELL_SUMS: Final = Sum(CELL_POPULARITY, CELLS, popularity.merged)
ITEM_SUMS: Final = Sum(ITEM_STATISTICS, ITEMS, item_statistics.merged)
SUMS: Final = (CELL_SUMS, ITEM_SUMS)
