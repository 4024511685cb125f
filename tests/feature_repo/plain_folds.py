"""The rules of a user's row, told plainly: dicts, lists and one activity at a time.

The compiled folds are quick and in place; this is what they must amount to. Of them it takes only the named constants.
Numbers are rounded where the stored row rounds them.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from core.geo import cell_of, centre_of, distance_m
from core.ids import event_hash, item_key
from feature_repo.folds import history, interests, places
from feature_repo.folds.act import ENGAGEMENT, LONG_VIEW_MS, POSITIVE
from feature_repo.folds.entries import LATE_MS
from feature_repo.layouts import (
    DIM,
    FIRST_CODES,
    HISTORY,
    INTERESTS_KEPT,
    NO_CODE,
    PLACE_CELLS,
    POSITIVES,
    SEEN_EVENTS,
    TIERS,
    USER,
    WATCH_BUCKETS,
    WATCH_PEERS,
)
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction

Mean: TypeAlias = tuple[float, np.ndarray]  # weight behind it, (DIM,) float16
NOTHING: Mean = (0.0, np.zeros(DIM, np.float16))


class PlainItem(NamedTuple):
    """What a catalogue knows of an item."""

    vector: np.ndarray  # (DIM,) float32
    code: int
    tiers: list[int]  # by first-level code
    duration_ms: int


class Knowledge(NamedTuple):
    """What folds are told besides the log."""

    items: dict[int, PlainItem]  # by key
    tokenizer: int
    resolution: int


@dataclass
class Exposure:
    at_s: int
    item: int
    actions: set[int]
    watch: int | None


@dataclass
class Positive:
    at_s: int
    item: int
    code: int


@dataclass
class Interests:
    updated_ms: int = 0
    tokenizer: int = 0
    long_term: Mean = NOTHING
    short_term: Mean = NOTHING
    several: list[Mean] = field(default_factory=lambda: [NOTHING] * INTERESTS_KEPT)
    tier_items: int = 0
    tiers: list[list[int]] = field(default_factory=lambda: [[0] * TIERS for _ in range(FIRST_CODES)])


@dataclass
class Places:
    updated_ms: int = 0
    last: tuple[int, float, float] | None = None  # cell, latitude, longitude
    radius_m: float = 0.0
    mean: tuple[float, float] = (0.0, 0.0)
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)  # cell -> night, day; first seen first


@dataclass
class PlainUser:
    """Everything that is kept about one user."""

    log: tuple[int, int] = (0, 0)  # partition, offset
    updated_ms: int = 0
    applied: int = 0
    duplicates: int = 0
    seen: list[int] = field(default_factory=list)  # hashes of ids, all
    history: list[Exposure] = field(default_factory=list)
    positives: list[Positive] = field(default_factory=list)
    plays: list[list[int]] = field(
        default_factory=lambda: [[] for _ in range(WATCH_BUCKETS)]
    )  # tenths of a second, all
    watch_ms: int = 0
    interests: Interests = field(default_factory=Interests)
    places: Places = field(default_factory=Places)


def fold(user: PlainUser, activity: Activity, log: tuple[int, int], recorded_ms: int, known: Knowledge) -> PlainUser:
    """The user after one valid activity of the record at `log` (partition, offset)."""
    if activity.HasField("forget"):
        return PlainUser()
    user.log = log
    shown = activity.HasField("impression")
    name = f"impression\0{activity.impression.request_id}" if shown else activity.interaction.event_id
    at_ms = (activity.impression.served_at if shown else activity.interaction.occurred_at).ToMilliseconds()
    if event_hash(name) in user.seen[-SEEN_EVENTS:]:
        user.duplicates += 1
        return user
    user.seen.append(event_hash(name))
    user.updated_ms = max(user.updated_ms, at_ms)
    if not shown:
        user.applied += 1
        _act(user, activity.interaction, at_ms, recorded_ms - at_ms > LATE_MS, known)
    return user


def _act(user: PlainUser, event: Interaction, at_ms: int, late: bool, known: Knowledge) -> None:
    key = item_key(event.item_id)
    item = known.items.get(key)
    play_ms = event.play_ms if event.HasField("play_ms") else None
    duration_ms = event.duration_ms if event.HasField("duration_ms") else item.duration_ms if item else -1
    if item is not None and user.interests.tokenizer != known.tokenizer:
        user.interests = Interests(tokenizer=known.tokenizer)
        for positive in user.positives:
            positive.code = NO_CODE

    share = None if play_ms is None or duration_ms <= 0 else min(history.WATCH_MOST, 100 * play_ms // duration_ms)
    disliked = _with_exposure(user, Exposure(at_ms // 1000, key, {event.action}, share))
    long_ms = min(duration_ms, LONG_VIEW_MS) if duration_ms > 0 else LONG_VIEW_MS
    one = Positive(at_ms // 1000, key, item.code if item else NO_CODE)
    new = False
    if disliked:
        _take_same(user.positives, one)
    elif event.action in POSITIVE or (play_ms is not None and play_ms >= long_ms):
        new = _with_positive(user, one)

    if not late and play_ms is not None and duration_ms > 0:
        bucket = min(WATCH_BUCKETS - 1, max(0, math.floor(math.log2(duration_ms / 1000 + 1e-6))))
        user.plays[bucket].append(min(65_535, (play_ms + 50) // 100))
        user.watch_ms = max(user.watch_ms, at_ms)
    if not late and event.HasField("location"):
        _with_place(user.places, cell_of(event.location.latitude, event.location.longitude, known.resolution), at_ms)
    if item is not None:
        weight = ENGAGEMENT.get(event.action, 0.0)
        if event.action == Action.ACTION_PLAY and play_ms:
            weight = min(1.0, play_ms / long_ms)
        if weight:
            _with_vector(user.interests, item.vector, float(np.float32(weight)), at_ms)
        if new:
            _with_tiers(user.interests, item.tiers)


def _take_same(kept: list, one: Exposure | Positive) -> Exposure | Positive | None:  # type: ignore[type-arg]
    """The newest entry that is of the same exposure, taken out."""
    for place in reversed(range(len(kept))):
        if kept[place].item == one.item and abs(kept[place].at_s - one.at_s) <= history.EXPOSURE_S:
            found: Exposure | Positive = kept.pop(place)
            return found
    return None


def _in_order(one: Exposure | Positive) -> tuple[int, int]:
    return one.at_s, one.item


def _with_exposure(user: PlainUser, one: Exposure) -> bool:
    """The act is in the history; whether its exposure holds a dislike."""
    same = _take_same(user.history, one)
    if isinstance(same, Exposure):
        one.at_s = min(one.at_s, same.at_s)
        one.actions |= same.actions
        known = [watch for watch in (one.watch, same.watch) if watch is not None]
        one.watch = min(history.WATCH_MOST, sum(known)) if known else None
    user.history = sorted([*user.history, one], key=_in_order)[-HISTORY:]
    return Action.ACTION_DISLIKE in one.actions


def _with_positive(user: PlainUser, one: Positive) -> bool:
    """The act is among the positives; whether it began an exposure."""
    same = _take_same(user.positives, one)
    if isinstance(same, Positive):
        one = Positive(min(one.at_s, same.at_s), same.item, same.code)
    user.positives = sorted([*user.positives, one], key=_in_order)
    if len(user.positives) > POSITIVES:
        counts = Counter(kept.code for kept in user.positives)
        fullest = min(code for code, count in counts.items() if count == max(counts.values()))
        user.positives.remove(next(kept for kept in user.positives if kept.code == fullest))
    return same is None


def _with_place(row: Places, cell: int, at_ms: int) -> None:
    latitude, longitude = centre_of(cell)
    if row.last is None:
        row.mean = _single(latitude), _single(longitude)
    else:
        away_m, east = distance_m(*row.mean, latitude, longitude), (longitude - row.mean[1] + 180) % 360 - 180
        row.radius_m = _single(row.radius_m + places.SPREAD_SHARE * (away_m - row.radius_m))
        row.mean = (
            _single(row.mean[0] + places.SPREAD_SHARE * (latitude - row.mean[0])),
            _single((row.mean[1] + places.SPREAD_SHARE * east + 180) % 360 - 180),
        )
    solar_ms = at_ms + int(longitude / 15 * 3_600_000)
    hour, weekday = solar_ms // 3_600_000 % 24, (solar_ms // 86_400_000 + 3) % 7
    night, day = hour >= 22 or hour < 6, 9 <= hour < 17 and weekday < 5
    if night or day:
        if cell not in row.counts and len(row.counts) == PLACE_CELLS:
            del row.counts[min(row.counts, key=lambda known: sum(row.counts[known]))]
        nights, days = row.counts.get(cell, (0, 0))
        row.counts[cell] = nights + night, days + day
        if max(row.counts[cell]) >= places.COUNT_MOST:
            row.counts = {known: (one // 2, other // 2) for known, (one, other) in row.counts.items()}
    if at_ms >= row.updated_ms:
        row.updated_ms, row.last = at_ms, (cell, _single(latitude), _single(longitude))


def _single(value: float) -> float:
    return float(np.float32(value))


def _most(counts: dict[int, int], besides: int = 0) -> int:
    enough = {cell: count for cell, count in counts.items() if count >= places.MIN_ACTS and cell != besides}
    return max(enough, key=lambda cell: enough[cell], default=0)


def _with_vector(row: Interests, vector: np.ndarray, weight: float, at_ms: int) -> None:
    newest = max(row.updated_ms, at_ms)
    halvings, act_halvings = newest - row.updated_ms, newest - at_ms
    row.updated_ms = newest
    kept, counted = 0.5 ** (halvings / interests.LONG_HALF_LIFE_MS), 0.5 ** (act_halvings / interests.LONG_HALF_LIFE_MS)
    row.long_term = _mean(row.long_term, kept, vector, weight * counted)
    faded = [(_single(old * kept), mean) for old, mean in row.several]
    row.several = [(old if old >= interests.FADED else 0.0, mean) for old, mean in faded]
    if weight * counted > 0:
        place = _nearest(row.several, vector)
        row.several[place] = _mean(row.several[place], 1.0, vector, weight * counted)
    kept, counted = (
        0.5 ** (halvings / interests.SHORT_HALF_LIFE_MS),
        0.5 ** (act_halvings / interests.SHORT_HALF_LIFE_MS),
    )
    row.short_term = _mean(row.short_term, kept, vector, weight * counted)


def _mean(before: Mean, kept: float, vector: np.ndarray, weight: float) -> Mean:
    old, mean = before[0] * kept, before[1].astype(np.float32)
    total = old + abs(weight)
    if total == 0:
        return 0.0, before[1]
    after = mean * np.float32(old / total) + vector * np.float32(weight / total)
    return _single(min(interests.MOST_WEIGHT, total)), after.astype(np.float16)


def _nearest(several: list[Mean], vector: np.ndarray) -> int:
    used = [place for place, (weight, _) in enumerate(several) if weight > 0]
    free = [place for place, (weight, _) in enumerate(several) if weight == 0]
    means = {place: several[place][1].astype(np.float32) for place in used}
    cosine = {place: float(mean @ vector / max(np.linalg.norm(mean), 1e-30)) for place, mean in means.items()}
    best = max(used, key=lambda place: cosine[place], default=-1)
    return free[0] if free and (best < 0 or cosine[best] < interests.NEAR) else best


def _with_tiers(row: Interests, tiers: list[int]) -> None:
    for code, tier in enumerate(tiers):
        row.tiers[code][tier] += 1
    row.tier_items += 1
    if row.tier_items == interests.TIER_ITEMS:
        row.tier_items //= 2
        row.tiers = [[count // 2 for count in counts] for counts in row.tiers]


def row_of(user: PlainUser) -> np.ndarray:
    """The user as stored, (1,) USER."""
    rows = np.zeros(1, USER)
    row, past, watch, where = rows["interests"][0], rows["history"][0], rows["watch"][0], rows["places"][0]
    likes, stay = user.interests, user.places
    row["updated_ms"], row["tokenizer"], row["tier_items"] = likes.updated_ms, likes.tokenizer, likes.tier_items
    (row["weight"], row["long_term"]), (row["short_weight"], row["short_term"]) = likes.long_term, likes.short_term
    row["interest_weight"], row["interest"] = [list(column) for column in zip(*likes.several, strict=True)]
    row["tiers"] = likes.tiers
    past["log_partition"], past["log_offset"] = user.log
    past["updated_ms"], past["applied"], past["duplicates"] = user.updated_ms, user.applied, user.duplicates
    past["length"], past["positive_length"], past["seen_count"] = map(len, (user.history, user.positives, user.seen))
    for place, one in enumerate(user.history):
        past["item"][place], past["at_s"][place] = one.item, one.at_s
        past["actions"][place] = sum(1 << (action - 1) for action in one.actions)
        past["watch"][place] = history.WATCH_UNKNOWN if one.watch is None else one.watch
    for place, good in enumerate(user.positives):
        past["positive_item"][place], past["positive_at_s"][place] = good.item, good.at_s
        past["positive_code"][place] = good.code
    for place, id_hash in enumerate(user.seen):
        past["seen"][place % SEEN_EVENTS] = id_hash
    watch["updated_ms"] = user.watch_ms
    for bucket, plays in enumerate(user.plays):
        newest = plays[-WATCH_PEERS:]
        watch["count"][bucket], watch["length"][bucket] = len(plays), len(newest)
        watch["play_ds"][bucket, : len(newest)] = newest
    where["updated_ms"], where["length"], where["radius_m"] = stay.updated_ms, len(stay.counts), stay.radius_m
    where["mean_latitude"], where["mean_longitude"] = stay.mean
    if stay.last is not None:
        where["last_cell"], where["last_latitude"], where["last_longitude"] = stay.last
    where["home_cell"] = home = _most({cell: nights for cell, (nights, _) in stay.counts.items()})
    where["work_cell"] = _most({cell: days for cell, (_, days) in stay.counts.items()}, besides=home)
    for place, (cell, (nights, days)) in enumerate(stay.counts.items()):
        where["cell"][place], where["night"][place], where["day"][place] = cell, nights, days
    return rows
