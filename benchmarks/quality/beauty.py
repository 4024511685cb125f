"""`amazon-beauty-2014`, the protocol of S3-Rec, P5 and TIGER: each user's last act is the test, the one before valid.

Times are dates: 43 % of the targets are of the same day as the act before them, in an order that the data does not
justify. So targets of the same and of a later day are reported apart, and with a seed the acts of one user and day
are shuffled before anything else is done.

The field's figures rank what the user had before, too. Nobody here takes an item twice, so settings are chosen with it
left out; both are reported.
"""

from pathlib import Path

import numpy as np

from benchmarks.quality.split import Split, first_of_user, ordered
from benchmarks.quality.tables import read_columns
from protos.catalog.v1.catalog_pb2 import Item

FOLDER = "amazon-beauty-2014"


def beauty(home: Path, stage: str, *, shuffle_seed: int | None = None, learn_valid: bool = False) -> Split:
    """Leave-one-out on Beauty; histories are what stands before, at test with the valid act.

    Args:
        home: the folder of data sets.
        shuffle_seed: of the order within a day; None = as given.
        learn_valid: whether the test stage may learn from the valid acts. The field's figures do not.

    Raises:
        InputError: the data is not there.
    """
    acts = read_columns(home / FOLDER / "interactions.parquet", "user_id", "item_id", "position", "timestamp")
    within = (
        acts["position"] if shuffle_seed is None else np.random.default_rng(shuffle_seed).random(len(acts["position"]))
    )
    order = np.lexsort((within, acts["timestamp"], acts["user_id"]))
    users, items, at_s = (acts[name][order] for name in ("user_id", "item_id", "timestamp"))
    events = ordered(users, items - 1, at_s, np.ones(len(users), np.bool_))
    last = np.searchsorted(events.users, np.unique(events.users), side="right") - 1
    asked = last - (stage == "valid")
    asked = asked[asked > first_of_user(events.users)[last]]
    learn = np.ones(len(users), np.bool_)
    learn[last] = False
    if stage == "valid" or not learn_valid:
        learn[last - 1] = False
    same_day = events.at_s[asked] == events.at_s[asked - 1]
    return Split(
        protocol="leave-one-out" if shuffle_seed is None else "leave-one-out, days shuffled",
        stage=stage,
        items=beauty_items(home),
        events=events,
        learn=learn,
        asked=asked,
        mask_seen=True,
        groups={"same day": same_day, "later day": ~same_day},
    )


def beauty_items(home: Path) -> list[Item]:
    """The catalogue by item id, which begins at 1. Tags: the names along its category paths, each once."""
    columns = read_columns(home / FOLDER / "items.parquet", "item_id", "title", "category_paths")
    return [
        Item(
            item_id=str(item_id),
            title=title or "",
            tags=dict.fromkeys(name for path in paths for name in path),
            available=True,
        )
        for item_id, title, paths in sorted(zip(*columns.values(), strict=True), key=lambda row: int(row[0]))
    ]
