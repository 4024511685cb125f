"""A small log of activity.v1 for tests: users of one partition, frames with everything that may happen in them."""

import random

from core.frames import encode_frame
from core.partition import partition_of
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction
from streams.cursor import Partition, Record

PARTITIONS = 3
PARTITION = Partition("tests", "activity.v1", "topic-id", 1, PARTITIONS)
START_MS = 1_700_000_000_000
HORIZON_MS = 60_000


def users_of(partition: int, count: int) -> list[str]:
    """The first `count` users that belong to `partition`."""
    names = (f"user-{number}" for number in range(10_000))
    return [name for name in names if partition_of(name, PARTITIONS) == partition][:count]


USERS = users_of(PARTITION.number, 5)
STRANGER = users_of(PARTITION.number + 1, 1)[0]


def interaction(
    event_id: str,
    user_id: str,
    at_ms: int,
    *,
    item: str = "7",
    action: "Action.ValueType" = Action.ACTION_LIKE,
    request: str = "",
) -> Activity:
    event = Interaction(event_id=event_id, user_id=user_id, item_id=item, action=action, request_id=request)
    event.occurred_at.FromMilliseconds(at_ms)
    if action == Action.ACTION_PLAY:
        event.play_ms, event.duration_ms = 9_000, 20_000
    if event_id.endswith("0"):
        event.location.latitude, event.location.longitude = 30.27, 120.15
    return Activity(interaction=event)


def impression(request_id: str, user_id: str, at_ms: int, items: tuple[str, ...] = ("7", "8")) -> Activity:
    shown = Impression(request_id=request_id, user_id=user_id)
    shown.served_at.FromMilliseconds(at_ms)
    for position, item in enumerate(items):
        shown.slots.add(item_id=item, position=position, source="popular", candidate_index=-1)
    return Activity(impression=shown)


def frame(offset: int, at_ms: int, *activities: Activity) -> Record:
    return Record(offset, at_ms, encode_frame(activities))


def make_log(seed: int, frames: int) -> list[Record]:
    """Interactions, impressions, clients' retries, heartbeats, strangers, late and early entries, garbage."""
    rng = random.Random(seed)
    records: list[Record] = []
    now_ms, number = START_MS, 0
    past: list[Activity] = []
    requests: list[tuple[str, str]] = []
    for offset in range(frames):
        now_ms += rng.choice((0, 50, 1_000, HORIZON_MS // 3))
        activities: list[Activity] = []
        for _ in range(rng.randrange(6)):
            number += 1
            user_id = rng.choice(USERS)
            kind = rng.random()
            if kind < 0.2:
                activities.append(impression(f"r{number}", user_id, now_ms - rng.randrange(2_000)))
                requests.append((f"r{number}", user_id))
            elif kind < 0.3 and past:
                activities.append(rng.choice(past))
            elif kind < 0.35:
                activities.append(interaction(f"e{number}", STRANGER, now_ms))
            elif kind < 0.4:
                activities.append(interaction(f"e{number}", user_id, now_ms + 3_600_000))
            else:
                request, shown_to = rng.choice(requests) if requests and rng.random() < 0.5 else ("", user_id)
                activities.append(
                    interaction(
                        f"e{number}",
                        shown_to,
                        now_ms - rng.randrange(5_000),
                        item=str(rng.randrange(6, 10)),
                        action=rng.choice((Action.ACTION_PLAY, Action.ACTION_LIKE, Action.ACTION_DISLIKE)),
                        request=request,
                    )
                )
        past += activities
        poison = rng.random()
        if poison < 0.05:
            records.append(Record(offset, now_ms, b"\xff not a frame"))
        elif poison < 0.08:
            records.append(Record(offset, now_ms, None))
        else:
            records.append(frame(offset, now_ms, *activities))
    return records
