"""The KuaiRand excerpt as the platform's own words: items, interactions in time order, sequences.

What a row says, and how it is said here (data/README.md has the columns):

    play_time_ms > 0      PLAY with play_ms and, when known, duration_ms
    play_time_ms = 0      VIEW
    is_click .. is_hate   CLICK, LIKE, FOLLOW, COMMENT, SHARE, DISLIKE, at the same instant
    long_view             nothing: it follows from play_ms and duration_ms
    is_profile_enter      nothing: it is about the author's page, and no act of ours means it

Before 2022-04-25 only lists of videos are known. `imported_acts` makes acts of them that claim no more than is known:
VIEW for what was watched, LIKE for what was liked, CLICK for what was watched long (of the long views that are known,
99.7 % are clicks), and no play time, which nobody knows. Their times are nominal, one minute apart, and end at the
user's last known one; only their order is real. `Origin.ORIGIN_IMPORTED` marks them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Action, Interaction, Origin

FOLDER: Final = Path(__file__).resolve().parent.parent / "data"
UTC_OFFSET_MS: Final = 8 * 3600 * 1000  # local time of the data
DAY_MS: Final = 24 * 3600 * 1000
LIVE_DAY: Final = "2022-05-02"  # the demo replays it and what follows; version 1 learns from what was before

_FEEDBACK: Final = (  # bit of `feedback` -> act
    (0, Action.ACTION_CLICK),
    (1, Action.ACTION_LIKE),
    (2, Action.ACTION_FOLLOW),
    (3, Action.ACTION_COMMENT),
    (4, Action.ACTION_SHARE),
    (5, Action.ACTION_DISLIKE),
)
_STEP_MS: Final = 60_000  # between nominal times

Ids = npt.NDArray[np.int64]


class Excerpt(NamedTuple):
    """The three tables, as read."""

    interactions: pa.Table
    videos: pa.Table
    history: pa.Table


def read_excerpt(folder: Path = FOLDER) -> Excerpt:
    """The excerpt in `folder`.

    Raises:
        InputError: a file is missing or not readable.
    """
    try:
        return Excerpt(*(pq.read_table(folder / f"kuairand_{name}.parquet") for name in Excerpt._fields))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{folder}: found no readable excerpt ({error}); see data/README.md") from None


def day_start_ms(day: str) -> int:
    """The instant at which a local day (yyyy-mm-dd, UTC+8) begins."""
    return int(np.datetime64(day, "ms").astype(np.int64)) - UTC_OFFSET_MS


def items(excerpt: Excerpt) -> list[Item]:
    """Every video, by id. Tags: its categories, how it was uploaded, that it is an advertisement, shared music."""
    columns = excerpt.videos.to_pydict()
    music, uses = np.unique(np.array(columns["music_id"]), return_counts=True)
    shared = set(music[(uses > 1) & (music != 0)].tolist())
    made = []
    for row, video in enumerate(columns["video_id"]):
        tags = [f"category-{tag}" for tag in (columns["tag"][row] or "").split(",") if tag]
        tags.append(f"upload-{columns['upload_type'][row]}")
        if columns["video_type"][row] == "AD":
            tags.append("advertisement")
        if columns["music_id"][row] in shared:
            tags.append(f"music-{columns['music_id'][row]}")
        made.append(
            Item(
                item_id=str(video),
                author_id=str(columns["author_id"][row]),
                tags=tags,
                duration_ms=columns["video_duration"][row],
                available=True,
            )
        )
    return made


def interactions(excerpt: Excerpt, since_ms: int = 0, until_ms: int = 1 << 62) -> Iterator[Interaction]:
    """The acts of the rows with since_ms <= time < until_ms, in time order; acts of one row follow each other.

    An act's event_id is a function of its row, so that a second reading repeats the first.
    """
    times = excerpt.interactions["time_ms"].to_numpy()
    start, end = np.searchsorted(times, [since_ms, until_ms])
    columns = excerpt.interactions.slice(start, end - start).to_pydict()
    rows = zip(*(columns[name] for name in excerpt.interactions.column_names), strict=True)
    for row, (user, video, at_ms, play_ms, duration_ms, feedback, tab) in enumerate(rows, start=int(start)):
        acts = [Action.ACTION_PLAY if play_ms > 0 else Action.ACTION_VIEW]
        acts += [action for bit, action in _FEEDBACK if feedback >> bit & 1]
        for action in acts:
            act = Interaction(
                event_id=f"kuairand-{row}-{action}",
                user_id=str(user),
                item_id=str(video),
                action=action,
                surface=f"tab-{tab}",
                origin=Origin.ORIGIN_CLIENT,
            )
            act.occurred_at.FromMilliseconds(at_ms)
            if duration_ms > 0:
                act.duration_ms = duration_ms
            if action == Action.ACTION_PLAY:
                act.play_ms = play_ms
            yield act


def imported_acts(excerpt: Excerpt, *, last: int, users: Iterable[str] | None = None) -> Iterator[Interaction]:
    """Acts for the last videos each user watched before the interactions, user by user, oldest first.

    Args:
        last: videos per user.
        users: whose; everybody's when absent.
    """
    wanted = None if users is None else set(users)
    for row in excerpt.history.to_pylist():
        user = str(row["user_id"])
        if wanted is not None and user not in wanted:
            continue
        watched = row["watch_seq"][-last:]
        likes, longs = set(row["like_seq"]), set(row["long_watch_seq"])
        for place, video in enumerate(watched):
            at_ms = row["last_time_ms"] - (len(watched) - 1 - place) * _STEP_MS
            acts = [Action.ACTION_VIEW]
            acts += [Action.ACTION_CLICK] if video in longs else []
            acts += [Action.ACTION_LIKE] if video in likes else []
            for action in acts:
                act = Interaction(
                    event_id=f"kuairand-before-{user}-{place - len(watched)}-{action}",
                    user_id=user,
                    item_id=str(video),
                    action=action,
                    origin=Origin.ORIGIN_IMPORTED,
                )
                act.occurred_at.FromMilliseconds(at_ms)
                yield act


def sequences(excerpt: Excerpt, until_ms: int) -> list[Ids]:
    """Per user, the videos watched long, oldest first: the list from before, then long views before `until_ms`.

    What people stayed for says more about likeness than what the platform happened to show them in a row.
    """
    table = excerpt.interactions
    times, feedback = table["time_ms"].to_numpy(), table["feedback"].to_numpy()
    kept = (times < until_ms) & (feedback >> 6 & 1 == 1)
    users, videos = table["user_id"].to_numpy()[kept], table["video_id"].to_numpy()[kept].astype(np.int64)
    order = np.argsort(users, kind="stable")
    names, starts = np.unique(users[order], return_index=True)
    later = dict(zip(names.tolist(), np.split(videos[order], starts)[1:], strict=True))
    joined = []
    for row in excerpt.history.select(["user_id", "long_watch_seq"]).to_pylist():
        before = np.array(row["long_watch_seq"], np.int64)
        joined.append(np.concatenate([before, later.pop(row["user_id"], before[:0])]))
    return [sequence for sequence in (*joined, *later.values()) if len(sequence)]
