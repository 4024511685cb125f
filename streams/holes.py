"""Gaps in the offsets of a partition: records that were left out are asked for again, offsets that the log does not
have are stepped over.

Kafka numbers records without gaps, but not every number stands for one (compaction, transactions, deleted
records), and around a rebalance a fetch may begin too far ahead. Only the log can tell which it is, and it
does: after going back to the missing offset, either the record comes, or the one behind the gap comes again.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from streams.cursor import Record

AGAIN_S: Final = 1.0  # what is in flight when we go back arrives first; longer than that, and going back was in vain


class Step(Enum):
    """What to do about a gap."""

    WAIT = "wait"  # what arrives was fetched before we went back
    GO_BACK = "go back"
    STEP_OVER = "step over"


class _Hole(NamedTuple):
    expected: int
    found: int  # the first record behind the gap
    since_s: float


def runs(records: Sequence[Record]) -> Iterator[slice]:
    """The parts of a batch, in order, in which offsets ascend: where they turn back, somebody went back."""
    begin = 0
    for place in range(1, len(records) + 1):
        if place == len(records) or records[place].offset <= records[place - 1].offset:
            yield slice(begin, place)
            begin = place


class Holes:
    """The gaps that are being looked into, at most one in a partition."""

    def __init__(self) -> None:
        self._open: dict[int, _Hole] = {}

    def met(self, partition: int, expected: int, found: int, now_s: float) -> Step:
        """A run went on at offset `found` where `expected` was waited for; `now_s` is monotonic."""
        hole = self._open.get(partition)
        if hole is None or hole.expected != expected or found < hole.found:
            self._open[partition] = _Hole(expected, found, now_s)
            return Step.GO_BACK
        if found == hole.found:
            return Step.STEP_OVER
        if now_s - hole.since_s < AGAIN_S:
            return Step.WAIT
        self._open[partition] = hole._replace(since_s=now_s)
        return Step.GO_BACK

    def closed(self, partition: int) -> None:
        """A run had no gap."""
        self._open.pop(partition, None)

    def forget(self) -> None:
        """Nothing is known of any partition: all are read from another place now."""
        self._open.clear()
