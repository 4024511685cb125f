"""The process behind `nearfeed archive`: activity.v1 in, segments of the archive out.

    nearfeed archive

It begins where the archive ends and keeps nothing but the archive itself, so it may die at any moment: what was not
written is read again, and half a segment is none. It does not join the stream workers' group and they do not wait
for it. One process writes an archive at a time.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from core.archive import ArchivedRecord, archived_until, day_of, write_segment
from core.clock import Clock
from core.errors import ContractError, NotReady
from core.settings import Archive, Kafka, Settings
from core.topics import ACTIVITY
from streams.activity_log import ActivityReader, Bounds, activity_topic
from streams.cursor import Record
from streams.forget_archive import EVERYWHERE, forgotten_in, scrub, without

logger = logging.getLogger(__name__)

LOCK_FILE: Final = "archiver.lock"
_POLL_S: Final = 0.5


class Archived(NamedTuple):
    """One partition after a run."""

    partition: int
    records: int  # archived by this run
    until: int  # the first offset that is not archived
    missing: int  # offsets that retention took before they were archived, at the start of this run


@dataclass
class _Filling:
    """What a partition's next segment holds so far."""

    since_s: float
    day: str
    records: list[ArchivedRecord] = field(default_factory=list)
    size: int = 0
    scrubbed: bool = False  # entries of forgotten users were left out


class Archiver:
    """Fills segments and writes them when they are full, old, or of another day. For one thread."""

    def __init__(
        self, topic_id: str, partitions: int, settings: Archive, clock: Clock, *, confirm: Callable[[], None]
    ) -> None:
        """`confirm` is asked before each segment and raises when the topic is no longer `topic_id`."""
        self._topic_id = topic_id
        self._confirm = confirm
        self._partitions = partitions
        self._settings = settings
        self._clock = clock
        self._filling: dict[int, _Filling] = {}
        self.written: dict[int, int] = {}  # partition -> records that stand in the archive by now

    def add(self, partition: int, records: Sequence[Record]) -> None:
        """Take the next records of a partition, ascending; those that complete a segment stand in the archive.

        After a Forget the archive holds nothing more of its user from before it, and the Forget itself.

        Raises:
            ContractError, InputError: the archive cannot be read or written.
        """
        wishes = [forgotten_in(record, partition, self._partitions) for record in records]
        last = {user_id: at for at, users in enumerate(wishes) for user_id in users}
        if last:  # out of the archive before the first Forget of these records can enter it
            self._forget(partition, last)
        for at, (record, users) in enumerate(zip(records, wishes, strict=True)):
            earlier = {
                user_id: EVERYWHERE if at < wish else users[user_id] for user_id, wish in last.items() if at <= wish
            }
            value, removed = without(record.value, earlier)
            self._add(partition, record._replace(value=value), scrubbed=removed > 0)
        if last:
            self._write(partition)

    def write_due(self) -> None:
        """What has waited for `archive.segment_s` stands in the archive."""
        due_s = self._clock.monotonic_s() - self._settings.segment_s
        for partition in [number for number, filling in self._filling.items() if filling.since_s <= due_s]:
            self._write(partition)

    def write_all(self) -> None:
        """Everything that was taken stands in the archive."""
        for partition in list(self._filling):
            self._write(partition)

    def _add(self, partition: int, record: Record, *, scrubbed: bool) -> None:
        day = day_of(record.timestamp_ms)
        filling = self._filling.get(partition)
        # Only a later day begins a segment: with producers whose clocks differ, days would alternate at midnight.
        if filling is not None and day > filling.day:
            self._write(partition)
            filling = None
        if filling is None:
            filling = self._filling[partition] = _Filling(self._clock.monotonic_s(), day)
        filling.records.append(ArchivedRecord(partition, *record))
        filling.size += len(record.value or b"")
        filling.scrubbed |= scrubbed
        if len(filling.records) >= self._settings.segment_records or filling.size >= self._settings.segment_bytes:
            self._write(partition)

    def _forget(self, partition: int, users: Iterable[str]) -> None:
        everything = dict.fromkeys(users, EVERYWHERE)
        filling = self._filling.get(partition)
        if filling is not None:
            found = [without(record.value, everything) for record in filling.records]
            filling.records = [
                record._replace(value=one.value) for record, one in zip(filling.records, found, strict=True)
            ]
            filling.scrubbed |= any(one.removed for one in found)
        scrubbed = scrub(self._settings.home, self._topic_id, partition, everything)
        logger.info(
            "archive.forgotten partition=%d users=%d segments=%d entries=%d", partition, len(everything), *scrubbed
        )

    def _write(self, partition: int) -> None:
        filling = self._filling.pop(partition, None)
        if filling is None:
            return
        self._confirm()
        segment = write_segment(self._settings.home, self._topic_id, filling.records, scrubbed=filling.scrubbed)
        self.written[partition] = self.written.get(partition, 0) + len(filling.records)
        logger.info(
            "archive.segment partition=%d first=%d last=%d day=%s bytes=%d",
            partition,
            segment.first,
            segment.last,
            segment.day,
            filling.size,
        )


