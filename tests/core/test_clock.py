"""One clock: three shared numbers give every process the same platform time."""

import time
from datetime import UTC, datetime

import pytest

from core.clock import FixedClock, PlatformClock, as_datetime
from core.settings import as_environment, load

WALL_MS = 1_700_000_000_000


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> FixedClock:
    """The machine's wall time, moved by hand."""
    wall = FixedClock(WALL_MS)
    monkeypatch.setattr(time, "time_ns", lambda: wall.at_ms * 1_000_000)
    return wall


def test_default_is_wall_time(wall: FixedClock) -> None:
    assert PlatformClock().now_ms() == WALL_MS


def test_at_the_anchor_platform_time_is_the_anchors(wall: FixedClock) -> None:
    assert PlatformClock(WALL_MS, 42, speed=7.0).now_ms() == 42


def test_platform_time_runs_speed_times_as_fast(wall: FixedClock) -> None:
    clock = PlatformClock(WALL_MS, 1_000_000, speed=60.0)
    wall.advance(250)
    assert clock.now_ms() == 1_000_000 + 60 * 250


def test_shared_numbers_give_shared_time(wall: FixedClock) -> None:
    parent = {
        "NEARFEED_CLOCK__ANCHOR_WALL_MS": str(WALL_MS - 3_000),
        "NEARFEED_CLOCK__ANCHOR_PLATFORM_MS": "1650000000000",
        "NEARFEED_CLOCK__SPEED": "1234.5",
    }
    child = as_environment(load(parent))
    assert load(child).clock.clock() == load(parent).clock.clock()
    assert load(child).clock.clock().now_ms() == 1_650_000_000_000 + round(3_000 * 1234.5)


def test_sleeping_until_a_platform_time_arrives_at_it(wall: FixedClock) -> None:
    clock = PlatformClock(WALL_MS, 0, speed=4.0)
    seconds = clock.wall_seconds_until(10_000)
    wall.advance(round(seconds * 1000))
    assert clock.now_ms() == 10_000
    assert clock.wall_seconds_until(9_999) == 0.0


def test_latency_clock_ignores_offset_and_speed() -> None:
    before = time.monotonic()
    assert before <= PlatformClock(WALL_MS, 0, speed=1e6).monotonic_s() <= time.monotonic()


def test_fixed_clock_moves_both_times_together() -> None:
    clock = FixedClock(5_000, monotonic=1.0)
    clock.advance(1_500)
    assert (clock.now_ms(), clock.monotonic_s()) == (6_500, 2.5)


def test_datetimes_are_aware_and_utc() -> None:
    assert as_datetime(1_650_000_000_123) == datetime(2022, 4, 15, 5, 20, 0, 123_000, tzinfo=UTC)
