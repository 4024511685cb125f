"""The work: acts of many users in frames, encoded before anything is measured. A function of its arguments.

Users and items are drawn by Zipf 1.0. Four acts in five are plays with their length, the others likes, shares,
comments, clicks and dislikes; three in ten carry a place. So every view of a user is written.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.frames import encode_frame
from core.partition import partition_of
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction, Location

ITEMS: Final = 10_000
SPAN_MS: Final = 24 * 3_600_000  # of event time, so that states decay on the way
FRAME_EVENTS: Final = 100

_ACTIONS: Final = (
    (Action.ACTION_PLAY, 0.80),
    (Action.ACTION_LIKE, 0.10),
    (Action.ACTION_CLICK, 0.03),
    (Action.ACTION_SHARE, 0.02),
    (Action.ACTION_COMMENT, 0.02),
    (Action.ACTION_FOLLOW, 0.01),
    (Action.ACTION_DISLIKE, 0.02),
)
_PLACED: Final = 0.3
_CENTRE: Final = (30.25, 120.15)
_CITY_DEGREES: Final = 0.1  # standard deviation of homes around the centre, about 10 km
_WAY_DEGREES: Final = 0.01  # of acts around home

Ints = npt.NDArray[np.int64]


class Frame(NamedTuple):
    """One record for activity.v1."""

    partition: int
    timestamp_ms: int
    value: bytes
    events: int


class Backlog(NamedTuple):
    """Frames in the order in which they would arrive."""

    frames: list[Frame]
    events: int
    users: int
    partitions: int


def user_name(number: int) -> str:
    """The id of a user of the load."""
    return f"user-{number:07d}"


def item_name(number: int) -> str:
    """The id of an item of the catalogue, number < ITEMS."""
    return f"item-{number:05d}"


def duration_ms(item: Ints) -> Ints:
    """Lengths of items, between 7 s and 3 min; the same in the catalogue and in the events."""
    return np.asarray(7_000 + item * 7_919 % 173_000)


def zipf(rng: np.random.Generator, among: int, size: int) -> Ints:
    """(size,) numbers below `among`, k with weight 1 / (k + 1)."""
    weights = np.cumsum(1.0 / np.arange(1, among + 1))
    return np.asarray(np.searchsorted(weights, rng.random(size) * weights[-1]), np.int64)


def zipf_backlog(
    seed: int,
    *,
    events: int,
    users: int,
    partitions: int,
    end_ms: int,
    frame_events: int = FRAME_EVENTS,
    span_ms: int = SPAN_MS,
) -> Backlog:
    """`events` acts of users drawn by Zipf 1.0, at most `frame_events` in a frame, over `span_ms` until `end_ms`."""
    rng = np.random.default_rng(seed)
    times = end_ms - span_ms + np.arange(events) * span_ms // events
    return backlog_of(rng, zipf(rng, users, events), times, users, partitions, frame_events, f"{seed:08x}")


def even_backlog(seed: int, users: Ints, *, times: int, partitions: int, end_ms: int) -> Backlog:
    """Each of the users `times` times, in full frames."""
    rng = np.random.default_rng(seed)
    drawn = np.tile(users, times)
    at_ms = end_ms - SPAN_MS + np.arange(len(drawn)) * SPAN_MS // len(drawn)
    return backlog_of(rng, drawn, at_ms, len(users), partitions, FRAME_EVENTS, f"{seed:08x}")


def backlog_of(
    rng: np.random.Generator, actors: Ints, times: Ints, users: int, partitions: int, frame_events: int, prefix: str
) -> Backlog:
    """One act for each of `actors` at `times`; a frame leaves when it is full, as a loaded producer's does."""
    names, place = np.unique(actors, return_inverse=True)
    home = np.array([partition_of(user_name(number), partitions) for number in names.tolist()])[place]
    acts = list(_acts(rng, actors, times, prefix))
    frames: list[tuple[int, Frame]] = []
    for partition in range(partitions):
        of_partition = np.flatnonzero(home == partition)
        for start in range(0, len(of_partition), frame_events):
            taken = of_partition[start : start + frame_events].tolist()
            value = encode_frame(acts[at] for at in taken)
            frames.append((taken[-1], Frame(partition, int(times[taken[-1]]), value, len(taken))))
    frames.sort(key=lambda entry: entry[0])
    return Backlog([frame for _, frame in frames], len(acts), users, partitions)


def _acts(rng: np.random.Generator, actors: Ints, times: Ints, prefix: str) -> Iterator[Activity]:
    size = len(actors)
    items = zipf(rng, ITEMS, size)
    durations = duration_ms(items)
    actions = rng.choice([action for action, _ in _ACTIONS], size, p=[share for _, share in _ACTIONS])
    watched = rng.beta(0.8, 0.9, size)
    placed = rng.random(size) < _PLACED
    homes = np.random.default_rng(0).normal(_CENTRE, _CITY_DEGREES, (int(actors.max()) + 1, 2))
    points = homes[actors] + rng.normal(0.0, _WAY_DEGREES, (size, 2))
    columns = (actors, times, items, durations, actions, watched, placed, points)
    for number, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        actor, at_ms, item, duration, action, share, has_place, (latitude, longitude) = row
        act = Interaction(
            event_id=f"{prefix}-{number:024x}",
            user_id=user_name(actor),
            item_id=item_name(item),
            action=action,
            duration_ms=duration,
            surface="feed",
            session_id=f"session-{actor}",
            play_ms=int(duration * share) if action == Action.ACTION_PLAY else None,
            location=Location(latitude=latitude, longitude=longitude, accuracy_m=30.0) if has_place else None,
        )
        act.occurred_at.FromMilliseconds(at_ms)
        yield Activity(interaction=act)
