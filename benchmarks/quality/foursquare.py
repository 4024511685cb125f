"""`foursquare-nyc`: which place is checked into next.

Two splits. Last fifth: the newest fifth of the check-ins is the test, the tenth before it valid. GETNext: the
validation and test trajectories of that paper, of which the last check-in is asked for.

Only venues with at least ten check-ins in the whole period are in the data, so the catalogue itself knows a little of
what is to come, in every model alike. A model may read where its user checked in before, never where the asked
check-in was; whether it may read its time makes two protocols.
"""

from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.quality.split import Events, Flags, Longs, Split, Whole, first_of_user, ordered, seen_pairs
from benchmarks.quality.tables import read_columns
from core.errors import InputError
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location

FOLDER: Final = "foursquare-nyc"
_VALID_FROM: Final = 0.7  # share of the check-ins before the valid stage
_TEST_FROM: Final = 0.8


def foursquare(home: Path, stage: str, *, time_known: bool = True) -> Split:
    """The newest fifth; learned from all before the stage."""
    events = _events(home)
    at_s = np.sort(events.at_s)
    begin, end = (at_s[int(share * len(at_s))] for share in (_VALID_FROM, _TEST_FROM))
    if stage == "test":
        begin, end = end, at_s[-1] + 1
    asked = (events.at_s >= begin) & (events.at_s < end)
    return _split(home, events, begin, asked, f"last fifth{_told(time_known)}", stage, time_known)


def foursquare_getnext(home: Path, stage: str, *, time_known: bool = True) -> Split:
    """The last check-in of each of GETNext's trajectories; learned from all before the first of them."""
    events = _events(home)
    rows = read_columns(
        home / FOLDER / "getnext_val_test.parquet", "split", "user_id", "poi_idx", "unix_s", "trajectory_id"
    )
    wanted_part = {"valid": "val", "test": "test"}[stage]
    kept = rows["split"] == wanted_part
    if not kept.any():
        raise InputError(f"getnext_val_test.parquet: found no row with split = {wanted_part!r}, expected some")
    names, users, places, at_s = (rows[name][kept] for name in ("trajectory_id", "user_id", "poi_idx", "unix_s"))
    order = np.lexsort((at_s, names))
    names, users, places, at_s = names[order], users[order], places[order], at_s[order]
    last = np.append(names[1:] != names[:-1], True)
    wanted = _keys(users[last], places[last], at_s[last])
    asked = np.isin(_keys(events.users, events.items, events.at_s), wanted)
    return _split(home, events, at_s.min(), asked, f"GETNext, last step{_told(time_known)}", stage, time_known)


def _split(home: Path, events: Events, begin: int, asked: Flags, protocol: str, stage: str, time_known: bool) -> Split:
    places = np.flatnonzero(asked & (first_of_user(events.users) < np.arange(len(events.users))))
    again = _revisits(events, places)
    return Split(
        protocol=protocol,
        stage=stage,
        items=_items(home),
        events=events,
        learn=events.at_s < begin,
        asked=places,
        mask_seen=False,
        groups={"revisit": again, "new place": ~again},
        zone="America/New_York",
        time_known=time_known,
    )


def _revisits(events: Events, asked: Longs) -> Flags:
    """(Q,) whether the user had been there before."""
    rows, items = seen_pairs(events, asked)
    return np.bincount(rows[items == events.items[asked[rows]]], minlength=len(asked)) > 0


def _events(home: Path) -> Events:
    columns = read_columns(home / FOLDER / "checkins.parquet", "user_id", "poi_idx", "unix_s")
    users, places, at_s = columns.values()
    return ordered(users, places, at_s, np.ones(len(users), np.bool_))


def _items(home: Path) -> list[Item]:
    columns = read_columns(home / FOLDER / "pois.parquet", "poi_idx", "category", "latitude", "longitude")
    return [
        Item(
            item_id=str(place),
            tags=[category],
            location=Location(latitude=latitude, longitude=longitude),
            available=True,
        )
        for place, category, latitude, longitude in sorted(zip(*columns.values(), strict=True))
    ]


def _keys(users: Whole, places: Whole, at_s: Whole) -> Longs:
    """One number per user, place and minute: some copies of the data know minutes only."""
    return (users.astype(np.int64) * 10_000 + places) * 100_000_000 + at_s // 60


def _told(time_known: bool) -> str:
    return "" if time_known else ", time unknown"
