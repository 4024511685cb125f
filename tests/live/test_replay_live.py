"""Archive, replay, switch and forget beside running workers: real Kafka and PostgreSQL, the commands of an operator."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.archive import ArchivedRecord, read_archive, segments
from core.frames import decode_frame
from core.partition import partition_of
from core.producer import ActivityProducer
from core.settings import Settings, as_environment
from core.topics import ACTIVITY
from core.topics_admin import topic_states
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from feature_repo.store import PackedStore
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction
from streams.activity_log import ActivityReader
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.forget_archive import entries_of
from streams.postgres_state import PostgresStateStore
from streams.replay_tables import drop_produced, in_schema, only_replay, positions, prepare, schemas_of, switch
from tests.faults import traffic
from tests.faults.check import check, wait_until_quiet
from tests.faults.conftest import HORIZON_S
from tests.faults.conftest import settings as stream_settings  # noqa: F401  a fixture
from tests.faults.crew import Crew
from tests.faults.load import Load
from tests.live.stream_worker import ROOT

pytestmark = pytest.mark.live

RATE = 150.0
USER = "user-1"  # of those who do most
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def settings(stream_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:  # noqa: F811
    home = tmp_path_factory.mktemp("archive")
    archive = stream_settings.archive.model_copy(update={"home": home, "segment_s": 2.0})
    return stream_settings.model_copy(update={"archive": archive})


@pytest.fixture(scope="module")
def topic_id(settings: Settings) -> str:
    return topic_states(settings.kafka)[ACTIVITY].topic_id


@pytest.fixture
def crew(settings: Settings, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(settings, tmp_path)
    yield crew
    crew.end()


@pytest.fixture
def load(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Load:
    # Whoever is forgotten leaves the archive, and a replay's sums: then the checker, who reads the topic, has others.
    monkeypatch.setitem(traffic.KINDS, "forget", 0)
    return Load(settings, 4, rate=RATE)


class Commands:
    """`nearfeed …` as processes, what they log in one file; none is left over."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._settings = settings
        self.log = log
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **as_environment(self._settings), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "cli", *arguments]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=out)
        self._running.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and JSON of a command that runs to its end."""
        process = self.start(*arguments, "--json")
        out, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, json.loads(out or b"null")

    def end(self, process: "subprocess.Popen[bytes]", sent: signal.Signals) -> int:
        process.send_signal(sent)
        process.communicate(timeout=PATIENCE_S)
        return process.returncode

    def end_all(self) -> None:
        for process in self._running:
            self.end(process, signal.SIGKILL)


@pytest.fixture
def commands(settings: Settings, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(settings, tmp_path / "commands.log")
    yield commands
    commands.end_all()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.1)


def archived(settings: Settings, topic_id: str) -> int:
    return sum(segment.last + 1 - segment.first for segment in segments(settings.archive.home, topic_id))


def whole_log(settings: Settings) -> list[list[Record]]:
    log: list[list[Record]] = [[] for _ in range(settings.kafka.activity_partitions)]
    with ActivityReader(settings.kafka) as reader:
        bounds = reader.bounds()
        reader.begin({number: held.begin for number, held in bounds.items()})
        while any(reader.position(number) < held.end for number, held in bounds.items()):
            for number, records in reader.poll(0.5):
                log[number] += records
    return log


def assert_no_trace(settings: Settings, load: Load) -> None:
    report = check(settings, load)
    assert report.clean, str(report)


def end_quietly(crew: Crew, settings: Settings) -> None:
    """Everything is read by whoever runs, and all have ended in order."""
    wait_until_quiet(settings, crew)
    crew.replace_the_fallen()
    crew.stop()


def test_replay_and_switch_under_load_leave_no_trace(
    settings: Settings, topic_id: str, crew: Crew, commands: Commands, load: Load, tmp_path: Path
) -> None:
    crew.wait_ready()
    load.start()
    for _ in range(2):  # killed anywhere, it goes on where the archive ends
        before = archived(settings, topic_id)
        archiver = commands.start("archive")
        wait_for(lambda before=before: archived(settings, topic_id) > before, "nothing was archived")  # type: ignore[misc]
        commands.end(archiver, signal.SIGKILL)
    code, report = commands.run("replay", "--verify")
    assert code == 0, (report["compared"], commands.log.read_text())
    equal = {table["table"]: table["equal"] for table in report["compared"]}
    assert equal["stream_cursor"] == settings.kafka.activity_partitions
    assert min(equal.values()) > 0

    code, report = commands.run("replay", "--switch")
    assert (code, report["switched"]) == (0, True), commands.log.read_text()
    wait_for(lambda: crew.replace_the_fallen() or crew.fallen > 0, "a worker that runs must meet the new epoch")
    assert load.is_alive(), "all of it under load"
    load.stop()
    end_quietly(crew, settings)
    assert_no_trace(settings, load)

    go_back_half_way(settings, topic_id)  # Kafka's committed offsets are far beyond these cursors
    (tmp_path / "later").mkdir()
    later = Crew(settings, tmp_path / "later")
    try:
        end_quietly(later, settings)
    finally:
        later.end()
    assert_no_trace(settings, load)

    archiver = commands.start("archive")
    before = archived(settings, topic_id)
    wait_for(lambda: archived(settings, topic_id) > before, "nothing was archived")
    assert commands.end(archiver, signal.SIGTERM) == 0, commands.log.read_text()
    code, rows = commands.run("archive", "--once")
    assert code == 0, commands.log.read_text()
    for number, records in enumerate(whole_log(settings)):
        expected = [ArchivedRecord(number, *record) for record in records]
        assert list(read_archive(settings.archive.home, topic_id, partition=number)) == expected
        assert rows[number]["until"] == records[-1].offset + 1


def go_back_half_way(settings: Settings, topic_id: str) -> None:
    """What serves are the states of the first half of the log, as if somebody had switched to an old replay."""
    group, partitions = settings.streams.group, settings.kafka.activity_partitions
    with only_replay(settings.postgres) as connection:
        names = schemas_of(connection)
        ends = {number: end // 2 for number, end in positions(connection, group, topic_id).items()}
        prepare(connection, names, group, topic_id, dict.fromkeys(ends, 0))
        store = PostgresStateStore(in_schema(settings.postgres, names.replay), group, connections=2)
        store.open()
        context = FoldContext(NoItems(), 0, HORIZON_S * 1000, settings.streams.location_resolution)
        for number, records in enumerate(whole_log(settings)):
            partition = Partition(group, ACTIVITY, topic_id, number, partitions)
            Driver(partition, store, lambda: context, cache_users=100).apply(records[: ends[number]])
        store.close()
        drop_produced(connection, names)
        epochs = "select partition, epoch from stream_cursor where processor = %s and topic_id = %s order by partition"
        before = connection.execute(epochs, (group, topic_id)).fetchall()
        switch(connection, names)
        assert positions(connection, group, topic_id) == ends
        after = connection.execute(epochs, (group, topic_id)).fetchall()
        for (number, epoch), (same_number, newer) in zip(before, after, strict=True):
            assert number == same_number and newer > epoch, "whoever owned the partition is fenced"


def test_a_forgotten_user_is_nowhere_but_where_it_is_said(
    settings: Settings, topic_id: str, crew: Crew, commands: Commands
) -> None:
    """After the test above: the archive holds the log."""
    home, partitions = settings.archive.home, settings.kafka.activity_partitions
    partition = partition_of(USER, partitions)
    count = entries_of(home, topic_id, partition, USER)
    assert count > 0
    crew.wait_ready()
    code, said = commands.run("forget", USER)
    assert code == 0, commands.log.read_text()
    assert said["partition"] == partition
    places = {place["where"]: place for place in said["places"]}
    assert places[f"archive {home}"]["removed"] == f"{count} entries"
    assert {"activity.v1", "outcomes.v1", "rejected.v1", "published models"} <= places.keys()
    with PackedStore(settings.postgres) as store:
        assert not store.read_users([USER]).found[0]
    assert entries_of(home, topic_id, partition, USER) == 0
    tombstone = next(read_archive(home, topic_id, partition=partition, from_offset=said["offset"]))
    assert decode_frame(tombstone.value)[0].forget.user_id == USER

    code, report = commands.run("replay", "--verify")
    assert code == 0, (report["compared"], commands.log.read_text())
    left_out = {table["table"]: table["left_out"] for table in report["compared"]}
    assert f"partitions {partition}: forgotten" in left_out["cell_popularity"]
    assert left_out["user_features"] == ""
    with PackedStore(in_schema(settings.postgres, "public_replay")) as store:
        assert not store.read_users([USER]).found[0], "a replay meets the tombstone, too"
    crew.stop()


def test_prehistory_serves_after_a_replay_and_the_worker_goes_on(
    settings: Settings, topic_id: str, crew: Crew, commands: Commands, tmp_path: Path
) -> None:
    """After the tests above: a log and its archive are there, and a worker has read it."""
    newcomer = "before-nearfeed"
    rows = [
        {"user_id": newcomer, "item_id": "7", "action": "like", "occurred_at": 1_700_000_000_000 + 3_600_000 * number}
        for number in range(30)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    code, written = commands.run("backfill", str(tmp_path / "log.parquet"))
    assert (code, written["entries"], written["invalid"]) == (0, 30, 0), commands.log.read_text()
    crew.wait_ready()
    code, report = commands.run("replay", "--switch")
    assert (code, report["switched"]) == (0, True), commands.log.read_text()
    assert min(partition["start"] for partition in report["partitions"]) < 0
    assert all(partition["missing"] == 0 for partition in report["partitions"])

    producer = ActivityProducer(settings.kafka, linger_ms=1, timeout_ms=10_000)
    now_ms = settings.clock.clock().now_ms()
    act = Interaction(event_id="new", user_id=newcomer, item_id="8", action=Action.ACTION_LIKE)
    act.occurred_at.FromMilliseconds(now_ms)
    producer.send(Activity(interaction=act), newcomer, now_ms).result(10.0)
    producer.close(10.0)
    wait_for(lambda: crew.replace_the_fallen() or crew.fallen > 0, "a worker that runs must meet the new epoch")
    end_quietly(crew, settings)
    with PackedStore(settings.postgres) as store:
        history = store.read_users([newcomer]).history[0]
    assert history["applied"] == 31
    assert history["item"][: history["length"]].tolist() == [7] * 30 + [8]
