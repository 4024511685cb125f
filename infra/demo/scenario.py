"""What a demo is about: whose recorded days are replayed, and how people act on what they are shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Interaction, Location


class Shown(NamedTuple):
    """An answered slate, as a person sees it."""

    request_id: str
    user_id: str
    item_ids: tuple[str, ...]
    served_at_ms: int
    location: Location | None


class Actor(Protocol):
    """Decides what people do with a slate; fitted on earlier days only."""

    def acts(self, shown: Shown, rng: np.random.Generator) -> list[Interaction]:
        """The acts on one slate in order of time, naming its request_id; origin simulated."""


@dataclass(frozen=True)
class Recorded:
    """The input of one demo. All interactions are in order of `occurred_at`."""

    name: str  # "kuairand", "city"
    title: str
    items: Sequence[Item]
    sequences: Sequence[npt.NDArray[np.int64]]  # item keys per user before the first live day, for the item vectors
    past: Sequence[Interaction]  # all that the generator and the user model may see, and whose it is
    training_start_ms: int  # good exposures since then are learned from; what is older is context
    imported: Sequence[Interaction]  # the live users' part of the past: it goes through the log before anything else
    live: Sequence[Interaction]  # the days that are replayed
    live_start_ms: int  # platform time at which the replay begins
    speed: float  # platform seconds per wall second
    utc_offset_minutes: int  # local time of the recorded days
    location_of: Callable[[str, int], Location | None]  # (user_id, platform ms) -> where the user is, if known
