"""One turn of learning from a real broker: ranges read whole, outcomes counted once, a version published."""

import pytest

from core.clock import FixedClock
from core.errors import BrokerUnavailable, ContractError, InputError
from core.producer import make_producer, send_record
from core.settings import Settings
from core.topics import ACTIVITY, OUTCOMES
from core.topics_admin import apply_topics
from models.registry import current, load_manifest
from rl.candidate import learn
from rl.log import Log
from rl.update import UpdateArguments
from tests.rl.loop import PARTITIONS, World, make_world

pytestmark = pytest.mark.live

CLOCK = FixedClock(1_749_000_000_000)
ARGS = UpdateArguments(steps=10, requests=32, examples=64, learning_rate=1e-4, max_positives=400)
REPEATS = 25


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def settings(platform_settings: Settings, world: World) -> Settings:
    """A broker that holds the world's log and outcomes, some outcomes twice, as a relay that died may leave them."""
    settings = platform_settings.model_copy(
        update={
            "kafka": platform_settings.kafka.model_copy(
                update={"activity_partitions": PARTITIONS, "retention_days": 0}  # the days of the world are long past
            ),
            "registry": platform_settings.registry.model_copy(update={"home": world.home}),
        }
    )
    apply_topics(settings.kafka)
    producer = make_producer(settings.kafka, timeout_ms=10_000)
    try:
        sent = [
            send_record(producer, ACTIVITY, one.value, partition=one.partition, timestamp_ms=one.timestamp_ms)
            for one in world.log
        ]
        for outcome in (*world.outcomes, *world.outcomes[:REPEATS]):
            key = outcome.user_id.encode()
            sent.append(
                send_record(producer, OUTCOMES, outcome.SerializeToString(), key=key, partition=outcome.partition)
            )
        for one in sent:
            one.result(20.0)
    finally:
        producer.close(timeout=5.0)
    return settings


def test_ranges_are_read_whole_and_end(settings: Settings, world: World) -> None:
    log = Log.connect(settings.kafka, timeout_s=20.0)
    try:
        spans = log.spans(ACTIVITY)
        assert [span.partition for span in spans] == list(range(PARTITIONS))
        for _ in range(2):
            found = list(log.read(spans))
            assert sorted(found) == sorted(world.log)
        half = [span._replace(end=span.end // 2) for span in spans]
        assert len(list(log.read(half))) == sum(span.end for span in half)
        assert list(log.read([span._replace(end=span.start) for span in spans])) == []
        with pytest.raises(BrokerUnavailable, match="unread"):
            list(log._replace(timeout_s=0.6).read([span._replace(end=span.end + 1) for span in spans]))
        with pytest.raises(ContractError, match="found no topic"):
            log.spans("topic-of-nobody")
    finally:
        log.close()


def test_one_turn_of_learning_publishes_the_next_version_or_says_why_not(settings: Settings, world: World) -> None:
    learned = learn(settings, ARGS, clock=CLOCK, users=world.users, table=world.table)
    assert (learned.outcomes, learned.repeats, learned.dropped) == (len(world.outcomes), REPEATS, {})
    names = [check.name for check in learned.verdict.checks]
    if learned.version is None:
        assert learned.candidate is not None and learned.candidate.is_dir() and current(world.home) == 1
        assert any("REFUSED" in line for line in learned.lines)
    else:
        assert names == ["files", "parity", "legality", "reward", "coverage"]
        manifest = load_manifest(world.home, learned.version)
        assert (manifest.parent_version, current(world.home)) == (1, learned.version)
        read = {(one.source, one.partition): one.end_offset for one in manifest.data_ranges}
        assert sum(end for (source, _), end in read.items() if source == ACTIVITY) == len(world.log)
        with pytest.raises(
            InputError, match="found 0 requests"
        ):  # an outcome teaches one version, not its children too
            learn(settings, ARGS, clock=CLOCK, users=world.users, table=world.table)


def test_an_unreachable_broker_is_one_line(settings: Settings) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9", "request_timeout_ms": 500})
    with pytest.raises(BrokerUnavailable):
        Log.connect(nowhere, timeout_s=1.0)
