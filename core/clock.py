"""One clock for the whole platform, with an offset and a speed.

Recorded days are replayed by giving every process the same three numbers: a wall-clock anchor, the
platform time at that anchor, and how many platform seconds pass per wall second. Latencies are never
measured on it: they use the monotonic clock, which all processes of one machine share.
"""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells platform time and monotonic time."""

    def now_ms(self) -> int:
        """Platform time, milliseconds since 1970 UTC."""

    def monotonic_s(self) -> float:
        """Seconds on the machine's monotonic clock, for latencies and deadlines."""


@dataclass(frozen=True)
class PlatformClock:
    """Wall time, shifted and scaled. The default is plain wall time."""

    anchor_wall_ms: int = 0
    anchor_platform_ms: int = 0
    speed: float = 1.0

    def now_ms(self) -> int:
        # Integers up to here: at 60 times the speed a float of the whole wall time is a millisecond off.
        elapsed_ns = time.time_ns() - self.anchor_wall_ms * 1_000_000
        return self.anchor_platform_ms + math.floor(elapsed_ns * self.speed / 1e6)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_seconds_until(self, platform_ms: int) -> float:
        """How long to sleep until platform time reaches `platform_ms`; 0 when it has passed."""
        return max(0.0, (platform_ms - self.now_ms()) / 1000.0 / self.speed)


@dataclass
class FixedClock:
    """A clock that stands until somebody moves it; for tests and replays."""

    at_ms: int
    monotonic: float = 0.0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.monotonic

    def advance(self, ms: int) -> None:
        """Move both times forward by `ms`."""
        self.at_ms += ms
        self.monotonic += ms / 1000.0


def as_datetime(at_ms: int) -> datetime:
    """An aware UTC datetime for milliseconds since 1970."""
    return datetime.fromtimestamp(at_ms / 1000.0, tz=UTC)
