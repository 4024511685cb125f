"""Two readers of activity.v1, one law: workers and learning admit the same activities."""

import numpy as np

from core.partition import partition_of
from core.topics import ACTIVITY
from feature_repo.folds.entries import Message, message_of
from protos.events.v1.activity_pb2 import Activity, ActivityFrame, Forget
from protos.events.v1.interaction_pb2 import Action, Interaction
from rl.log import LogRecord, activities_by_user
from streams.cursor import Cursor, Partition, Record
from streams.reading import chunks

PARTITIONS = 3
NOW_MS = 1_700_000_000_000


def test_learning_folds_what_workers_fold() -> None:
    rng = np.random.default_rng(3)
    for number in range(200):
        frame = ActivityFrame(schema_version=int(rng.integers(1, 3)))
        for _ in range(int(rng.integers(0, 6))):
            event = Interaction(
                event_id=str(rng.integers(100)) if rng.random() < 0.9 else "",
                user_id=f"user-{rng.integers(12)}",
                item_id="item",
                action=Action.ACTION_PLAY if rng.random() < 0.9 else Action.ACTION_UNSPECIFIED,
                play_ms=int(rng.integers(-1, 20)),
            )
            event.occurred_at.FromMilliseconds(NOW_MS + int(rng.integers(-10, 10)) * 60_000)
            wish = Forget(user_id=event.user_id, requested_at=event.occurred_at)
            kinds = (Activity(interaction=event), Activity(forget=wish), Activity())
            frame.activities.append(kinds[rng.choice(3, p=(0.8, 0.15, 0.05))])
        value = frame.SerializeToString() if rng.random() < 0.95 else b"\xff\xff"
        partition = int(rng.integers(PARTITIONS))
        timestamp_ms = NOW_MS if rng.random() < 0.95 else 7
        where = Partition("group", ACTIVITY, "id", partition, PARTITIONS)
        admitted: dict[str, list[Message | None]] = {}
        for chunk in chunks([Record(number, timestamp_ms, value)], Cursor(1, number), where, limit=100):
            for entry in chunk.entries:
                admitted.setdefault(entry.user_id, []).append(entry.message)
        found = activities_by_user(LogRecord(ACTIVITY, partition, number, timestamp_ms, value), PARTITIONS)
        assert {user_id: list(map(message_of, activities)) for user_id, activities in found.items()} == admitted
        assert all(partition_of(user_id, PARTITIONS) == partition for user_id in found)
