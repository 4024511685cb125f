"""Laws of the backfill: a team's own log folds like the same events streamed, and nothing is taken in unseen."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.archive import archived_from, read_archive, segments
from core.errors import ContractError, InputError
from core.frames import decode_frame, encode_frame
from core.partition import partition_of
from core.settings import Archive
from core.validation import Fault
from feature_repo.layouts import UserRows
from feature_repo.sums import SUMS
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction, Origin
from streams import backfill as module
from streams.backfill import FRAME_SPAN_MS, Backfilled, backfill, frames_backwards, refuse_half
from streams.backfill_rows import Entry, Row, entry_of
from streams.cursor import Cursor, Partition, Record
from streams.driver import Driver
from streams.replay import Folding, Progress
from streams.state_store import MemoryStateStore
from tests.streams.test_driver import CONTEXT

TOPIC = "topic-id"
PARTITIONS = 3
START_MS = 1_700_000_000_000
NOW_MS = START_MS + 30 * 86_400_000
USERS = [f"user-{number}" for number in range(12)]
QUIET = Progress(lambda _: None, lambda _: None)


def row(number: int, rng: random.Random) -> dict[str, Any]:
    """A row of any kind, at any time of a few days."""
    action = rng.choice(("play", "like", "dislike", "order", "check_in"))
    played, placed, ordered = action == "play", rng.random() < 0.3, action == "order"
    return {
        "user_id": rng.choice(USERS),
        "item_id": str(rng.randrange(6)),
        "action": action,
        "occurred_at": START_MS + rng.randrange(3 * 86_400_000),
        "event_id": f"e{number}",
        "play_ms": rng.randrange(30_000) if played else None,
        "duration_ms": 20_000 if played else None,
        "value_micros": 5_000_000 if ordered else None,
        "currency": "EUR" if ordered else None,
        "latitude": 30.0 + rng.random() if placed else None,
        "longitude": 120.0 + rng.random() if placed else None,
    }


def rows(seed: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [row(number, rng) for number in range(count)]


def parquet(path: Path, found: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(found), path)
    return path


def run(home: Path, *files: Path, replace: bool = False, skip_invalid: bool = False) -> Backfilled:
    limits = Archive(home=home, segment_records=7)
    return backfill(
        files,
        limits,
        TOPIC,
        PARTITIONS,
        now_ms=NOW_MS,
        replace=replace,
        skip_invalid=skip_invalid,
        read=lambda _: None,
    )


def partition(number: int) -> Partition:
    return Partition("tests", "activity.v1", TOPIC, number, PARTITIONS)


def streamed(found: list[dict[str, Any]]) -> MemoryStateStore:
    """The states after the same events arrived one by one, each at its own time."""
    store = MemoryStateStore()
    drivers = [Driver(partition(number), store, lambda: CONTEXT, cache_users=9) for number in range(PARTITIONS)]
    for one in sorted(found, key=lambda one: one["occurred_at"]):
        event = Interaction(user_id=one["user_id"], item_id=one["item_id"], event_id=one["event_id"])
        event.action = Action.Value(f"ACTION_{one['action'].upper()}")
        event.occurred_at.FromMilliseconds(one["occurred_at"])
        for name in ("play_ms", "duration_ms", "value_micros", "currency"):
            if one[name] is not None:
                setattr(event, name, one[name])
        if one["latitude"] is not None:
            event.location.latitude, event.location.longitude = one["latitude"], one["longitude"]
        driver = drivers[partition_of(event.user_id, PARTITIONS)]
        frame = encode_frame([Activity(interaction=event)])
        driver.apply([Record(driver.cursor.next_offset, one["occurred_at"], frame)])
    return store


def replayed(home: Path) -> MemoryStateStore:
    """The states after a replay of the archive alone."""
    store = MemoryStateStore()
    for number in range(PARTITIONS):
        store.cursors[partition(number)] = Cursor(0, archived_from(home, TOPIC, number) or 0)
    drivers = {number: Driver(partition(number), store, lambda: CONTEXT, cache_users=9) for number in range(PARTITIONS)}
    folding = Folding(home, TOPIC, drivers, lambda *_: iter(()))
    folding.fold_until(dict.fromkeys(drivers, 0), QUIET)
    assert folding.missing == dict.fromkeys(drivers, 0)
    assert [driver.cursor.next_offset for driver in drivers.values()] == [0] * PARTITIONS
    return store


def features(store: MemoryStateStore) -> UserRows:
    """All rows, without the place of the log that they reflect: the one thing that differs by intent."""
    read = store.features.read_users(USERS)
    history = read.history.copy()
    history["log_offset"] = 0
    return read._replace(history=history)


def test_a_backfill_folds_like_the_same_events_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ROWS", 70)
    found = rows(1, 400)
    files = [parquet(tmp_path / f"{at}.parquet", found[at::3]) for at in range(3)]
    done = run(tmp_path / "archive", *files)
    assert (done.rows, done.entries, done.invalid, done.unused_columns) == (400, 400, 0, [])
    assert (done.first_ms, done.last_ms) == (
        min(one["occurred_at"] for one in found),
        max(one["occurred_at"] for one in found),
    )
    ours, theirs = replayed(tmp_path / "archive"), streamed(found)
    for mine, other in zip(features(ours), features(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert features(ours).history["applied"].sum() == 400
    for table in SUMS:
        for number in range(PARTITIONS):
            keys = sorted(theirs.features.sum_keys(None, table, number))
            assert sorted(ours.features.sum_keys(None, table, number)) == keys
            np.testing.assert_array_equal(ours.sums(table, number, keys), theirs.sums(table, number, keys))


ENTRIES = st.lists(st.tuples(st.integers(0, 3 * FRAME_SPAN_MS), st.sampled_from(USERS)), max_size=60)


@given(found=ENTRIES)
def test_frames_are_numbered_to_the_end_of_prehistory_and_hold_every_entry_in_order(
    found: list[tuple[int, str]],
) -> None:
    entries = []
    for number, (at_ms, user_id) in enumerate(sorted(found)):
        event = Interaction(event_id=str(number), user_id=user_id)
        entries.append(Entry(START_MS + at_ms, user_id, Activity(interaction=event).SerializeToString()))
    records = list(frames_backwards(reversed(entries), PARTITIONS))[::-1]
    for number in range(PARTITIONS):
        own = [record for record in records if record.partition == number]
        assert [record.offset for record in own] == list(range(-len(own), 0))
        times = [record.timestamp_ms for record in own]
        assert times == sorted(times)
        held = [activity for record in own for activity in decode_frame(record.value)]
        expected = [entry.activity for entry in entries if partition_of(entry.user_id, PARTITIONS) == number]
        assert [activity.SerializeToString() for activity in held] == expected
        at_ms = {entry.activity: entry.at_ms for entry in entries}
        for record in own:
            inside = [at_ms[activity.SerializeToString()] for activity in decode_frame(record.value)]
            assert record.timestamp_ms == max(inside) and max(inside) - min(inside) <= FRAME_SPAN_MS
            assert 1 <= len(inside) <= 100


def test_prehistory_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, file = tmp_path / "archive", parquet(tmp_path / "log.parquet", rows(2, 100))
    run(home, file)
    before = [list(read_archive(home, TOPIC, partition=number)) for number in range(PARTITIONS)]
    with pytest.raises(InputError, match="--replace"):
        run(home, file)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module._Writer, "write_all", crash)
        run(home, file, replace=True)
    with pytest.raises(ContractError, match="half a backfill"):
        refuse_half(home, TOPIC)
    with pytest.raises(InputError, match="--replace"):
        run(home, file)
    run(home, file, replace=True)
    refuse_half(home, TOPIC)
    assert [list(read_archive(home, TOPIC, partition=number)) for number in range(PARTITIONS)] == before
    assert list((home / TOPIC).glob("backfill-*")) == []


def test_invalid_rows_are_named_and_stop_it_unless_they_may_be_skipped(tmp_path: Path) -> None:
    found = rows(3, 10)
    found[2]["user_id"] = None
    found[5]["action"] = "stare"
    found[7]["occurred_at"] = NOW_MS + 3_600_000
    found[8] |= {"latitude": 30.0, "longitude": None}
    home, file = tmp_path / "archive", parquet(tmp_path / "log.parquet", found)
    refused = run(home, file)
    assert (refused.entries, refused.invalid) == (0, 4)
    assert [(one.row, one.fault.field) for one in refused.listed] == [
        (3, "user_id"),
        (6, "action"),
        (8, "occurred_at"),
        (9, "latitude, longitude"),
    ]
    assert "'stare'" in refused.listed[1].fault.reason
    assert segments(home, TOPIC) == []
    done = run(home, file, skip_invalid=True)
    assert (done.entries, done.invalid, done.by_field["action"]) == (6, 4, 1)
    assert replayed(home).features.read_users(USERS).history["applied"].sum() == 6


def test_columns_of_other_kinds_mean_the_same(tmp_path: Path) -> None:
    at = datetime(2023, 11, 15, 8, 30, tzinfo=UTC)
    at_ms = int(at.timestamp() * 1000)
    times = {
        "ms": pa.array([at_ms]),
        "utc": pa.array([at], pa.timestamp("us", "UTC")),
        "naive": pa.array([at.replace(tzinfo=None)], pa.timestamp("ns")),
        "zone": pa.array([at], pa.timestamp("s", "Asia/Shanghai")),
        "text": pa.array(["2023-11-15T16:30:00+08:00"]),
    }
    for name, column in times.items():
        columns = {"user_id": pa.array([7]), "item_id": pa.array([9]), "action": pa.array(["LIKE"]), "extra": [1]}
        pq.write_table(pa.table(columns | {"occurred_at": column}), tmp_path / "one.parquet")
        done = run(tmp_path / name, tmp_path / "one.parquet")
        assert (done.entries, done.first_ms, done.unused_columns) == (1, at_ms, ["extra"]), name
        number = partition_of("7", PARTITIONS)
        (record,) = read_archive(tmp_path / name, TOPIC, partition=number)
        event = decode_frame(record.value)[0].interaction
        assert (event.user_id, event.item_id, event.origin) == ("7", "9", Origin.ORIGIN_IMPORTED)
        assert record.timestamp_ms == event.occurred_at.ToMilliseconds() == at_ms


@pytest.mark.parametrize(
    ("columns", "clear"),
    [
        ({"user_id": ["7"]}, "no column action, item_id, occurred_at"),
        ({"user_id": [7.0], "item_id": ["9"], "action": ["like"], "occurred_at": [1]}, "column user_id: expected"),
        ({"user_id": ["7"], "item_id": ["9"], "action": ["like"], "occurred_at": ["noon"]}, "column occurred_at: exp"),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(
    columns: dict[str, list[object]], clear: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=clear) as refused:
        run(tmp_path / "archive", tmp_path / "log.parquet")
    assert "\n" not in str(refused.value) and "log.parquet" in str(refused.value)
    (tmp_path / "log.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="expected a Parquet file"):
        run(tmp_path / "archive", tmp_path / "log.parquet")


def test_a_row_without_an_event_id_has_the_same_one_in_every_run() -> None:
    def event_id(one: Row) -> str:
        entry = entry_of(one, NOW_MS)
        assert not isinstance(entry, Fault)
        return Activity.FromString(entry.activity).interaction.event_id

    one = Row("7", "9", "like", START_MS)
    assert event_id(one) == event_id(Row("7", "9", "like", START_MS))
    others = [one._replace(user_id="8"), one._replace(occurred_at=START_MS + 1), one._replace(surface="home")]
    shifted = one._replace(surface="", session_id="home")
    assert len({event_id(other) for other in (one, *others, shifted)}) == 5
    assert event_id(one._replace(event_id="own")) == "own"
