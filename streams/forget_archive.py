"""Forgotten users leave the archive: their entries go, offsets and tombstones stay.

The archiver calls this when it meets a Forget in the log, before it archives the Forget itself. So a tombstone in
the archive means: nothing that the user did before it is archived any more.

A frame keeps its place without the user's entries, be it as an empty one: its timestamp is the partition's time,
and a replay must see the same time. A record that cannot be read and mentions the user loses its value: it is
refused by every replay all the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from core.archive import ArchivedRecord, Segment, read_segment, rewrite_segment, segments, topic_ids
from core.errors import FrameError
from core.frames import decode_frame, encode_frame
from feature_repo.admission import activities_of, fault_of
from protos.events.v1.activity_pb2 import Activity
from streams.cursor import Record

EVERYWHERE: Final = 1 << 31  # a place behind every entry of a frame


class Without(NamedTuple):
    """A record's value after entries were taken out."""

    value: bytes | None
    removed: int  # entries; a value that was not readable counts as one


class Scrubbed(NamedTuple):
    """What left the archive."""

    segments: int  # rewritten
    entries: int


def forgotten_in(record: Record, partition: int, partitions: int) -> dict[str, int]:
    """The users whom a record forgets, as the folds do, each with the place of the last such entry in its frame."""
    try:
        activities = activities_of(record.value, record.timestamp_ms)
    except FrameError:
        return {}
    return {
        activity.forget.user_id: place
        for place, activity in enumerate(activities)
        if activity.HasField("forget") and fault_of(activity.forget, record.timestamp_ms, partition, partitions) is None
    }


def without(value: bytes | None, users: Mapping[str, int]) -> Without:
    """The value without what each user did before a place in the frame; the very value where nothing is taken out."""
    if value is None or not any(user_id.encode() in value for user_id in users):
        return Without(value, 0)
    try:
        activities = decode_frame(value)
    except FrameError:
        return Without(None, 1)
    kept = [
        activity
        for place, activity in enumerate(activities)
        if activity.HasField("forget") or place >= users.get(_user_of(activity), 0)
    ]
    removed = len(activities) - len(kept)
    return Without(encode_frame(kept), removed) if removed else Without(value, 0)


def scrub(home: Path, topic_id: str, partition: int, users: Iterable[str]) -> Scrubbed:
    """Nothing that `users`, of `partition`, did is in the archive; nor in the archives of earlier topics.

    Each segment is replaced at once, so a crash leaves some done and some not: do it again. Reads every segment of
    the partition.

    Raises:
        ContractError: a file is not a segment.
        InputError: the archive cannot be written.
    """
    everything = dict.fromkeys(users, EVERYWHERE)
    rewritten = entries = 0
    for archived, segment in _segments(home, topic_id, partition):
        removed = sum(without(record.value, everything).removed for record in read_segment(segment))
        if removed:
            rewrite_segment(home, archived, segment, _kept(segment, everything))
            rewritten, entries = rewritten + 1, entries + removed
    return Scrubbed(rewritten, entries)


def entries_of(home: Path, topic_id: str, partition: int, user_id: str) -> int:
    """How many entries of a user of `partition` the archive holds, earlier topics included, tombstones not counted.

    Raises:
        ContractError: a file is not a segment.
    """
    return sum(
        without(record.value, {user_id: EVERYWHERE}).removed
        for _, segment in _segments(home, topic_id, partition)
        for record in read_segment(segment)
    )


def _segments(home: Path, topic_id: str, partition: int) -> Iterator[tuple[str, Segment]]:
    """Where users of `partition` may be: topics before this one may have had another number of partitions."""
    for archived in topic_ids(home):
        for segment in segments(home, archived, partition=partition if archived == topic_id else None):
            yield archived, segment


def _kept(segment: Segment, users: Mapping[str, int]) -> Iterator[ArchivedRecord]:
    for record in read_segment(segment):
        yield record._replace(value=without(record.value, users).value)


def _user_of(activity: Activity) -> str:
    kind = activity.WhichOneof("kind")
    return str(getattr(activity, kind).user_id) if kind else ""
