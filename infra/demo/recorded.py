"""The input of a demo: what may be learned from, and the days that are replayed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Interaction, Location


@dataclass(frozen=True)
class Recorded:
    """The input of one demo. All interactions are in order of `occurred_at`."""

    name: str  # "kuairand", "city"
    title: str
    items: Sequence[Item]
    sequences: Sequence[npt.NDArray[np.int64]]  # item keys per user before the first live day, for the item vectors
    earlier: Sequence[npt.NDArray[np.int64]]  # the same before `training_start_ms`, for the neighbour tables
    past: Sequence[Interaction]  # all that the generator and the user model may see, and whose it is
    training_start_ms: int  # good exposures since then are learned from; what is older is context
    imported: Sequence[Interaction]  # the live users' part of the past: it goes through the log before anything else
    live: Sequence[Interaction]  # the days that are replayed
    live_start_ms: int  # platform time at which the replay begins
    speed: float  # platform seconds per wall second
    location_of: Callable[[str, int], Location | None]  # (user_id, platform ms) -> where the user is, if known
