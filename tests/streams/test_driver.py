"""Laws of the state pattern, on the reference store: repeats, crashes, zombies and batch borders leave no trace."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import OwnershipLost, StoreUnavailable
from core.topics import OUTCOMES, REJECTED
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from feature_repo.sums import SUMS
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected
from streams.cursor import Record
from streams.driver import Driver
from streams.state_store import NEVER_MS, Commit, MemoryStateStore
from tests.streams.log_maker import (
    HORIZON_MS,
    PARTITION,
    START_MS,
    STRANGER,
    USERS,
    frame,
    impression,
    interaction,
    make_log,
)

CONTEXT = FoldContext(NoItems(), 1, HORIZON_MS, 9)
ALICE, BOB = USERS[:2]


def driver_on(store: MemoryStateStore, cache_users: int = 1_000) -> Driver:
    return Driver(PARTITION, store, lambda: CONTEXT, cache_users=cache_users)


def picture(store: MemoryStateStore) -> tuple[Any, ...]:
    """Everything a store holds, comparable; outbox records in order, epochs and row ids left out."""
    cursor = store.cursors[PARTITION]._replace(epoch=0)
    rows = [part.tobytes() for part in store.features.read_users(USERS)]
    answers = store.answers(USERS)
    sums = []
    for table in SUMS:
        keys = sorted(store.features.sum_keys(None, table, PARTITION.number))
        sums.append((keys, store.sums(table, PARTITION.number, keys).tobytes()))
    produced = sorted((record.topic, record.value) for _, record in store.outbox.values())
    return cursor, rows, answers, sums, produced


def reference(log: Sequence[Record]) -> tuple[Any, ...]:
    """What the whole log gives when one owner that never fails takes one record at a time."""
    store = MemoryStateStore()
    driver = driver_on(store)
    for record in log:
        driver.apply([record])
    return picture(store)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), borders=st.lists(st.integers(1, 7), min_size=1), cache_users=st.integers(0, 3))
def test_batch_borders_and_caches_leave_no_trace(seed: int, borders: list[int], cache_users: int) -> None:
    log = make_log(seed, 25)
    store = MemoryStateStore()
    driver = driver_on(store, cache_users)
    at = 0
    while at < len(log):
        for size in borders:
            assert driver.apply(log[at : at + size]) == len(log[at : at + size])
            at += size
    assert picture(store) == reference(log)


class Failing(MemoryStateStore):
    """Loses one commit: before it stands, or only its answer."""

    def __init__(self, at: int, after: bool) -> None:
        super().__init__()
        self._left = at
        self._after = after

    def commit(self, commit: Commit) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise StoreUnavailable("lost before the commit")
        super().commit(commit)
        if self._left == 0:
            raise StoreUnavailable("lost after the commit")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), at=st.integers(1, 30), after=st.booleans(), back=st.integers(0, 9))
def test_replay_after_a_crash_at_any_commit_changes_nothing(seed: int, at: int, after: bool, back: int) -> None:
    log = make_log(seed, 25)
    store = Failing(at, after)
    driver = driver_on(store)
    place = 0
    while place < len(log):
        try:
            driver.apply(log[place : place + 4])
            place += 4
        except StoreUnavailable:
            driver = driver_on(store)
            place = max(0, place - back)  # Kafka's committed offset lags behind
    assert picture(store) == reference(log)


def test_a_zombie_commits_nothing() -> None:
    log = make_log(1, 20)
    store = MemoryStateStore()
    zombie = driver_on(store)
    zombie.apply(log[:5])
    owner = driver_on(store)
    with pytest.raises(OwnershipLost, match="another owner"):
        zombie.apply(log[5:10])
    owner.apply(log[3:])
    assert picture(store) == reference(log)


def test_another_topic_of_the_same_name_begins_anew() -> None:
    store = MemoryStateStore()
    driver_on(store).apply(make_log(1, 20))
    remade = Driver(PARTITION._replace(topic_id="other"), store, lambda: CONTEXT, cache_users=0)
    assert remade.cursor.next_offset == 0


def test_a_zombie_of_an_earlier_topic_commits_nothing() -> None:
    log = make_log(1, 20)
    store = MemoryStateStore()
    zombie = driver_on(store)
    zombie.apply(log[:5])
    Driver(PARTITION._replace(topic_id="other"), store, lambda: CONTEXT, cache_users=0)
    with pytest.raises(OwnershipLost, match="another owner"):
        zombie.apply(log[5:10])


def test_a_hole_is_never_stepped_over() -> None:
    log = make_log(2, 10)
    store = MemoryStateStore()
    driver = driver_on(store)
    assert driver.apply([*log[:4], *log[6:]]) == 4
    assert driver.cursor.next_offset == 4
    assert driver.apply(log[6:]) == 0
    driver.skip_hole(6)
    assert driver.apply(log[6:]) == 4
    assert store.cursors[PARTITION].next_offset == 10


def test_poison_goes_to_rejected_whole_and_stops_nothing() -> None:
    store = MemoryStateStore()
    good = interaction("e1", ALICE, START_MS)
    misplaced = interaction("e2", STRANGER, START_MS)
    ahead = interaction("e3", ALICE, START_MS + 3_600_000)
    driver_on(store).apply(
        [
            Record(0, START_MS, b"\xff"),
            Record(1, START_MS, None),
            frame(2, START_MS, good, misplaced, ahead),
            Record(3, 9_999_999_999_999, b""),
            frame(4, START_MS, interaction("e4", ALICE, START_MS)),
        ]
    )
    rejects = [Rejected.FromString(record.value) for _, record in store.outbox.values()]
    assert {record.topic for _, record in store.outbox.values()} == {REJECTED}
    assert [(reject.offset, reject.index, reject.field) for reject in rejects] == [
        (0, -1, ""),
        (1, -1, ""),
        (2, 1, "user_id"),
        (2, 2, "occurred_at"),
        (3, -1, ""),
    ]
    assert rejects[0].payload == b"\xff"
    assert rejects[2].payload == misplaced.SerializeToString()
    cursor = store.cursors[PARTITION]
    assert (cursor.records, cursor.applied, cursor.rejected, cursor.next_offset) == (5, 2, 5, 5)
    assert cursor.log_time_ms == START_MS, "a broken clock must not move the log's time"


def test_counters_account_for_every_entry() -> None:
    log = make_log(5, 60)
    store = MemoryStateStore()
    driver = driver_on(store)
    driver.apply(log)
    cursor = driver.cursor
    rows = store.features.read_users(USERS).history
    assert (cursor.applied, cursor.duplicates) == (rows["applied"].sum(), rows["duplicates"].sum())
    assert min(cursor.applied, cursor.duplicates, cursor.rejected, cursor.impressions, cursor.outcomes) > 0


def test_a_clients_retry_changes_nothing_but_the_count() -> None:
    store = MemoryStateStore()
    driver = driver_on(store)
    act = interaction("e1", ALICE, START_MS)
    driver.apply([frame(0, START_MS, act), frame(1, START_MS, act, act)])
    assert (driver.cursor.applied, driver.cursor.duplicates) == (1, 2)
    assert store.features.read_users([ALICE]).history["applied"] == 1


def outcomes_in(store: MemoryStateStore) -> list[Outcome]:
    return [Outcome.FromString(record.value) for _, record in store.outbox.values() if record.topic == OUTCOMES]


def test_an_answer_closes_at_its_horizon_by_the_time_of_the_log() -> None:
    store = MemoryStateStore()
    driver = driver_on(store)
    driver.apply([frame(0, START_MS, impression("r1", ALICE, START_MS))])
    assert driver.next_due_ms == START_MS + HORIZON_MS
    driver.apply([frame(1, START_MS + HORIZON_MS - 1, interaction("e1", ALICE, START_MS, item="8", request="r1"))])
    assert outcomes_in(store) == []
    driver.apply([frame(2, START_MS + HORIZON_MS)])  # a heartbeat
    closed = {outcome.item_id: list(outcome.actions) for outcome in outcomes_in(store)}
    assert closed == {"7": [], "8": [Action.ACTION_LIKE]}
    assert driver.next_due_ms == NEVER_MS


def test_an_act_after_the_horizon_joins_nothing_whenever_the_sweep_comes() -> None:
    log = [
        frame(0, START_MS, impression("r1", ALICE, START_MS)),
        frame(1, START_MS + HORIZON_MS, interaction("e1", ALICE, START_MS + 5, item="7", request="r1")),
    ]
    for batches in ([log], [[log[0]], [log[1]]]):
        store = MemoryStateStore()
        driver = driver_on(store)
        for batch in batches:
            driver.apply(batch)
        assert [list(outcome.actions) for outcome in outcomes_in(store)] == [[], []]


def test_nothing_due_stays_open_after_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.driver.SWEEP_USERS", 2)
    store = MemoryStateStore()
    driver = driver_on(store)
    shown = [impression(f"r{number}", user_id, START_MS) for number, user_id in enumerate(USERS)]
    driver.apply([frame(0, START_MS, *shown), frame(1, START_MS + HORIZON_MS)])
    assert len(outcomes_in(store)) == 2 * len(USERS)
    assert driver.cursor.outcomes == 2 * len(USERS)


def test_a_new_owner_knows_what_waits() -> None:
    store = MemoryStateStore()
    driver_on(store).apply([frame(0, START_MS, impression("r1", BOB, START_MS))])
    assert driver_on(store).next_due_ms == START_MS + HORIZON_MS


def test_large_batches_become_several_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.driver.MAX_ACTIVITIES", 3)
    log = make_log(9, 40)
    store = MemoryStateStore()
    committed: list[int] = []
    driver = Driver(
        PARTITION, store, lambda: CONTEXT, cache_users=2, committed=lambda done: committed.append(len(done.recorded_ms))
    )
    driver.apply(log)
    assert sum(committed) == len(log) and len(committed) > 10
    assert picture(store) == reference(log)
