"""Where a processor stands in one partition of the log, and what it has counted on the way."""

from typing import NamedTuple


class Partition(NamedTuple):
    """One partition of one topic, as one processor reads it. A topic made again has another `topic_id`."""

    processor: str  # the consumer group
    topic: str
    topic_id: str
    number: int
    partitions: int  # of the topic


class Record(NamedTuple):
    """One Kafka record, as far as a fold may see it."""

    offset: int
    timestamp_ms: int
    value: bytes | None


class Cursor(NamedTuple):
    """The stored position, advanced in the very transaction that stores what was read up to it.

    Everything before `next_offset` is in the states; nothing from there on is. A frame is applied whole
    or not at all. The counters move with the position, so a crash changes none of them.
    """

    epoch: int  # of the owner; whoever holds a lower one is fenced
    next_offset: int = 0
    log_time_ms: int = 0  # latest record timestamp read: the partition's time
    records: int = 0
    applied: int = 0  # interactions folded into states
    duplicates: int = 0  # interactions whose event id the user's state had seen, impressions seen before
    rejected: int = 0  # entries, or whole records, sent to rejected.v1
    impressions: int = 0
    outcomes: int = 0
    let_go: int = 0  # acts that named a request and that no outcome holds
    late: int = 0  # interactions applied that count for no habit: older than their record by LATE_MS
    forgotten: int = 0  # wishes to be forgotten
