"""The feature views: what is kept about users and cells, for Feast and for people.

The schema of each view is derived from its layout. Rows come from the log alone (streams/), and
features as of an earlier moment come from folding the log up to it (archive_store.py, models/dataset.py,
rl/dataset.py), never from a second computation. The batch source of a view is where an operator may keep snapshots
of it; it also names the time column for `write_to_online_store`.
"""

from datetime import timedelta
from typing import Any, Final

import numpy as np
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, FeastType, Float32, Int64

from feature_repo.layouts import LAYOUT_VERSION
from feature_repo.meanings import MEANINGS
from feature_repo.schema import (
    CELL_POPULARITY,
    ITEM_STATISTICS,
    USER_HISTORY,
    USER_INTERESTS,
    USER_PLACES,
    USER_WATCH,
)
from feature_repo.values import VIEWS

OWNER: Final = "nearfeed"
SNAPSHOTS: Final = "../var/snapshots"  # from the folder of feature_store.yaml
NEVER: Final = timedelta(0)  # a row has no end: its age is part of every answer, and the reader judges it

user: Final = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="A person, by the id that the app's backend uses",
    owner=OWNER,
)
cell: Final = Entity(
    name="cell",
    join_keys=["cell_id"],
    value_type=ValueType.STRING,
    description='An H3 cell in hexadecimal, or "global" for everywhere',
    owner=OWNER,
)
item: Final = Entity(
    name="item",
    join_keys=["item_id"],
    value_type=ValueType.STRING,
    description="A video or a place, by the id that the catalogue uses",
    owner=OWNER,
)


def _field_type(stored: np.dtype[Any]) -> FeastType:
    single = Float32 if stored.base.kind == "f" else Int64
    return Array(single) if stored.shape else single


def _view(name: str, entity: Entity, fold: str, description: str) -> FeatureView:
    layout = VIEWS[name]
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=NEVER,
        source=FileSource(
            name=f"{name}_snapshots",
            path=f"{SNAPSHOTS}/{name}.parquet",
            timestamp_field="event_timestamp",
            description=f"Snapshots of {name}, written by hand; nothing of the platform reads them",
            owner=OWNER,
        ),
        schema=[
            Field(name=shown, dtype=_field_type(layout.row[field]), description=MEANINGS[shown])
            for shown, field in layout.fields.items()
        ],
        online=True,
        description=description,
        tags={"fold": fold, "layout_version": str(LAYOUT_VERSION)},
        owner=OWNER,
    )


user_interests: Final = _view(
    USER_INTERESTS,
    user,
    "feature_repo/folds/interests.py",
    "What a person likes, as vectors: over weeks, over a session, and several apart; tiers of likeness per first code",
)
user_history: Final = _view(
    USER_HISTORY,
    user,
    "feature_repo/folds/history.py",
    "The last exposures a person acted on, oldest first, and the longer list of the positive ones",
)
user_watch: Final = _view(
    USER_WATCH,
    user,
    "feature_repo/folds/watch.py",
    "A person's newest play times in tenths of a second, bucket after bucket; plays_kept = how many in each",
)
user_places: Final = _view(
    USER_PLACES,
    user,
    "feature_repo/folds/places.py",
    "Where a person is, lives and works, as coarse as the platform's location resolution; empty without consent",
)
cell_popularity: Final = _view(
    CELL_POPULARITY,
    cell,
    "feature_repo/folds/popularity.py",
    "Items people engage with around a place, or everywhere, by decayed engagement, best first",
)
item_statistics: Final = _view(
    ITEM_STATISTICS,
    item,
    "feature_repo/folds/item_statistics.py",
    "How often an item was shown, played, watched (sum of shares), liked and disliked, decayed over days",
)

entities: Final = (user, cell, item)
views: Final = (user_interests, user_history, user_watch, user_places, cell_popularity, item_statistics)
