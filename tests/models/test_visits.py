"""What visits say is what a plain count of them says, and only visits say it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batches import TABLES
from models.evidence import near_items
from models.visits import RECENCY, Visits, weekend

ITEMS = 5
HOUR_MS = 3_600_000
MONDAY_MS = 4 * 24 * HOUR_MS  # 1970-01-05 00:00


@given(
    acts=st.lists(st.tuples(st.integers(-1, ITEMS - 1), st.integers(0, 24 * 14)), max_size=12),
    videos=st.sets(st.integers(0, ITEMS - 1), max_size=2),
)
def test_each_source_is_a_plain_count(acts: list[tuple[int, int]], videos: set[int]) -> None:
    items = np.array([[item for item, _ in acts]], np.int64).reshape(1, -1)
    at_ms = np.array([[hour * HOUR_MS for _, hour in acts]], np.int64).reshape(1, -1)
    now_ms = np.array([24 * 15 * HOUR_MS])
    visits = Visits((items >= 0) & ~np.isin(items, list(videos)), at_ms, now_ms)
    near, nearness = near_items(items, (), visits=visits)
    known = [(age, item, hour) for age, (item, hour) in enumerate(acts) if item >= 0 and item not in videos]
    expected: dict[int, list[float]] = {item: [0.0, 0.0, 0.0] for _, item, _ in known}
    for place, (age, item, hour) in enumerate(known):
        apart = min(hour % 24, 24 - hour % 24)  # now it is midnight
        kind = 1.0 if weekend(now_ms)[0] == weekend(np.array([hour * HOUR_MS]))[0] else 0.5
        expected[item][0] += RECENCY**age
        expected[item][1] += kind * math.exp(-((apart / 1.5) ** 2) / 2)
        expected[item][2] += place + 1 < len(known) and known[place + 1][1] == known[0][1]
    sums = np.array(list(expected.values())).reshape(-1, 3)
    percent = dict(zip(expected, 100 * sums / np.maximum(sums.sum(axis=0), 1.0), strict=True))
    found = {int(item): nearness[0, place] for place, item in enumerate(near[0]) if item >= 0}
    assert found.keys() == expected.keys()
    for item, said in found.items():
        assert said[TABLES:].tolist() == pytest.approx(percent[item].tolist(), abs=1e-4)
        assert not said[:TABLES].any()


def test_without_the_time_of_the_request_no_hour_is_like_another() -> None:
    items = np.array([[1, 2, 1, 2]])
    told = Visits(items >= 0, np.full(items.shape, MONDAY_MS), np.array([MONDAY_MS]))
    one, other = (near_items(items, (), visits=visits)[1] for visits in (told, told._replace(now_ms=None)))
    assert one[0, :2, TABLES + 1].tolist() == [50.0, 50.0] and not other[0, :, TABLES + 1].any()
    np.testing.assert_array_equal(np.delete(one, TABLES + 1, axis=2), np.delete(other, TABLES + 1, axis=2))


def test_saturday_and_sunday_are_the_weekend() -> None:
    days = MONDAY_MS + np.arange(7) * 24 * HOUR_MS
    assert weekend(days).tolist() == [False] * 5 + [True] * 2
