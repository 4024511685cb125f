"""`kuairand-pure` day-ahead, on the excerpt in data/: settings by 05-02, learned to 05-01; the test is 05-03 to 05-05.

Two questions. Next: which of all videos is watched long next. Exposed: in what order of long views and of play time
does a model put what was really shown. The log is that of another policy: no figure from it is a policy's value.

Not used: the publisher's statistics of videos, which cover the days that are asked for. What is published of users is
a snapshot without a date, which may know what came after: it makes a protocol of its own. Acts before 04-25 are known
as lists without times: their times are nominal, only their order is real, and whether they were long views is known
and how long is not.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.quality.exposures import percentiles_among_like
from benchmarks.quality.split import Split, first_of_user, ordered
from benchmarks.quality.tables import read_columns
from models.kuairand import DAY_MS, Excerpt, day_start_ms, items, read_excerpt

FOLDER: Final = "kuairand-pure"
_TRAITS: Final = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
_ASKED_DAYS: Final = {"valid": ("2022-05-02", 1), "test": ("2022-05-03", 3)}
_LONG_VIEW: Final = 6  # bit of `feedback`
_STEP_MS: Final = 60_000  # between nominal times


def kuairand(home: Path, stage: str, *, exposed: bool) -> Split:
    """The question on the excerpt, which stands in the repository; `home` is not read."""
    return kuairand_split(_excerpt(), stage, exposed=exposed)


def kuairand_users(home: Path, stage: str) -> Split:
    """The next long view, where a model may read the snapshot of users, which stands with the data sets."""
    split = kuairand_split(_excerpt(), stage, exposed=False)
    columns = read_columns(home / FOLDER / "users.parquet", "user_id", *_TRAITS)
    ids = columns.pop("user_id").astype(np.int64)
    traits = np.full((int(max(ids.max(initial=0), split.events.users.max())) + 1, len(columns)), -1, np.int64)
    for place, column in enumerate(columns.values()):
        known = column == column  # NaN is none
        traits[ids[known], place] = np.unique(column[known], return_inverse=True)[1]
    return split._replace(protocol=f"{split.protocol}, snapshot of users", traits=traits)


def kuairand_split(excerpt: Excerpt, stage: str, *, exposed: bool) -> Split:
    """Learn: all before the first asked day. Asked: exposures of the days with an act of their user before them."""
    day, days = _ASKED_DAYS[stage]
    begin_ms = day_start_ms(day)
    catalogue = items(excerpt)
    index = {item.item_id: place for place, item in enumerate(catalogue)}
    log = {name: excerpt.interactions[name].to_numpy() for name in excerpt.interactions.column_names}
    before = _listed(excerpt)
    users = np.concatenate([before[0], log["user_id"]]).astype(np.int64)
    videos = np.concatenate([before[1], log["video_id"]])
    at_ms = np.concatenate([before[2], log["time_ms"]]).astype(np.int64)
    good = np.concatenate([before[3], log["feedback"] >> _LONG_VIEW & 1 == 1])
    play_s, length_s = log["play_time_ms"] / 1000, log["duration_ms"] / 1000
    shares = percentiles_among_like(play_s, length_s, np.flatnonzero(log["time_ms"] < begin_ms))
    places = np.array([index[str(video)] for video in videos.tolist()])
    listed = np.full(len(before[0]), np.nan, np.float32)
    order = np.lexsort((np.arange(len(users)), at_ms, users))
    events = ordered(
        users[order], places[order], at_ms[order] // 1000, good[order], np.concatenate([listed, shares])[order]
    )
    sorted_ms = at_ms[order]
    asked = (sorted_ms >= begin_ms) & (sorted_ms < begin_ms + days * DAY_MS)
    asked &= first_of_user(events.users) < np.arange(len(users))
    return Split(
        protocol="day-ahead, next long view" if not exposed else "day-ahead, order of what was shown",
        stage=stage,
        items=catalogue,
        events=events,
        learn=sorted_ms < begin_ms,
        asked=np.flatnonzero(asked & (events.good | exposed)),
        mask_seen=False,
        exposed=exposed,
        zone="Asia/Shanghai",
    )


@lru_cache(maxsize=1)
def _excerpt() -> Excerpt:
    return read_excerpt()


def _listed(excerpt: Excerpt) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """user, video, nominal time in ms and whether it was a long view, of the lists from before the log."""
    rows = [
        (row["user_id"], video, row["last_time_ms"] - (len(row["watch_seq"]) - 1 - place) * _STEP_MS, video in longs)
        for row in excerpt.history.to_pylist()
        for longs in (set(row["long_watch_seq"]),)
        for place, video in enumerate(row["watch_seq"])
    ]
    users, videos, at_ms, good = zip(*rows, strict=True) if rows else ((), (), (), ())
    return np.array(users, np.int64), np.array(videos, np.int64), np.array(at_ms, np.int64), np.array(good, np.bool_)
