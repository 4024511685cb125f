"""Traffic for fault runs, from a seed: what people do and are shown, and everything that may be wrong with it.

Users are drawn by Zipf. There are acts before and after their impression, clients' retries, late and reordered
events, acts on answers that were never given, wishes to be forgotten, entries and records that nobody can apply.
"""

import heapq
import itertools
import random
from collections import deque
from typing import NamedTuple

from core.frames import encode_frame
from core.partition import partition_of
from protos.events.v1.activity_pb2 import Activity, ActivityFrame, Forget
from protos.events.v1.impression_pb2 import Candidate, Impression
from protos.events.v1.interaction_pb2 import Action, Interaction

# Fewer than the places of a cell's popularity row: which of two equal scores gives way there hangs on the last bit.
ITEMS = [*(str(number) for number in range(30)), *(f"clip-{number}-é" for number in range(10))]
CITIES = (
    (30.27, 120.15),
    (51.51, -0.13),
    (40.71, -74.01),
    (-33.87, 151.21),
)  # it is night in one, working hours in another
RETRIED = 200  # newest entries of which a client may send one again: within the memory of every user
DAY_MS = 24 * 3_600_000

# What comes next, by weight.
KINDS = {
    "play": 40,
    "other_act": 20,
    "order": 4,
    "impression": 12,
    "retry": 5,
    "late": 4,
    "very_late": 2,
    "stray": 3,  # an act on an answer that was never given
    "forget": 0.2,
    "malformed": 2,
    "wrong_partition": 0.5,
    "poison": 0.5,
}
FRAME_SIZES = (1, 1, 5, 100)


class Sending(NamedTuple):
    """One record for activity.v1."""

    partition: int
    value: bytes | None
    timestamp_ms: int


