"""What every FeatureReader and FeatureWriter promises; one suite, the store in memory and the real one."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import psycopg
import pytest

from core.errors import ContractError, StoreUnavailable
from core.settings import Postgres, Settings
from feature_repo.apply import apply_features, feature_store
from feature_repo.folds import attribution, popularity, user
from feature_repo.folds.context import Record
from feature_repo.folds.user import UserState
from feature_repo.inspect import inspect_user
from feature_repo.layouts import GLOBAL_CELL, UserRows
from feature_repo.postgres import conninfo
from feature_repo.store import (
    AsyncPackedReader,
    FeatureReader,
    FeatureWriter,
    MemoryStore,
    PackedStore,
    Transaction,
)
from feature_repo.views import user_history
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import CONTEXT, HORIZON_MS, PARIS, START_MS, act, impression, interaction


class Store(FeatureReader, FeatureWriter, Protocol):
    """Both halves."""


class Subject(NamedTuple):
    """A store, and how to open a transaction that it writes in."""

    store: Store
    transaction: Any  # () -> context manager of a Transaction

    def begin(self) -> AbstractContextManager[Transaction]:
        return self.transaction()  # type: ignore[no-any-return]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.live)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        yield Subject(MemoryStore(), nullcontext)
        return
    settings: Settings = request.getfixturevalue("applied")
    with PackedStore(settings.postgres, "contract") as store:
        yield Subject(store, lambda: transaction(settings.postgres))


@pytest.fixture(scope="module")
def applied(platform_settings: Settings) -> Settings:
    apply_features(platform_settings)
    return platform_settings


@contextmanager
def transaction(settings: Postgres) -> Iterator[Transaction]:
    with psycopg.connect(conninfo(settings, "contract")) as connection:
        yield connection


def a_state(number: int, acts: int = 3) -> UserState:
    activities = [
        interaction(
            f"{number}/{n}",
            str(n % 5),
            Action.ACTION_PLAY,
            START_MS + number * 1000 + n,
            play_ms=1000 * (n + number),
            location=PARIS,
        )
        for n in range(acts)
    ]
    return user.fold_record(user.EMPTY, activities, Record(0, number, START_MS), CONTEXT)[0]


def same(left: UserRows, right: UserRows) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def write(subject: Subject, states: dict[str, UserState]) -> UserRows:
    rows = user.pack(list(states.values()))
    with subject.begin() as tx:
        subject.store.write_users(tx, list(states), rows)
    return rows


def test_what_was_written_is_read(subject: Subject) -> None:
    states = {f"read {number}": a_state(number) for number in range(40)}
    rows = write(subject, states)
    assert same(subject.store.read_users(list(states)), rows)
    with subject.begin() as tx:
        assert same(subject.store.load_users(tx, list(states)), rows)


def test_rows_come_in_the_order_asked_for_even_twice(subject: Subject) -> None:
    states = {"order a": a_state(1), "order b": a_state(2)}
    write(subject, states)
    read = subject.store.read_users(["order b", "nobody", "order a", "order b"])
    assert read.found.tolist() == [True, False, True, True]
    assert read.history["log_offset"].tolist() == [2, 0, 1, 2]


def test_a_user_without_rows_is_all_zeros_and_begins_empty(subject: Subject) -> None:
    read = subject.store.read_users(["nobody at all"])
    assert not read.found[0]
    assert not any(column[0].tobytes().strip(b"\x00") for column in read[:4])
    state = user.unpack(read, 0)
    assert state.history == user.EMPTY.history
    assert state.places == user.EMPTY.places


def test_no_users_are_no_rows(subject: Subject) -> None:
    assert [len(column) for column in subject.store.read_users([])] == [0] * 5
    assert len(subject.store.read_cells([])) == 0


def test_the_newest_write_stands(subject: Subject) -> None:
    write(subject, {"rewritten": a_state(1)})
    rows = write(subject, {"rewritten": a_state(2, acts=9)})
    assert same(subject.store.read_users(["rewritten"]), rows)


def test_any_user_id_is_a_key(subject: Subject) -> None:
    names = ["with space", "Ünïcode ✓", "quote ' and \\ backslash", "{curly,brace}", "NULL", "x" * 256]
    rows = write(subject, {name: a_state(number) for number, name in enumerate(names)})
    assert same(subject.store.read_users(names), rows)


def test_open_answers_are_kept_changed_and_removed(subject: Subject) -> None:
    store = subject.store
    shown = user.fold_record(
        a_state(1), [impression("r1", ["1", "0"]), impression("r2", ["2"])], Record(0, 5, START_MS), CONTEXT
    )[0].attribution
    with subject.begin() as tx:
        store.write_answers(tx, 0, {"asks": attribution.changes(attribution.EMPTY, shown)})
    with subject.begin() as tx:
        assert store.load_answers(tx, ["asks", "does not"]) == [shown, attribution.EMPTY]
        assert store.next_due_ms(tx, 0) == START_MS + HORIZON_MS

    followed = attribution.act(shown, act("a", item="1", request="r1"), Record(0, 6, START_MS)).state
    left = attribution.AttributionState({"r1": followed.answers["r1"]})
    with subject.begin() as tx:
        store.write_answers(tx, 0, {"asks": attribution.changes(shown, left)})
    with subject.begin() as tx:
        assert store.load_answers(tx, ["asks"]) == [left]
        store.write_answers(tx, 0, {"asks": attribution.changes(left, attribution.EMPTY)})
    with subject.begin() as tx:
        assert store.load_answers(tx, ["asks"]) == [attribution.EMPTY]


def test_due_users_are_those_of_the_partition_longest_due_first(subject: Subject) -> None:
    def open_at(*due_ms: int) -> attribution.Changes:
        return attribution.Changes([attribution.Answer(f"r{due}", due) for due in due_ms], [])

    with subject.begin() as tx:
        subject.store.write_answers(tx, 7, {"b": open_at(30, 10), "a": open_at(20), "later": open_at(99)})
        subject.store.write_answers(tx, 8, {"elsewhere": open_at(5)})
    with subject.begin() as tx:
        assert subject.store.due_users(tx, 7, 30, 10) == ["b", "a"]
        assert subject.store.due_users(tx, 7, 30, 1) == ["b"]
        assert subject.store.due_users(tx, 7, 9, 10) == []
        assert subject.store.next_due_ms(tx, 7) == 10
        assert subject.store.next_due_ms(tx, 9) is None


def test_partial_sums_of_partitions_merge_where_they_are_read(subject: Subject) -> None:
    store = subject.store
    parts = [
        popularity.fold(popularity.EMPTY, [act("a", item="1"), act("b", item="2")]),
        popularity.fold(popularity.EMPTY, [act("c", item="2"), act("d", item="3")]),
    ]
    for partition, part in enumerate(parts):
        with subject.begin() as tx:
            store.write_cells(tx, partition, [GLOBAL_CELL, f"cell {partition}"], popularity.rows_of([part, part]))
    everywhere, one, none = store.read_cells([GLOBAL_CELL, "cell 1", "no such cell"])
    assert popularity.unpack(everywhere.tobytes()) == popularity.merged(parts)
    assert popularity.unpack(one.tobytes()) == parts[1]
    assert none["length"] == 0
    with subject.begin() as tx:
        assert store.load_cells(tx, 1, ["cell 1", GLOBAL_CELL, "cell 0"]) == [parts[1], parts[1], popularity.EMPTY]
        assert sorted(store.partial_cells(tx, 1)) == ["cell 1", GLOBAL_CELL]


@pytest.mark.live
def test_what_a_transaction_takes_back_was_never_written(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store:
        with transaction(applied.postgres) as tx:
            store.write_users(tx, ["taken back"], user.pack([a_state(1)]))
            tx.rollback()
        assert not store.read_users(["taken back"]).found[0]


@pytest.mark.live
async def test_the_event_loops_reader_reads_the_same(applied: Settings) -> None:
    users = [f"async {number}" for number in range(5)]
    rows = user.pack([a_state(number) for number in range(5)])
    cell = popularity.fold(popularity.EMPTY, [act("a", item="4")])
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, users, rows)
        store.write_cells(tx, 0, ["async cell"], popularity.rows_of([cell]))
    reader = AsyncPackedReader(applied.postgres)
    try:
        read, cells = await asyncio.gather(reader.read_users(users), reader.read_cells(["async cell"]))
    finally:
        await reader.close()
    assert same(read, rows)
    assert popularity.unpack(cells[0].tobytes()) == cell


@pytest.mark.live
def test_feast_reads_what_the_folds_wrote(applied: Settings) -> None:
    state, cell = a_state(3), popularity.fold(popularity.EMPTY, [act("a", item="4")])
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["feast"], user.pack([state]))
        store.write_cells(tx, 0, ["feast cell"], popularity.rows_of([cell]))
    with feature_store(applied) as feast:
        answer = feast.get_online_features(
            features=feast.get_feature_service("generator_v1"),
            entity_rows=[{"user_id": "feast", "cell_id": "feast cell"}, {"user_id": "nobody", "cell_id": "nowhere"}],
        ).to_dict()
        plays = feast.get_online_features(features=["user_watch:play_ds"], entity_rows=[{"user_id": "feast"}]).to_dict()
    assert answer["item"] == [[entry[1] for entry in state.history.entries], None]
    np.testing.assert_array_equal(np.array(answer["long_term"][0], np.float32), state.interests.long_term)
    assert answer["last_cell"][0] == state.places.last_cell
    assert answer["popular_item"] == [[4], None]
    assert plays["play_ds"] == [[ds for peers in state.watch.plays for ds in peers]]


@pytest.mark.live
def test_a_row_written_through_feast_reads_like_any_other(applied: Settings) -> None:
    row = {"user_id": ["by hand"], "event_timestamp": [pd.Timestamp(START_MS, unit="ms", tz="UTC")]}
    numbers = {field.name: [7] for field in user_history.features}
    lists = {"item": [[5, 6]], "at_s": [[1, 2]], "actions": [[1, 8]], "watch": [[50, 255]]}
    positives = {"positive_item": [[6]], "positive_at_s": [[2]]}
    with feature_store(applied) as feast:
        feast.write_to_online_store("user_history", df=pd.DataFrame({**row, **numbers, **lists, **positives}))
    with PackedStore(applied.postgres) as store:
        state = user.unpack(store.read_users(["by hand"]), 0)
    assert state.history.entries == ((1, 5, 1, 50), (2, 6, 8, 255))
    assert state.history.positives == ((2, 6),)
    assert (state.history.applied, state.history.updated_ms) == (7, START_MS)


@pytest.mark.live
def test_applying_again_and_at_once_changes_nothing(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["survivor"], user.pack([a_state(1)]))
    failed: list[Exception] = []

    def apply() -> None:
        try:
            apply_features(applied)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=apply) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    with PackedStore(applied.postgres) as store:
        assert store.read_users(["survivor"]).found[0]


@pytest.mark.live
def test_a_person_sees_what_is_stored(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["seen"], user.pack([a_state(1)]))
    shown = inspect_user(applied, "seen")
    assert shown["user_history"]["item"] == [0, 1, 2]
    assert shown["user_history"]["actions"][0] == ["play"]
    assert shown["user_history"]["updated_at"].startswith("2025-06-15T")
    assert inspect_user(applied, "nobody") == {view: {} for view in shown}


@pytest.mark.live
def test_rows_of_another_layout_are_refused(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["older"], user.pack([a_state(1)]))
        tx.execute("update user_history set layout_version = 99 where entity_key = 'older'")
    with PackedStore(applied.postgres) as store, pytest.raises(ContractError, match=r"layout version \[99\], expected"):
        store.read_users(["older"])


@pytest.mark.live
def test_missing_tables_name_the_command_that_makes_them(applied: Settings) -> None:
    elsewhere = Postgres(dsn=applied.postgres.dsn.get_secret_value() + "?options=-csearch_path%3Dpg_catalog")  # type: ignore[arg-type]
    with PackedStore(elsewhere) as store, pytest.raises(ContractError, match="nearfeed features apply"):
        store.read_users(["anybody"])


def test_an_absent_server_is_one_clear_error() -> None:
    nowhere = Settings(postgres=Postgres(dsn="postgresql://nearfeed@127.0.0.1:1/nearfeed", connect_timeout_s=1))  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match=r"check that it runs and postgres\.dsn"):
        apply_features(nowhere)
    with PackedStore(nowhere.postgres) as store, pytest.raises(StoreUnavailable):
        store.read_users(["anybody"])
