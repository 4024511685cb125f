"""A small world for contract suites: a log of some users over two partitions, and what the folds make of it."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from core.archive import ArchivedRecord
from core.frames import encode_frame
from core.ids import ItemKey, item_key
from core.partition import partition_of
from core.topics import ACTIVITY
from feature_repo.folds.act import ItemTable
from feature_repo.folds.context import FoldContext
from feature_repo.layouts import DIM, FIRST_CODES, TIERS
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.state_store import StateStore

TOPIC_ID: Final = "world"
PARTITIONS: Final = 2
START_MS: Final = 1_750_000_000_000
STEP_MS: Final = 20_000  # between records
KNOWN: Final = ("1", "2", "3", "a video")  # the catalogue knows these; a name that is no number has a large key
ITEMS: Final = (*KNOWN, "4", "5", "another video")
USERS: Final = tuple(f"user {number}" for number in range(12))
NOWHERE: Final = USERS[-1]  # never says where they are
PLACES: Final = (
    (48.8566, 2.3522),
    (48.8580, 2.3400),
    (43.2965, 5.3698),
)  # the first two are neighbours
NO_FRAME: Final = b"\xff no frame"
_ACTIONS: Final = (
    Action.ACTION_PLAY,
    Action.ACTION_PLAY,
    Action.ACTION_LIKE,
    Action.ACTION_ORDER,
    Action.ACTION_DISLIKE,
)


class FourItems:
    """The items of KNOWN, with unit vectors along four axes; others are unknown."""

    def __init__(self) -> None:
        tiers = np.random.default_rng(0).integers(TIERS, size=(len(KNOWN), FIRST_CODES), dtype=np.uint8)
        self.table = ItemTable(np.eye(len(KNOWN), DIM, dtype=np.float32), np.arange(len(KNOWN), dtype=np.uint8), tiers)
        self._places = {item_key(name): place for place, name in enumerate(KNOWN)}

    def place(self, key: ItemKey) -> int:
        return self._places.get(key, -1)

    def duration_ms(self, key: ItemKey) -> int:
        return 20_000 if key in self._places else -1

    def location(self, key: ItemKey) -> tuple[float, float] | None:
        return None


CONTEXT: Final = FoldContext(FourItems(), tokenizer_version=3, horizon_ms=60_000, location_resolution=9)


def a_log(seed: int, records: int, *, swaps: bool = True) -> list[ArchivedRecord]:
    """Records of both partitions: acts, impressions, retries, heartbeats, now and then garbage or a user to forget.

    With `swaps`, neighbours may be stamped in the wrong order.
    """
    rng = np.random.default_rng(seed)
    log: list[ArchivedRecord] = []
    offsets = [0] * PARTITIONS
    past: list[Activity] = []
    for number in range(records):
        partition = int(rng.integers(PARTITIONS))
        now_ms = START_MS + number * STEP_MS + int(rng.integers(-STEP_MS if swaps else 0, STEP_MS))
        mine = [user for user in USERS if partition_of(user, PARTITIONS) == partition]
        activities = [_activity(rng, f"{number}/{n}", mine, now_ms) for n in range(int(rng.integers(5))) if mine]
        activities += [past[int(rng.integers(len(past)))] for _ in range(int(rng.integers(2))) if past]
        past += activities
        if number % 50 == 40 and mine:
            activities.append(forget(mine[0], now_ms))
        value = encode_frame(activities) if rng.random() < 0.95 else NO_FRAME
        log.append(ArchivedRecord(partition, offsets[partition], now_ms, value))
        offsets[partition] += 1
    return log


def _activity(rng: np.random.Generator, name: str, users: Sequence[str], now_ms: int) -> Activity:
    user_id = users[int(rng.integers(len(users)))]
    at_ms = now_ms - int(rng.integers(60_000))
    if rng.random() < 0.2:
        shown = Impression(request_id=name, user_id=user_id)
        shown.served_at.FromMilliseconds(at_ms)
        for position, item in enumerate(rng.choice(ITEMS, 3, replace=False)):
            shown.slots.add(item_id=str(item), position=position, source="popular", candidate_index=-1)
        return Activity(impression=shown)
    action = _ACTIONS[int(rng.integers(len(_ACTIONS)))]
    event = Interaction(event_id=name, user_id=user_id, item_id=str(rng.choice(ITEMS)), action=action)
    event.occurred_at.FromMilliseconds(at_ms)
    if action == Action.ACTION_PLAY:
        event.play_ms = int(rng.integers(60_000))
        if rng.random() < 0.5:
            event.duration_ms = 30_000
    if user_id != NOWHERE and rng.random() < 0.4:
        event.location.latitude, event.location.longitude = PLACES[int(rng.integers(len(PLACES)))]
    return Activity(interaction=event)


def forget(user_id: str, at_ms: int) -> Activity:
    """What is known of the user is to be forgotten."""
    activity = Activity()
    activity.forget.user_id = user_id
    activity.forget.requested_at.FromMilliseconds(at_ms)
    return activity


def stream(log: Iterable[ArchivedRecord], store: StateStore, topic_id: str = TOPIC_ID) -> None:
    """The states of `store` are those of the log, as workers make them."""
    drivers = [
        Driver(Partition("contracts", ACTIVITY, topic_id, number, PARTITIONS), store, lambda: CONTEXT, cache_users=100)
        for number in range(PARTITIONS)
    ]
    for record in log:
        drivers[record.partition].apply([Record(record.offset, record.timestamp_ms, record.value)])
