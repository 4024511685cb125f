"""Laws of a replay: archive and topic are one log, folded to the very place that was asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.archive import ArchivedRecord, write_segment
from core.errors import BrokerUnavailable
from feature_repo.sums import SUMS
from streams import replay as module
from streams.cursor import Cursor, Partition, Record
from streams.driver import Driver
from streams.replay import Folding, Progress, TopicRange
from streams.state_store import MemoryStateStore
from tests.streams.log_maker import PARTITION, USERS, make_log
from tests.streams.test_driver import CONTEXT

NUMBER, TOPIC = PARTITION.number, PARTITION.topic_id


def picture(store: MemoryStateStore) -> tuple[Any, ...]:
    """Everything stored, comparable; epochs left out."""
    number = NUMBER
    keys = [sorted(store.features.sum_keys(None, table, number)) for table in SUMS]
    return (
        store.cursors[PARTITION]._replace(epoch=0),
        [part.tobytes() for part in store.features.read_users(USERS)],
        store.answers(USERS),
        [store.sums(table, number, names).tobytes() for table, names in zip(SUMS, keys, strict=True)],
        keys,
        sorted((record.topic, record.value) for _, record in store.outbox.values()),
    )


def folded(log: Sequence[Record], start: int = 0) -> tuple[Any, ...]:
    """The same log, through one driver in one batch."""
    store = MemoryStateStore()
    store.cursors[PARTITION] = Cursor(0, start)
    Driver(PARTITION, store, lambda: CONTEXT, cache_users=99).apply(log)
    return picture(store)


def topic_of(log: Sequence[Record]) -> TopicRange:
    def read(_: int, start: int, end: int) -> Iterator[Record]:
        return (record for record in log if start <= record.offset < end)

    return read


def folding(home: Path, topic: Sequence[Record], start: int = 0) -> tuple[Folding, MemoryStateStore]:
    store = MemoryStateStore()
    store.cursors[PARTITION] = Cursor(0, start)
    driver = Driver(PARTITION, store, lambda: CONTEXT, cache_users=2)
    return Folding(home, TOPIC, {NUMBER: driver}, topic_of(topic)), store


def archive(home: Path, records: Sequence[Record]) -> None:
    write_segment(home, TOPIC, [ArchivedRecord(NUMBER, *record) for record in records])


class Counting:
    """How far a replay said it was."""

    def __init__(self) -> None:
        self.expected = 0
        self.advanced = 0

    def progress(self) -> Progress:
        def expect(more: int) -> None:
            self.expected += more

        def advance(more: int) -> None:
            self.advanced += more

        return Progress(expect, advance)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    archived=st.integers(1, 30),
    kept_from=st.integers(0, 30),
    stops=st.lists(st.integers(0, 30), max_size=3),
    prehistory=st.integers(0, 10),
)
def test_archive_and_topic_are_one_log(
    seed: int,
    archived: int,
    kept_from: int,
    stops: list[int],
    prehistory: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Wherever one ends and the other begins, and in however many steps they are folded."""
    home = tmp_path_factory.mktemp("archive")
    log = [record._replace(offset=record.offset - prehistory) for record in make_log(seed, 30)]
    archive(home, log[:archived])
    replayed, store = folding(home, log[min(kept_from, archived) :], -prehistory)
    counting = Counting()
    for stop in [*sorted(stops), 30]:
        end = stop - prehistory
        replayed.fold_until({NUMBER: end}, counting.progress())
        assert replayed.drivers[NUMBER].cursor.next_offset == max(end, -prehistory)
    assert picture(store) == folded(log, -prehistory)
    assert replayed.missing == {NUMBER: 0}
    assert counting.expected == counting.advanced == 30


def test_what_neither_archive_nor_topic_has_is_counted(tmp_path: Path) -> None:
    log = make_log(3, 30)
    archive(tmp_path, [*log[:4], *log[6:10]])
    replayed, store = folding(tmp_path, log[15:28])
    replayed.fold_until({NUMBER: 30}, Counting().progress())
    assert replayed.missing == {NUMBER: 2 + 5 + 2}
    assert store.cursors[PARTITION].records == 30 - 9


def test_batches_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 10)
    records = [Record(at, 0, bytes(4)) for at in range(7)]
    assert [len(batch) for batch in module._batches(records)] == [3, 3, 1]


def test_an_error_in_one_partition_ends_the_replay(tmp_path: Path) -> None:
    def away(partition: int, start: int, end: int) -> Iterator[Record]:
        if partition == 0:
            raise BrokerUnavailable("away")
        while True:  # the other would go on for ever
            yield Record(start, 1_700_000_000_000, b"")
            start += 1

    store = MemoryStateStore()
    drivers = {
        number: Driver(Partition("tests", "activity.v1", TOPIC, number, 2), store, lambda: CONTEXT, cache_users=2)
        for number in range(2)
    }
    with pytest.raises(BrokerUnavailable):
        Folding(tmp_path, TOPIC, drivers, away).fold_until({0: 5, 1: 10**9}, Counting().progress())
