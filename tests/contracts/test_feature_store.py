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
from feature_repo.folds import attribution, user
from feature_repo.folds.context import Record
from feature_repo.folds.user import UserState, rows_of
from feature_repo.inspect import inspect_user
from feature_repo.layouts import CELLS, GLOBAL_CELL, ITEMS, UserRows, user_rows
from feature_repo.postgres import conninfo
from feature_repo.store import (
    AsyncPackedReader,
    FeatureReader,
    FeatureWriter,
    MemoryStore,
    PackedStore,
    Transaction,
)
from feature_repo.sums import CELL_SUMS, ITEM_SUMS, SUMS, Sum
from feature_repo.views import item_statistics, user_history
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
    return user.fold_record(user.EMPTY, activities, Record(0, number, START_MS, START_MS), CONTEXT)[0]


def a_sum(sums: Sum, number: int) -> np.ndarray:
    """A partial sum, (1,), of which every field says its number."""
    rows = np.zeros(1, sums.row)
    for name in sums.row.names or ():
        rows[name] = number
    rows["updated_ms"] = START_MS
    return rows


def same(left: UserRows, right: UserRows) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def packed(*states: UserState) -> np.ndarray:
    """The rows, (B,) USER."""
    return np.concatenate([state.row for state in states])


def write(subject: Subject, states: dict[str, UserState]) -> UserRows:
    with subject.begin() as tx:
        subject.store.write_users(tx, list(states), packed(*states.values()))
    return rows_of(list(states.values()))


def test_what_was_written_is_read(subject: Subject) -> None:
    states = {f"read {number}": a_state(number) for number in range(40)}
    rows = write(subject, states)
    assert same(subject.store.read_users(list(states)), rows)
    with subject.begin() as tx:
        loaded = subject.store.load_users(tx, list(states))
    assert same(user_rows(loaded), rows)
    loaded["history"]["applied"] = 9  # the caller's own
    assert same(subject.store.read_users(list(states)), rows)


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
    with subject.begin() as tx:
        assert subject.store.load_users(tx, ["nobody at all"]).tobytes() == user.EMPTY.row.tobytes()


def test_no_users_are_no_rows(subject: Subject) -> None:
    assert [len(column) for column in subject.store.read_users([])] == [0] * 5
    assert len(subject.store.read_cells([])) == 0


def test_the_newest_write_stands(subject: Subject) -> None:
    write(subject, {"rewritten": a_state(1)})
    rows = write(subject, {"rewritten": a_state(2, acts=9)})
    assert same(subject.store.read_users(["rewritten"]), rows)


def test_forgetting_removes_the_row_and_no_other(subject: Subject) -> None:
    store = subject.store
    write(subject, {"forgets": a_state(1), "stays": a_state(2), "forgets too": a_state(3)})
    gone, changed = user.EMPTY, a_state(2, acts=5)
    rows = packed(gone, changed, gone, gone)
    with subject.begin() as tx:
        store.write_users(tx, ["forgets", "stays", "forgets too", "was never here"], rows)
    read = store.read_users(["forgets", "stays", "forgets too", "was never here"])
    assert read.found.tolist() == [False, True, False, False]
    assert read.history["applied"].tolist() == [0, 5, 0, 0]
    write(subject, {"forgets": a_state(4)})
    assert store.read_users(["forgets"]).found[0]
    write(subject, {"forgets": gone})  # alone in its transaction
    assert not store.read_users(["forgets"]).found[0]


def test_any_user_id_is_a_key(subject: Subject) -> None:
    names = ["with space", "Ünïcode ✓", "quote ' and \\ backslash", "{curly,brace}", "NULL", "line\nfeed", "x" * 256]
    rows = write(subject, {name: a_state(number) for number, name in enumerate(names)})
    assert same(subject.store.read_users(names), rows)


def test_open_answers_are_kept_changed_and_removed(subject: Subject) -> None:
    store = subject.store
    shown = user.fold_record(
        a_state(1), [impression("r1", ["1", "0"]), impression("r2", ["2"])], Record(0, 5, START_MS, START_MS), CONTEXT
    )[0].attribution
    with subject.begin() as tx:
        store.write_answers(tx, 0, {"asks": attribution.changes(attribution.EMPTY, shown)})
    with subject.begin() as tx:
        assert store.load_answers(tx, ["asks", "does not"]) == [shown, attribution.EMPTY]
        assert store.next_due_ms(tx, 0) == START_MS + HORIZON_MS

    followed = attribution.act(shown, act("a", item="1", request="r1"), Record(0, 6, START_MS, START_MS)).state
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