class Traffic:
    """An endless stream of records; the same seed and the same times give the same records."""

    def __init__(self, seed: int, *, users: int, partitions: int, horizon_ms: int) -> None:
        self._rng = random.Random(seed)
        self._users = [f"user-{number}" if number % 7 else f"用户-{number}" for number in range(users)]
        self._cumulative = list(itertools.accumulate(1.0 / rank for rank in range(1, users + 1)))
        self._partitions = partitions
        self._horizon_ms = horizon_ms
        self._past: deque[tuple[str, Activity]] = deque(maxlen=RETRIED)
        self._later: list[tuple[int, int, str, Activity]] = []  # due, number, user, entry
        self._frames: list[list[Activity]] = [[] for _ in range(partitions)]
        self._sizes = [1] * partitions
        self._number = 0

    def records(self, entries: int, now_ms: int) -> list[Sending]:
        """The records that about `entries` more entries, and what is due by `now_ms`, fill."""
        sendings: list[Sending] = []
        kinds = self._rng.choices(list(KINDS), list(KINDS.values()), k=entries)
        for kind in kinds:
            if kind == "poison":
                sendings.append(self.poison(self._rng.randrange(self._partitions), now_ms))
            elif kind == "wrong_partition":
                user_id = self._user()
                wrong = (partition_of(user_id, self._partitions) + 1) % self._partitions
                sendings.append(Sending(wrong, encode_frame([self._act(user_id, now_ms)]), now_ms))
            else:
                sendings += self._put(*self._entry(kind, now_ms), now_ms)
        while self._later and self._later[0][0] <= now_ms:
            _, _, user_id, activity = heapq.heappop(self._later)
            sendings += self._put(user_id, activity, now_ms)
        return sendings

    def rest(self, now_ms: int) -> list[Sending]:
        """What is still to be sent, however early."""
        sendings = [one for _, _, *entry in sorted(self._later) for one in self._put(*entry, now_ms)]
        self._later.clear()
        return sendings + [
            self._frame(partition, now_ms) for partition in range(self._partitions) if self._frames[partition]
        ]

    def poison(self, partition: int, now_ms: int) -> Sending:
        """A record that is no frame of this version."""
        frame = encode_frame([self._act(self._user(), now_ms)])
        value: bytes | None = self._rng.choice(
            (
                None,
                b"\xff poison",
                frame[: len(frame) // 2],
                ActivityFrame(schema_version=9).SerializeToString(),
                encode_frame([Activity()] * 501),
            )
        )
        if self._rng.random() < 0.005:
            value = bytes((1 << 20) + 1)
        long_ago = self._rng.random() < 0.1
        return Sending(partition, frame if long_ago else value, 1_000 if long_ago else now_ms)

    def newcomers(self, now_ms: int) -> list[Sending]:
        """A record for each partition, of a user whom no worker has in its cache."""
        sendings: dict[int, Sending] = {}
        while len(sendings) < self._partitions:
            self._number += 1
            user_id = f"newcomer-{self._number}"
            partition = partition_of(user_id, self._partitions)
            sendings[partition] = Sending(partition, encode_frame([self._act(user_id, now_ms)]), now_ms)
        return list(sendings.values())

    def _entry(self, kind: str, now_ms: int) -> tuple[str, Activity]:
        rng, user_id = self._rng, self._user()
        if kind == "retry" and self._past:
            return rng.choice(self._past)
        if kind == "impression":
            return self._answered(user_id, now_ms)
        if kind == "malformed":
            return user_id, self._malformed(user_id, now_ms)
        if kind == "forget":
            forget = Forget(user_id=user_id)
            forget.requested_at.FromMilliseconds(now_ms)
            return user_id, Activity(forget=forget)
        at_ms = now_ms - rng.randrange(1_500)
        if kind == "late":
            at_ms -= rng.randrange(90 * 60_000)
        elif kind == "very_late":
            at_ms -= DAY_MS + rng.randrange(-60_000, DAY_MS)
        activity = self._act(user_id, at_ms)
        if kind == "play":
            activity.interaction.action = Action.ACTION_PLAY
        elif kind == "order":
            self._make_order(activity.interaction)
        elif kind == "stray":
            activity.interaction.request_id = f"never-{rng.randrange(20)}"
        return user_id, activity

    def _act(self, user_id: str, at_ms: int, item_id: str | None = None, request_id: str = "") -> Activity:
        """Anything that one may do with an item, but an order."""
        rng = self._rng
        self._number += 1
        event = Interaction(event_id=f"e{self._number}", user_id=user_id, request_id=request_id, surface="feed")
        event.item_id = item_id or rng.choice(ITEMS)
        event.action = rng.choice([action for action in Action.values() if action and action != Action.ACTION_ORDER])
        event.occurred_at.FromMilliseconds(at_ms)
        if event.action == Action.ACTION_PLAY or rng.random() < 0.3:
            event.play_ms = rng.randrange(40_000)
        if rng.random() < 0.9:
            event.duration_ms = rng.choice((0, 800, 7_000, 15_000, 30_000, 240_000, 7_200_000))
        if rng.random() < 0.4:
            latitude, longitude = CITIES[sum(user_id.encode()) % len(CITIES)]
            if rng.random() < 0.2:
                latitude, longitude = rng.choice(CITIES)
            event.location.latitude = latitude + rng.choice((0, 0, 0, 0, 1, 2, 3)) * 0.01
            event.location.longitude = longitude + rng.choice((0, 0, 0, 0, 1, 2, 3)) * 0.01
        return Activity(interaction=event)

    def _make_order(self, event: Interaction) -> None:
        event.action = Action.ACTION_ORDER
        event.value_micros = self._rng.randrange(10**9)
        event.currency = self._rng.choice(("CNY", "CNY", "EUR"))

    def _answered(self, user_id: str, now_ms: int) -> tuple[str, Activity]:
        """An impression, and acts on it to come; sometimes an act is here first and the impression comes later."""
        rng = self._rng
        self._number += 1
        request_id = f"r{self._number}"
        shown = Impression(request_id=request_id, user_id=user_id, surface="feed", model_version=3, tokenizer_version=2)
        shown.policy_version, shown.origin = "beam@1", rng.randrange(3)
        ahead_ms = rng.randrange(240_000) if rng.random() < 0.03 else 0  # a scorer's clock; still open at the end
        shown.served_at.FromMilliseconds(now_ms + ahead_ms)
        items = rng.choices(ITEMS, k=rng.randrange(1, 6))
        for position, item_id in enumerate(items):
            generated = rng.random() < 0.6
            shown.slots.add(item_id=item_id, position=position, source="generator" if generated else "popular")
            shown.slots[-1].candidate_index = len(shown.candidates) if generated else -1
            if generated:
                shown.candidates.append(
                    Candidate(item_id=item_id, codes=[1, 2, position], masked_log_probs=[-0.5, -1.25, -0.1])
                )
        if rng.random() < 0.2:
            shown.exploration.slate_log_prob = -rng.random()
        if rng.random() < 0.5:
            shown.feature_cursor.partition, shown.feature_cursor.offset = 1, self._number
        for _ in range(rng.randrange(4)):
            at_ms = now_ms + rng.randrange(int(self._horizon_ms * 1.3))  # some after the horizon
            item_id = rng.choice(items) if rng.random() < 0.9 else rng.choice(ITEMS)
            act = self._act(user_id, at_ms, item_id, request_id)
            if rng.random() < 0.2:
                self._make_order(act.interaction)
            self._put_off(at_ms, user_id, act)
        if rng.random() < 0.15:
            self._put_off(now_ms + rng.randrange(300, 2_000), user_id, Activity(impression=shown))
            return user_id, self._act(user_id, now_ms, items[0], request_id)
        return user_id, Activity(impression=shown)

    def _malformed(self, user_id: str, now_ms: int) -> Activity:
        """An entry with one fault."""
        rng = self._rng
        activity = self._act(user_id, now_ms)
        event = activity.interaction
        fault = rng.randrange(13)
        if fault == 0:
            return Activity()
        if fault == 1:
            shown = Impression(request_id=f"m{self._number}", user_id=user_id)
            shown.served_at.FromMilliseconds(now_ms)
            shown.slots.add(item_id="1", candidate_index=5)
            return Activity(impression=shown)
        if fault == 2:
            event.event_id = ""
        elif fault == 3:
            event.item_id = "x" * 257
        elif fault == 4:
            event.item_id = "a\x00b"
        elif fault == 5:
            event.action = rng.choice((0, 99))  # type: ignore[assignment]
        elif fault == 6:
            event.ClearField("occurred_at")
        elif fault == 7:
            event.occurred_at.FromMilliseconds(now_ms + 3_600_000)
        elif fault == 8:
            event.occurred_at.nanos = -1
        elif fault == 9:
            event.play_ms = rng.choice((-1, DAY_MS + 1))
        elif fault == 10:
            event.value_micros, event.currency = 5, rng.choice(("", "euro"))
        elif fault == 11:
            event.location.latitude = rng.choice((91.0, float("nan")))
        else:
            return Activity(forget=Forget(user_id=user_id))
        return activity

    def _user(self) -> str:
        return self._rng.choices(self._users, cum_weights=self._cumulative)[0]

    def _put_off(self, due_ms: int, user_id: str, activity: Activity) -> None:
        self._number += 1
        heapq.heappush(self._later, (due_ms, self._number, user_id, activity))

    def _put(self, user_id: str, activity: Activity, now_ms: int) -> list[Sending]:
        """The entry is in the frame of its partition; the frame when it is full."""
        self._past.append((user_id, activity))
        partition = partition_of(user_id, self._partitions)
        self._frames[partition].append(activity)
        full = len(self._frames[partition]) >= self._sizes[partition]
        return [self._frame(partition, now_ms)] if full else []

    def _frame(self, partition: int, now_ms: int) -> Sending:
        frame, self._frames[partition] = self._frames[partition], []
        self._sizes[partition] = self._rng.choice(FRAME_SIZES)
        behind_ms = self._rng.randrange(3_000) if self._rng.random() < 0.05 else 0  # producers' clocks differ
        return Sending(partition, encode_frame(frame), now_ms - behind_ms)
