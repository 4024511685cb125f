"""The log folded again, beside what serves: from the archive, and what it does not have yet from the topic.

    nearfeed replay --verify
    nearfeed replay --switch

A replay runs the very driver and folds of a worker, under the present catalogue and layout, into a schema of its
own. It begins at the archive's first record, prehistory included, or where the topic begins. Up to the place where
the serving side stands its outcomes are dropped, for they were sent; what it produces beyond is kept and sent after
a switch, where a worker may send it too: consumers know a repeat by its id.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg

from core.archive import archived_from, read_archive, segments, was_scrubbed
from core.clock import Clock
from core.errors import BrokerUnavailable, ContractError
from core.settings import Kafka, Postgres, Settings
from core.topics import ACTIVITY
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from feature_repo.postgres import conninfo, named_errors
from streams.activity_log import ActivityReader, Bounds, activity_topic
from streams.backfill import refuse_half
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.postgres_state import PostgresStateStore
from streams.published import PublishedItems
from streams.replay_tables import drop_produced, in_schema, only_replay, positions, prepare, schemas_of, switch
from streams.replay_verify import Compared, compare

logger = logging.getLogger(__name__)

BATCH_RECORDS: Final = 1_000  # handed to a driver at once
BATCH_BYTES: Final = 16 << 20
_MOST_THREADS: Final = 4  # folding holds the interpreter; more would only wait for PostgreSQL
_POLL_S: Final = 0.5
_COMPARE_TIMEOUT_MS: Final = 600_000  # a table is sorted before its first row comes

TopicRange: TypeAlias = Callable[[int, int, int], Iterator[Record]]  # partition, from, to -> records in [from, to)


class Progress(NamedTuple):
    """Who is told how far a replay is, in offsets."""

    expected: Callable[[int], None]  # so many more
    advanced: Callable[[int], None]  # so many more lie behind; called from several threads


class Replayed(NamedTuple):
    """One partition of a replay."""

    partition: int
    start: int  # below zero with prehistory
    end: int  # the first offset that is not in the replayed states
    records: int
    events: int  # interactions and impressions folded
    missing: int  # offsets that neither archive nor topic has


class Report(NamedTuple):
    """What a replay did."""

    partitions: list[Replayed]
    compared: list[Compared]  # empty without --verify
    switched: bool


class Folding:
    """Drivers that fold the log from archive and topic; each partition from where its driver stands."""

    def __init__(self, home: Path, topic_id: str, drivers: Mapping[int, Driver], topic: TopicRange) -> None:
        self.drivers = drivers
        self.missing = dict.fromkeys(drivers, 0)
        self._home = home
        self._topic_id = topic_id
        self._topic = topic
        self._ending = threading.Event()

    def fold_until(self, ends: Mapping[int, int], progress: Progress) -> None:
        """Everything before `ends` is in the states, several partitions at a time.

        Raises:
            BrokerUnavailable, StoreUnavailable: one did not answer in time; the states are incomplete.
            ContractError: a segment cannot be read.
        """
        progress.expected(sum(max(0, end - self.drivers[number].cursor.next_offset) for number, end in ends.items()))
        with ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="replay") as threads:
            running = [threads.submit(self._fold, number, end, progress) for number, end in ends.items()]
            try:
                for partition in running:
                    partition.result()
            finally:  # an error, or Ctrl-C: the others end with their batch
                self._ending.set()
        self._ending.clear()

    def _fold(self, number: int, end: int, progress: Progress) -> None:
        driver = self.drivers[number]
        archived = read_archive(self._home, self._topic_id, partition=number, from_offset=driver.cursor.next_offset)
        self._apply(driver, takewhile(lambda one: one.offset < end, (Record(*one[1:]) for one in archived)), progress)
        if driver.cursor.next_offset < end:
            self._apply(driver, self._topic(number, driver.cursor.next_offset, end), progress)
        self._skip(driver, end)

    def _apply(self, driver: Driver, records: Iterable[Record], progress: Progress) -> None:
        for batch in _batches(records):
            if self._ending.is_set():
                return
            before = driver.cursor.next_offset
            while batch:
                self._skip(driver, batch[0].offset)
                batch = batch[driver.apply(batch) :]
            progress.advanced(driver.cursor.next_offset - before)

    def _skip(self, driver: Driver, offset: int) -> None:
        """What lies before `offset` and was not met is nowhere."""
        hole = offset - driver.cursor.next_offset
        if hole > 0 and not self._ending.is_set():
            number = driver.partition.number
            logger.warning("replay.hole partition=%d first=%d offsets=%d", number, driver.cursor.next_offset, hole)
            self.missing[number] += hole
            driver.skip_hole(offset)


def replay(settings: Settings, *, verify: bool, switch_over: bool, clock: Clock, progress: Progress) -> Report:
    """The log is folded into the replay schema: up to the end that the topic has when the serving side's place is
    reached, or with `verify` alone up to that place. With `switch_over` it serves now, unless `verify` found a
    difference.

    Raises:
        BrokerUnavailable, StoreUnavailable: one did not answer in time; what serves is untouched.
        NotReady: another replay runs.
        ContractError: there is nothing to compare with, or the archive is damaged.
    """
    group, home = settings.streams.group, settings.archive.home
    topic_id = activity_topic(settings.kafka)
    refuse_half(home, topic_id)
    with ExitStack() as closing:
        guard = closing.enter_context(only_replay(settings.postgres))
        names = schemas_of(guard)
        reader = closing.enter_context(ActivityReader(settings.kafka))
        starts = {number: _start(home, topic_id, number, held) for number, held in reader.bounds().items()}
        prepare(guard, names, group, topic_id, starts)
        beside = in_schema(settings.postgres, names.replay)
        store = PostgresStateStore(beside, group, connections=_MOST_THREADS + 1)
        closing.callback(store.close)
        store.open()
        folding = Folding(home, topic_id, _drivers(settings, topic_id, store), _topic_range(settings.kafka, clock))

        folding.fold_until(starts | positions(guard, group, topic_id), progress)
        compared: list[Compared] = []
        if verify:
            with _snapshot(settings.postgres) as serving:
                folding.fold_until(_served(serving, group, topic_id, starts), progress)
                with _snapshot(beside) as replayed:
                    scrubbed = {segment.partition for segment in segments(home, topic_id) if was_scrubbed(segment)}
                    compared = compare(serving, replayed, processor=group, topic_id=topic_id, scrubbed=scrubbed)
        drop_produced(guard, names)
        same = all(table.same for table in compared)
        if same and (switch_over or not verify):
            folding.fold_until({number: held.end for number, held in reader.bounds().items()}, progress)
        if same and switch_over:
            store.close()
            switch(guard, names)
        partitions = [
            _replayed(number, starts[number], driver, folding.missing[number])
            for number, driver in folding.drivers.items()
        ]
        return Report(partitions, compared, switched=same and switch_over)


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value or b"")
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _start(home: Path, topic_id: str, partition: int, held: Bounds) -> int:
    first = archived_from(home, topic_id, partition)
    return held.begin if first is None else first


def _drivers(settings: Settings, topic_id: str, store: PostgresStateStore) -> dict[int, Driver]:
    """A driver for each partition, under the catalogue that is published now for as long as the replay runs."""
    streams, partitions = settings.streams, settings.kafka.activity_partitions
    without_items = FoldContext(NoItems(), 0, streams.horizon_s * 1000, streams.location_resolution)
    context = PublishedItems(settings.registry.home, without_items).context
    return {
        number: Driver(
            Partition(streams.group, ACTIVITY, topic_id, number, partitions),
            store,
            lambda: context,
            cache_users=streams.cache_users,
        )
        for number in range(partitions)
    }


def _served(serving: psycopg.Connection[Any], group: str, topic_id: str, starts: Mapping[int, int]) -> dict[int, int]:
    served = positions(serving, group, topic_id)
    if served.keys() != starts.keys():
        raise ContractError(
            f"found cursors of {len(served)} partitions, expected {len(starts)}; no worker has folded the others, so "
            "there is nothing to compare with: run `nearfeed stream`, or leave out --verify"
        )
    return served


def _topic_range(kafka: Kafka, clock: Clock) -> TopicRange:
    def read(partition: int, start: int, end: int) -> Iterator[Record]:
        with ActivityReader(kafka) as reader:
            reader.begin({partition: max(start, reader.bounds()[partition].begin)})
            patience_s = kafka.request_timeout_ms / 1000.0
            waiting_since_s = clock.monotonic_s()
            while reader.position(partition) < end:
                for _, records in reader.poll(_POLL_S):
                    yield from (record for record in records if record.offset < end)
                    waiting_since_s = clock.monotonic_s()
                if clock.monotonic_s() - waiting_since_s > patience_s:
                    raise BrokerUnavailable(
                        f"{ACTIVITY} partition {partition}: found no record for {patience_s:g} s, expected those up "
                        f"to {end}; check the broker and replay again"
                    )

    return read


@contextmanager
def _snapshot(settings: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection to whose reads the database stands still."""
    with named_errors(), psycopg.connect(conninfo(settings, "nearfeed-replay")) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(f"set local statement_timeout = {_COMPARE_TIMEOUT_MS}".encode())
        yield connection


def _replayed(partition: int, start: int, driver: Driver, missing: int) -> Replayed:
    cursor = driver.cursor
    return Replayed(partition, start, cursor.next_offset, cursor.records, cursor.applied + cursor.impressions, missing)