@pytest.mark.parametrize("sums", SUMS, ids=[sums.table for sums in SUMS])
def test_each_partition_keeps_sums_of_its_own(subject: Subject, sums: Sum) -> None:
    store = subject.store
    one, other, newer = (a_sum(sums, number) for number in (1, 2, 3))
    with subject.begin() as tx:
        store.write_sums(tx, sums, 11, ["both", "mine"], np.concatenate([one, other]))
        store.write_sums(tx, sums, 12, ["both"], other)
    with subject.begin() as tx:
        store.write_sums(tx, sums, 11, ["mine"], newer)
        store.write_sums(tx, sums, 12, [], newer[:0])
    with subject.begin() as tx:
        loaded = store.load_sums(tx, sums, 11, ["mine", "nobody's", "both"])
        assert loaded.tobytes() == np.concatenate([newer, np.zeros(1, sums.row), one]).tobytes()
        assert store.load_sums(tx, sums, 12, ["both", "mine"]).tobytes() == other.tobytes() + bytes(sums.row.itemsize)
        assert store.load_sums(tx, sums, 13, ["both"]).tobytes() == bytes(sums.row.itemsize)
        assert sorted(store.sum_keys(tx, sums, 11)) == ["both", "mine"]
        assert store.sum_keys(tx, sums, 12) == ["both"]
        assert store.sum_keys(tx, sums, 13) == []
    loaded["updated_ms"] = 0  # the caller's own
    with subject.begin() as tx:
        assert store.load_sums(tx, sums, 11, ["mine"]).tobytes() == newer.tobytes()


def test_partial_sums_of_partitions_merge_where_they_are_read(subject: Subject) -> None:
    store = subject.store
    parts = np.zeros(2, CELLS)
    parts["updated_ms"], parts["length"], parts["score"][:, :2] = START_MS, 2, [[2.0, 3.0], [4.0, 1.0]]
    parts["item"][:, :2] = [[1, 2], [2, 3]]
    for partition in range(2):
        with subject.begin() as tx:
            rows = parts[[partition, partition]]
            store.write_sums(tx, CELL_SUMS, partition, [GLOBAL_CELL, f"cell {partition}"], rows)
    everywhere, one, none = store.read_cells([GLOBAL_CELL, "cell 1", "no such cell"])
    assert everywhere.tobytes() == CELL_SUMS.merged(parts).tobytes()
    assert everywhere["item"][:3].tolist() == [2, 1, 3]
    assert one.tobytes() == CELL_SUMS.merged(parts[1:]).tobytes()
    assert none.tobytes() == bytes(CELLS.itemsize)


@pytest.mark.live
def test_what_a_transaction_takes_back_was_never_written(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store:
        with transaction(applied.postgres) as tx:
            store.write_users(tx, ["taken back"], packed(a_state(1)))
            tx.rollback()
        assert not store.read_users(["taken back"]).found[0]


@pytest.mark.live
async def test_the_event_loops_reader_reads_the_same(applied: Settings) -> None:
    users = [f"async {number}" for number in range(5)]
    states, cell = [a_state(number) for number in range(5)], a_sum(CELL_SUMS, 4)
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, users, packed(*states))
        store.write_sums(tx, CELL_SUMS, 0, ["async cell"], cell)
    reader = AsyncPackedReader(applied.postgres)
    try:
        read, cells = await asyncio.gather(reader.read_users(users), reader.read_cells(["async cell"]))
    finally:
        await reader.close()
    assert same(read, rows_of(states))
    assert cells.tobytes() == CELL_SUMS.merged(cell).tobytes()


@pytest.mark.live
def test_feast_reads_what_the_folds_wrote(applied: Settings) -> None:
    state = a_state(3)
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["feast"], packed(state))
    with feature_store(applied) as feast:
        answer = feast.get_online_features(
            features=feast.get_feature_service("generator_v1"),
            entity_rows=[{"user_id": "feast", "cell_id": "nowhere"}, {"user_id": "nobody", "cell_id": "nowhere"}],
        ).to_dict()
        plays = feast.get_online_features(features=["user_watch:play_ds"], entity_rows=[{"user_id": "feast"}]).to_dict()
    row = state.row[0]
    assert answer["item"] == [[0, 1, 2], None]
    assert answer["positive_code"] == [
        row["history"]["positive_code"][: row["history"]["positive_length"]].tolist(),
        None,
    ]
    np.testing.assert_array_equal(np.array(answer["long_term"][0], np.float16), row["interests"]["long_term"])
    np.testing.assert_array_equal(np.array(answer["interest"][0], np.float16), row["interests"]["interest"].ravel())
    assert answer["last_cell"] == [row["places"]["last_cell"], None]
    assert answer["popular_item"] == [None, None]
    assert plays["play_ds"] == [[30, 40, 50]]


