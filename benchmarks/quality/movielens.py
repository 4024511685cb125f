"""`movielens-latest-small`, split at one time for all: the newest tenth of ratings is the test, the tenth before valid.

Long histories (165 a user), but few users rate in both periods. A film is rated once, so what was seen is left out.
Asked for are films that were liked; every model learns from all that were rated, since a film that disappointed was
chosen too, and its stars stand beside it.
"""

from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.quality.split import Split, first_of_user, ordered
from benchmarks.quality.tables import read_columns
from protos.catalog.v1.catalog_pb2 import Item

FOLDER: Final = "movielens-latest-small"
_VALID_FROM: Final = 0.8  # share of the ratings before the valid stage
_TEST_FROM: Final = 0.9
_GOOD: Final = 4.0  # stars
_MOST: Final = 5.0


def movielens(home: Path, stage: str) -> Split:
    """Asked: ratings of four stars and more by people who rated before; learned from all before the stage."""
    films = read_columns(home / FOLDER / "movies.parquet", "movieId", "title", "genres")
    order = np.argsort(films["movieId"])
    names = films["movieId"][order]
    ratings = read_columns(home / FOLDER / "ratings.parquet", "userId", "movieId", "timestamp", "rating")
    users, rated, at_s, stars = ratings.values()
    events = ordered(users, np.searchsorted(names, rated), at_s, np.ones(len(users), np.bool_), stars / _MOST)
    sorted_s = np.sort(events.at_s)
    begin, end = (sorted_s[int(share * len(sorted_s))] for share in (_VALID_FROM, _TEST_FROM))
    if stage == "test":
        begin, end = end, sorted_s[-1] + 1
    asked = (events.shares >= _GOOD / _MOST) & (events.at_s >= begin) & (events.at_s < end)
    asked &= first_of_user(events.users) < np.arange(len(events.users))
    learn = events.at_s < begin
    known = np.isin(events.users[asked], events.users[learn])
    return Split(
        protocol="global time",
        stage=stage,
        items=[
            Item(
                item_id=str(films["movieId"][row]),
                title=films["title"][row],
                tags=films["genres"][row].split("|"),
                available=True,
            )
            for row in order
        ],
        events=events,
        learn=learn,
        asked=np.flatnonzero(asked),
        mask_seen=True,
        groups={"known user": known, "new user": ~known},
    )
