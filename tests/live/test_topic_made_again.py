"""A topic that was deleted and made again has other offsets: a worker notices, the next one begins at its beginning."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from core.producer import ActivityProducer
from core.settings import Settings
from core.topics import ACTIVITY
from core.topics_admin import apply_topics
from feature_repo.store import PackedStore
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction
from tests.live.stream_worker import PATIENCE_S, Worker, prepared

pytestmark = pytest.mark.live

USER = "ann"


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    return prepared(platform_settings)


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait(PATIENCE_S)


def test_the_events_of_a_topic_made_again_all_count(settings: Settings, tmp_path: Path, workers: list[Worker]) -> None:
    workers.append(Worker(settings, tmp_path / "before.log"))
    workers[0].wait_ready()
    send(settings, range(30))
    wait_for_applied(settings, 30)

    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    admin.delete_topics([ACTIVITY])
    admin.close()
    wait_until_made(settings)
    send(settings, range(30, 40))  # fewer than before: every offset was passed in the old topic

    assert workers[0].process.wait(PATIENCE_S) == 1
    assert ACTIVITY in workers[0].log.read_text().splitlines()[-1]
    workers.append(Worker(settings, tmp_path / "after.log"))
    workers[1].wait_ready()
    wait_for_applied(settings, 40)


def send(settings: Settings, numbers: range) -> None:
    producer = ActivityProducer(settings.kafka, linger_ms=0, timeout_ms=10_000)
    for number in numbers:
        now_ms = time.time_ns() // 1_000_000
        event = Interaction(event_id=f"e{number}", user_id=USER, item_id="1", action=Action.ACTION_LIKE)
        event.occurred_at.FromMilliseconds(now_ms)
        producer.send(Activity(interaction=event), USER, now_ms).result(PATIENCE_S)
    producer.close(10.0)


def wait_until_made(settings: Settings) -> None:
    """Deletion takes a moment; until then the topic is still there or still going."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(state.created for state in apply_topics(settings.kafka) if state.name == ACTIVITY):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_applied(settings: Settings, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with PackedStore(settings.postgres) as store:
        while (applied := int(store.read_users([USER]).history["applied"][0])) != count:
            assert applied < count and time.monotonic() < deadline, f"applied {applied} of {count}"
            time.sleep(0.1)
