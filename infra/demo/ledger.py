"""What the demo itself saw: every count and latency of the report that a client can know.

Counts from inside the platform (applied, duplicates, rejects on the topic, outcomes) are read from the
store and the topics at the end, never kept here, so that the two sides can be held against each other.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Answer(NamedTuple):
    """One answered Recommend call."""

    at_s: float  # monotonic, when the answer arrived
    took_ms: float
    model_version: int
    degraded: bool
    explored: bool


class Fresh(NamedTuple):
    """One act's way into an answer."""

    at_s: float  # monotonic, when the answer arrived
    took_ms: float  # from the broker's acknowledgement of the act


class Reward(NamedTuple):
    """What the user model's acts on one slate were worth, as the demo saw them at once."""

    at_s: float
    model_version: int
    watched_share: float  # mean watch share over the slate's items, each at most 1


@dataclass
class Ledger:
    """Counters and samples of one run; written by one event loop."""

    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)  # events refused at the door, by field
    errors: Counter[str] = field(default_factory=Counter)  # failed calls, by status
    answers: list[Answer] = field(default_factory=list)
    fresh: list[Fresh] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)
    illegal: list[str] = field(default_factory=list)  # items that should not have been shown

    def count(self, name: str, by: int = 1) -> None:
        """Add to one counter."""
        self.counts[name] += by

    def refuse(self, where: str) -> None:
        """One event was refused at the door because of the field `where`."""
        self.counts["refused"] += 1
        self.refusals[where] += 1


def percentiles(samples: list[float]) -> dict[str, float | None]:
    """p50 and p99 of the samples, None when there are none."""
    if not samples:
        return {"p50": None, "p99": None}
    return {"p50": round(float(np.percentile(samples, 50)), 2), "p99": round(float(np.percentile(samples, 99)), 2)}
