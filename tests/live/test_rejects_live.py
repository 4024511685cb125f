"""Bad input on real servers: rejected with a reason, listed, and sent back once it can be read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from core.clock import PlatformClock
from core.frames import encode_frame
from core.partition import partition_of
from core.settings import Settings, as_environment
from core.topics import ACTIVITY
from feature_repo.store import PackedStore
from protos.events.v1.activity_pb2 import Activity, ActivityFrame
from protos.events.v1.interaction_pb2 import Action, Interaction
from tests.live.stream_worker import PARTITIONS, ROOT, Worker, prepared, wait_until_quiet

pytestmark = pytest.mark.live

USER = "user-1"
HOME = partition_of(USER, PARTITIONS)
NOW_MS = PlatformClock().now_ms()


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    return prepared(platform_settings)


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(settings, tmp_path / "worker.log")
    worker.wait_ready()
    yield worker
    assert worker.end(signal.SIGTERM) == 0, worker.log.read_text()


def act(event_id: str, **changes: Any) -> Activity:
    fields: dict[str, Any] = {
        "event_id": event_id,
        "user_id": USER,
        "item_id": "7",
        "action": Action.ACTION_LIKE,
    } | changes
    event = Interaction(**fields)
    event.occurred_at.FromMilliseconds(NOW_MS)
    return Activity(interaction=event)


GOOD = encode_frame([act("good")])
# (partition, timestamp, value) -> words of the reason
BAD: list[tuple[int, int, bytes | None, str]] = [
    (HOME, NOW_MS, None, "found a record without a value"),
    (HOME, NOW_MS, GOOD[:-1], "are not an ActivityFrame"),
    (HOME, NOW_MS, ActivityFrame(schema_version=9).SerializeToString(), "update the reader"),
    (HOME, NOW_MS, bytes(3 << 20), "the record itself is whole"),
    (HOME, NOW_MS // 1000, GOOD, "set the producer's clock"),
    (HOME, NOW_MS, encode_frame([act("e1", item_id="\x00")]), "NUL"),
    (HOME, NOW_MS - 10**9, encode_frame([act("e2")]), "ahead of the platform"),
    ((HOME + 1) % PARTITIONS, NOW_MS, encode_frame([act("e3")]), "partition by murmur2"),
]


def nearfeed(settings: Settings, *arguments: str) -> tuple[int, Any]:
    """Exit code and what it printed as JSON."""
    ended = subprocess.run(
        [sys.executable, "cli.py", *arguments, "--json"],
        cwd=ROOT,
        env={**os.environ, **as_environment(settings)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def test_bad_input_is_rejected_listed_and_replayed(settings: Settings, worker: Worker) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, max_request_size=4 << 20)
    for partition, timestamp_ms, value, _ in BAD:
        producer.send(ACTIVITY, key=b"k", value=value, partition=partition, timestamp_ms=timestamp_ms)
    for partition in range(PARTITIONS):
        producer.send(ACTIVITY, value=encode_frame(()), partition=partition, timestamp_ms=NOW_MS)
    producer.close(timeout=30)
    wait_until_quiet(settings)

    code, listed = nearfeed(settings, "rejects", "list")
    assert code == 0
    assert len(listed) == len(BAD)
    offset_of = {words: row["offset"] for *_, words in BAD for row in listed if words in row["reason"]}
    assert sorted(offset_of.values()) == [row["offset"] for row in listed], listed

    # In the right partition now, and stamped with the present: both can be applied.
    fit = [offset_of["partition by murmur2"], offset_of["ahead of the platform"]]
    code, replayed = nearfeed(settings, "rejects", "replay", *map(str, fit))
    assert code == 0
    assert [(one["activities"], one["refused"]) for one in replayed] == [(1, ""), (1, "")]
    wait_until_quiet(settings)
    with PackedStore(settings.postgres) as store:
        assert store.read_users([USER]).history["applied"].tolist() == [2]

    # Still no frame: refused with a reason, and an exit code that a script sees.
    code, refused = nearfeed(settings, "rejects", "replay", str(offset_of["are not an ActivityFrame"]))
    assert code == 1
    assert refused[0]["activities"] == 0 and "not an ActivityFrame" in refused[0]["refused"]

    # Still unfit as an entry: it goes in, and comes back as a new reject.
    code, _ = nearfeed(settings, "rejects", "replay", str(offset_of["NUL"]))
    assert code == 0
    wait_until_quiet(settings)
    assert len(nearfeed(settings, "rejects", "list")[1]) == len(BAD) + 1
