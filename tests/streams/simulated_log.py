"""The logs that the simulation reads: short, and dense with everything that may stand in activity.v1."""

import random
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from core.frames import encode_frame
from protos.events.v1.activity_pb2 import Activity, Forget
from protos.events.v1.interaction_pb2 import Action
from streams.cursor import Partition, Record
from tests.streams.log_maker import HORIZON_MS, PARTITIONS, START_MS, frame, impression, interaction, users_of

READ: Final = 2  # of PARTITIONS hold records; a user of the last is a stranger everywhere
FRAMES: Final = 10  # records of one partition
USERS: Final = [users_of(number, 3) for number in range(READ)]
STRANGER: Final = users_of(READ, 1)[0]
_DAY_MS: Final = 24 * 3_600_000
_ACTIONS: Final = (Action.ACTION_PLAY, Action.ACTION_LIKE, Action.ACTION_DISLIKE, Action.ACTION_ORDER)
_NEITHER: Final = Activity()


class Topic(NamedTuple):
    """One life of activity.v1; made again, it has another id and its offsets begin anew."""

    topic_id: str
    logs: tuple[tuple[Record, ...], ...]  # by partition; offsets ascend, and some do not exist

    def partition(self, number: int) -> Partition:
        return Partition("tests", "activity.v1", self.topic_id, number, PARTITIONS)

    def end(self, number: int) -> int:
        """The offset that the next record of a partition would get."""
        return self.logs[number][-1].offset + 1


@cache
def topics_of(seed: int) -> tuple[Topic, Topic]:
    """A topic, and the one that was made in its place when all of the first had been read."""
    rng = random.Random(seed)
    first, second = (tuple(tuple(_records(rng, number, life)) for number in range(READ)) for life in (0, 1))
    return Topic("topic-id", first), Topic("topic-made-again", second)


def _records(rng: random.Random, number: int, life: int) -> Iterator[Record]:
    """Acts, answers, acts before their answer, retries, late ones, the wish to be forgotten, heartbeats, poison."""
    now_ms = START_MS + life * _DAY_MS + rng.randrange(1_000)
    offset, past, awaited = 0, list[Activity](), list[Activity]()
    requests = [("", user_id) for user_id in USERS[number]]
    for place in range(FRAMES):
        now_ms += rng.choice((0, 50, 1_000, HORIZON_MS // 3))
        entries = awaited
        awaited = []
        for entry in range(rng.randrange(5)):
            name, user_id = f"{life}-{number}-{place}-{entry}", rng.choice(USERS[number])
            kind = rng.random()
            if kind < 0.2:
                entries.append(impression(name, user_id, now_ms - rng.randrange(2_000)))
                requests.append((name, user_id))
            elif kind < 0.25:
                awaited.append(impression(name, user_id, now_ms))
                entries.append(_act(rng, name, user_id, now_ms, name))
            elif kind < 0.33 and past:
                entries.append(rng.choice(past))
            elif kind < 0.38:
                entries.append(interaction(name, STRANGER, now_ms))
            elif kind < 0.43:
                entries.append(interaction(name, user_id, now_ms + 3_600_000))
            elif kind < 0.45:
                entries.append(_NEITHER)
            elif kind < 0.48:
                entries.append(_forget(user_id, now_ms))
            elif kind < 0.53:
                entries.append(_act(rng, name, user_id, now_ms - 2 * _DAY_MS, ""))
            else:
                request, shown_to = rng.choice(requests)
                entries.append(_act(rng, name, shown_to, now_ms - rng.randrange(5_000), request))
        past += entries
        yield _record(rng, offset, now_ms, entries)
        offset += rng.choice((1,) * 12 + (2, 4))


def _record(rng: random.Random, offset: int, now_ms: int, entries: list[Activity]) -> Record:
    kind = rng.random()
    value = encode_frame(entries)
    if kind < 0.04:
        return Record(offset, now_ms, value[:-1] if entries else b"\xff")
    if kind < 0.06:
        return Record(offset, now_ms, None)
    if kind < 0.08:
        return Record(offset, 9_999_999_999_999, value)
    if kind < 0.16:
        return Record(offset, now_ms, encode_frame(()))
    if kind < 0.24:
        return Record(offset, now_ms - 10_000, value)  # stamped by a producer whose clock is behind
    return frame(offset, now_ms, *entries)


def _act(rng: random.Random, name: str, user_id: str, at_ms: int, request: str) -> Activity:
    action = rng.choice(_ACTIONS)
    act = interaction(name, user_id, at_ms, item=str(rng.randrange(6, 10)), action=action, request=request)
    if action == Action.ACTION_ORDER:
        act.interaction.value_micros, act.interaction.currency = 5_000_000, "CNY"
    return act


def _forget(user_id: str, at_ms: int) -> Activity:
    wish = Forget(user_id=user_id)
    wish.requested_at.FromMilliseconds(at_ms)
    return Activity(forget=wish)