@pytest.mark.live
def test_feast_reads_the_merged_sums_of_cells_and_items(applied: Settings) -> None:
    cells, items = np.zeros(2, CELLS), np.zeros(2, ITEMS)
    cells["updated_ms"] = items["updated_ms"] = START_MS
    cells["length"], cells["item"][:, 0], cells["score"][:, 0], cells["weight"] = 1, [4, 9], [2.0, 5.0], 2.0
    items["shown"], items["positives"] = [3.0, 4.0], [1.0, 0.5]
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        for partition in range(2):
            store.write_sums(tx, CELL_SUMS, partition, ["feast cell"], cells[[partition]])
            store.write_sums(tx, ITEM_SUMS, partition, ["feast item"], items[[partition]])
    with feature_store(applied) as feast:
        answer = feast.get_online_features(
            features=["cell_popularity:popular_item", "cell_popularity:popular_score", "cell_popularity:context_weight"]
            + [f"item_statistics:{field.name}" for field in item_statistics.features],
            entity_rows=[{"cell_id": "feast cell", "item_id": "feast item"}, {"cell_id": "none", "item_id": "none"}],
        ).to_dict()
    assert answer["popular_item"] == [[9, 4], None]
    assert answer["popular_score"] == [[5.0, 2.0], None]
    assert answer["context_weight"] == [4.0, None]
    assert (answer["shown"], answer["positives"], answer["plays"]) == ([7.0, None], [1.5, None], [0.0, None])


def by_hand(user_id: str, at_ms: int = START_MS) -> dict[str, Any]:
    """What a person writes as somebody's history."""
    row = {"user_id": [user_id], "event_timestamp": [pd.Timestamp(at_ms, unit="ms", tz="UTC")]}
    numbers = {field.name: [7] for field in user_history.features}
    lists = {"item": [[5, 6]], "at_s": [[1, 2]], "actions": [[1, 8]], "watch": [[50, 255]]}
    positives = {"positive_item": [[6]], "positive_at_s": [[2]], "positive_code": [[3]]}
    return {**row, **numbers, **lists, **positives}


def assert_by_hand(row: np.ndarray, at_ms: int = START_MS) -> None:
    used = [row[name][: row["length"]].tolist() for name in ("at_s", "item", "actions", "watch")]
    assert used == [[1, 2], [5, 6], [1, 8], [50, 255]]
    good = [
        row[name][: row["positive_length"]].tolist() for name in ("positive_at_s", "positive_item", "positive_code")
    ]
    assert good == [[2], [6], [3]]
    assert (row["applied"], row["updated_ms"]) == (7, at_ms)


@pytest.mark.live
def test_a_row_written_through_feast_reads_like_any_other(applied: Settings) -> None:
    with feature_store(applied) as feast:
        feast.write_to_online_store("user_history", df=pd.DataFrame(by_hand("by hand")))
    with PackedStore(applied.postgres) as store:
        read = store.read_users(["by hand"])
    assert read.found[0]
    assert_by_hand(read.history[0])
    assert not any(any(part.tobytes()) for part in (read.interests, read.watch, read.places))


@pytest.mark.live
def test_a_view_written_through_feast_leaves_the_rest_of_the_row_alone(applied: Settings) -> None:
    before = a_state(1, acts=9)
    later_ms = START_MS + 86_400_000
    with PackedStore(applied.postgres) as store:
        with transaction(applied.postgres) as tx:
            store.write_users(tx, ["corrected"], packed(before))
        with feature_store(applied) as feast:
            feast.write_to_online_store("user_history", df=pd.DataFrame(by_hand("corrected", later_ms)))
        read = store.read_users(["corrected"])
    assert_by_hand(read.history[0], later_ms)
    expected = rows_of([before])
    for view in ("interests", "watch", "places"):
        assert getattr(read, view).tobytes() == getattr(expected, view).tobytes()


@pytest.mark.live
def test_sums_written_through_feast_stand_beside_those_of_the_log(applied: Settings) -> None:
    counted = a_sum(ITEM_SUMS, 2)
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_sums(tx, ITEM_SUMS, 0, ["promoted"], counted)
    row = {"item_id": ["promoted"], "event_timestamp": [pd.Timestamp(START_MS, unit="ms", tz="UTC")]}
    counts = {field.name: [10.0] for field in item_statistics.features}
    with feature_store(applied) as feast:
        for _ in range(2):  # again is the same
            feast.write_to_online_store("item_statistics", df=pd.DataFrame({**row, **counts}))
        shown = feast.get_online_features(
            features=["item_statistics:shown"], entity_rows=[{"item_id": "promoted"}]
        ).to_dict()["shown"]
    assert shown == [12.0]
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        assert store.load_sums(tx, ITEM_SUMS, 0, ["promoted"]).tobytes() == counted.tobytes()


@pytest.mark.live
def test_applying_again_and_at_once_changes_nothing(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["survivor"], packed(a_state(1)))
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
        store.write_users(tx, ["seen"], packed(a_state(1)))
    shown = inspect_user(applied, "seen")
    assert shown["user_history"]["item"] == [0, 1, 2]
    assert shown["user_history"]["actions"][0] == ["play"]
    assert shown["user_history"]["updated_at"].startswith("2025-06-15T")
    assert inspect_user(applied, "nobody") == {view: {} for view in shown}


@pytest.mark.live
def test_rows_of_another_layout_are_refused(applied: Settings) -> None:
    with PackedStore(applied.postgres) as store, transaction(applied.postgres) as tx:
        store.write_users(tx, ["older"], packed(a_state(1)))
        tx.execute("update user_features set layout_version = 99 where entity_key = 'older'")
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
