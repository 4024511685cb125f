"""What a demo is about: whose recorded days are replayed, and how people act on what they are shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from feature_repo.folds.context import FoldContext
from models.catalog import Catalog
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Interaction, Location
from rl.rewards import GlobalTable
from rl.user_model import UserModel

USERS_FILE: Final = "users.npz"  # the fitted user model, for the gate
TABLE_FILE: Final = "rewards.npz"  # the global table of the reward
VERDICT_FILE: Final = "verdict.json"  # of the gate, as protobuf JSON


class Shown(NamedTuple):
    """An answered slate, as a person sees it."""

    request_id: str
    user_id: str
    item_ids: tuple[str, ...]
    served_at_ms: int
    location: Location | None


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


class Scenario(Protocol):
    """One demo."""

    def recorded(self) -> Recorded:
        """Its input."""

    def user_model(
        self, recorded: Recorded, catalog: Catalog, context: FoldContext, home: Path
    ) -> tuple[UserModel, GlobalTable]:
        """How its people act, stated on earlier days only, and the reward table of those days."""

    def learn_arguments(self, home: Path) -> tuple[str, ...]:
        """What `nearfeed` is asked for the policy update."""
