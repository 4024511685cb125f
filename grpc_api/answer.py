"""A request as it was understood, and its answer: what every stage found, the slate, and what it falls short of."""

from typing import Final, NamedTuple

import numpy as np

from core.geo import distance_m
from feature_repo.folds.popularity import CellState
from feature_repo.layouts import UserRows
from grpc_api.filters import Sieved
from grpc_api.selection import Draw
from grpc_api.serving import Generated, Serving
from models.catalog import Catalog

# Why an answer is less than it could be; the labels of the metric and the words of the response.
STORE_LATE: Final = "store_late"
STORE_UNAVAILABLE: Final = "store_unavailable"
FEATURES_STALE: Final = "features_stale"  # the rows last read were used
FEATURES_ABSENT: Final = "features_absent"  # none were ever read here
GENERATOR_LATE: Final = "generator_late"
GENERATOR_FAILED: Final = "generator_failed"
SLATE_SHORT: Final = "slate_short"  # fewer items may be shown than were asked for

# Where a slot's item comes from.
GENERATOR: Final = "generator"
EXPLORED: Final = "explored"
NEARBY: Final = "nearby"
POPULAR: Final = "popular"
CATALOG: Final = "catalog"

Point = tuple[float, float]


class Query(NamedTuple):
    """One request, understood."""

    request_id: str
    user_id: str
    slate_size: int
    location: Point | None  # as the caller said it; for distances
    place: Point | None  # the same, as coarse as the platform keeps it; what the model hears and what is logged
    exclude: tuple[str, ...]  # item ids
    explore: bool
    asked_at_ms: int  # platform clock
    ready_by_s: float  # monotonic; an answer later than this comes too late


class Age(NamedTuple):
    """How old one view's row was."""

    view: str
    updated_ms: int  # 0 = not found


class Hydrated(NamedTuple):
    """What is known of the person and the place."""

    rows: UserRows  # (1,) each
    here: Point | None  # the request's location, else the last place known
    nearby: list[CellState]  # the person's own cell, then the cells that touch it merged
    world: CellState
    reasons: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether the person has acted: what the generator goes by."""
        return bool(self.rows.history["length"][0] > 0)

    @property
    def ages(self) -> tuple[Age, ...]:
        """One per view of the feature service."""
        cell = self.nearby[0] if self.nearby else self.world
        return (
            Age("user_interests", int(self.rows.interests["updated_ms"][0])),
            Age("user_history", int(self.rows.history["updated_ms"][0])),
            Age("user_places", int(self.rows.places["updated_ms"][0])),
            Age("cell_popularity", cell.updated_ms),
        )


class Slot(NamedTuple):
    """One position of the slate."""

    item: int  # catalogue index
    item_id: str
    source: str
    candidate: int  # position among the generated; -1 = not generated
    distance_m: float | None


class Answer(NamedTuple):
    """The slate and everything that led to it."""

    query: Query
    served_at_ms: int
    serving: Serving  # whose catalogue the slate obeys
    hydrated: Hydrated
    generated: Generated | None
    sieved: Sieved  # what the filters kept and took of the generated
    slots: tuple[Slot, ...]
    drawn: Draw | None
    policy_version: str  # what decided the order
    reasons: tuple[str, ...]
    stage_s: tuple[tuple[str, float], ...]

    @property
    def model_took_part(self) -> bool:
        """Whether any shown item was generated."""
        return any(slot.candidate >= 0 for slot in self.slots)


def slot_of(catalog: Catalog, item: int, source: str, candidate: int, location: Point | None) -> Slot:
    """A position of the slate with the item of a catalogue index."""
    latitude, longitude = catalog.locations[item].tolist()
    away = None if location is None or np.isnan(latitude) else distance_m(*location, latitude, longitude)
    return Slot(item, catalog.items[item].item_id, source, candidate, away)
