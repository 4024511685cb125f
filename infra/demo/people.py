"""The live users: what they are like, frozen as of the evening before, and what they do with a slate."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_repo.layouts import UserRows
from feature_repo.store import FeatureReader
from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import Interaction, Location
from rl.simulator import Slate, slate_acts
from rl.user_model import UserModel, Viewers


class Shown(NamedTuple):
    """An answered slate, as a person sees it."""

    request_id: str
    user_id: str
    item_ids: tuple[str, ...]
    served_at_ms: int
    location: Location | None


class People:
    """Acts of the live users on slates, by the scenario's user model.

    Tastes are read once, before the first live act: the user model then owes nothing to what the platform
    learns while it is judged. An item that came to the catalogue later is looked at by nobody.
    """

    def __init__(self, model: UserModel, catalog: Catalog, user_ids: Sequence[str], reader: FeatureReader) -> None:
        self._model = model
        self._catalog = catalog
        self._rows = reader.read_users(user_ids)
        self._row_of = {user_id: row for row, user_id in enumerate(user_ids)}
        self._numbers = itertools.count()

    def acts(self, shown: Shown, rng: np.random.Generator) -> list[Interaction]:
        """The acts on one slate in order of time, naming its request_id; origin simulated."""
        row = self._row_of[shown.user_id]
        where = shown.location
        viewers = Viewers(
            [shown.user_id],
            _one(self._rows, row),
            np.array([shown.served_at_ms]),
            np.array([[where.latitude, where.longitude] if where else [np.nan, np.nan]]),
        )
        known = [item_id for item_id in shown.item_ids if self._catalog.index_of(item_id) is not None]
        slate = Slate(shown.request_id, shown.served_at_ms, known, where)
        return slate_acts(self._model, self._catalog, viewers, slate, rng=rng, new_id=self._new_id)

    def _new_id(self) -> str:
        return f"demo-act-{next(self._numbers)}"


def _one(rows: UserRows, row: int) -> UserRows:
    only = slice(row, row + 1)
    return UserRows(rows.interests[only], rows.history[only], rows.watch[only], rows.places[only], rows.found[only])
