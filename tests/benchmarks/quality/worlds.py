"""A tiny world with an obvious answer: people walk along the items in order, and ask at the end."""

import numpy as np

from benchmarks.quality.split import Split, ordered
from protos.catalog.v1.catalog_pb2 import Item

ITEMS = 12
USERS = 30
HOUR_S = 3_600


def walks(seed: int = 0, *, steps: int = 6) -> Split:
    """Each user begins somewhere and takes the next item each hour; the last act is asked for."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(ITEMS, size=USERS)
    users = np.repeat(np.arange(USERS), steps)
    items = (starts[:, None] + np.arange(steps)).ravel() % ITEMS
    at_s = np.tile(np.arange(steps) * HOUR_S, USERS) + users
    events = ordered(users, items, at_s, np.ones(len(users), np.bool_))
    asked = np.arange(steps - 1, len(users), steps)
    learn = np.ones(len(users), np.bool_)
    learn[asked] = False
    shelf = [
        Item(item_id=str(n), title=f"thing {n // 3}", tags=[f"shelf-{n // 3}"], available=True) for n in range(ITEMS)
    ]
    return Split("walks", "test", shelf, events, learn, asked, mask_seen=False)


def changed_from(split: Split, act: int, seed: int = 0) -> Split:
    """The same world, but every act at or after the time of `act` is of another item, and its outcome is another."""
    events = split.events
    later = events.at_s >= events.at_s[act]
    rng = np.random.default_rng(seed)
    items = np.where(later, (events.items + rng.integers(1, ITEMS, len(later))) % len(split.items), events.items)
    shares = np.where(later, 1 - np.nan_to_num(events.shares), events.shares)
    changed = events._replace(
        items=items.astype(np.int32), good=events.good ^ (later & split.exposed), shares=shares.astype(np.float32)
    )
    return split._replace(events=changed)