def run_archiver(settings: Settings, *, once: bool, stop: threading.Event, clock: Clock) -> list[Archived]:
    """Follow the topic until `stop` is set, or with `once` up to its present end; what was taken is archived then.

    Raises:
        NotReady: another process archives into this home, or the broker did not answer at the start.
        ContractError: the topic is missing, was made again, or retention overtook this process.
        InputError: the archive cannot be written.
    """
    with one_archiver(settings.archive.home), ActivityReader(settings.kafka) as reader:
        topic_id = activity_topic(settings.kafka)
        bounds = reader.bounds()
        starts = {number: _start(settings.archive.home, topic_id, number, held) for number, held in bounds.items()}
        archiver = Archiver(
            topic_id,
            settings.kafka.activity_partitions,
            settings.archive,
            clock,
            confirm=lambda: _confirm(settings.kafka, topic_id),
        )
        reader.begin({number: start.offset for number, start in starts.items()})
        logger.info("archive.ready home=%s partitions=%d", settings.archive.home, len(bounds))
        left = set(bounds)
        while left and not stop.is_set():
            for partition, records in reader.poll(_POLL_S):
                archiver.add(partition, records)
            archiver.write_due()
            if once:
                left = {number for number in left if reader.position(number) < bounds[number].end}
        archiver.write_all()
        return [
            Archived(
                number,
                archiver.written.get(number, 0),
                max(start.offset, archived_until(settings.archive.home, topic_id, number)),
                start.missing,
            )
            for number, start in starts.items()
        ]


@contextmanager
def one_archiver(home: Path) -> Iterator[None]:
    """This process archives into `home`, alone.

    Raises:
        NotReady: another process does.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the process, however it ends
        except BlockingIOError:
            lock.seek(0)
            raise NotReady(
                f"{home}: found another archiver (process {lock.read().strip()}), expected none; one writes an "
                "archive: end that one (SIGTERM) or set archive.home"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_archiving(home: Path) -> bool:
    """Whether a process archives into `home` now."""
    try:
        with one_archiver(home):
            return False
    except NotReady:
        return True


class _Start(NamedTuple):
    offset: int
    missing: int


def _start(home: Path, topic_id: str, partition: int, held: Bounds) -> _Start:
    until = archived_until(home, topic_id, partition)
    if until > held.end:
        raise ContractError(
            f"{ACTIVITY} partition {partition}: found its end at {held.end}, expected at least {until}, where the "
            "archive ends; the broker lost records: replay from the archive, or set another archive.home"
        )
    missing = max(0, held.begin - until)
    if missing:
        logger.warning("archive.hole partition=%d first=%d records=%d: retention was faster", partition, until, missing)
    return _Start(until + missing, missing)


def _confirm(kafka: Kafka, topic_id: str) -> None:
    found = activity_topic(kafka)
    if found != topic_id:
        raise ContractError(
            f"{ACTIVITY}: found topic id {found}, expected {topic_id}; the topic was made again: start anew"
        )
