"""Making the topics of `core/topics.py` on a broker, and refusing a broker that disagrees with them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from core.errors import BrokerUnavailable, ContractError
from core.settings import Kafka
from core.topics import FOR_EVER_MS, Topic, topics

_DAY_MS: Final = 24 * 3600 * 1000
_MAX_MESSAGE_BYTES: Final = 4 << 20  # a rejected frame travels whole inside its Rejected record


class TopicState(NamedTuple):
    """One topic on the broker."""

    name: str
    topic_id: str  # changes when a topic is deleted and made again
    partitions: int
    created: bool  # by this call


def apply_topics(kafka: Kafka) -> list[TopicState]:
    """Every topic exists with its partition count; safe to run again and from several places at once.

    Raises:
        BrokerUnavailable: no broker answered.
        ContractError: a topic exists with another partition count.
    """
    wanted = _wanted(kafka)
    with admin_client(kafka) as admin:
        existing = _describe(admin, wanted)
        missing = [topic for topic in wanted if topic.name not in existing]
        if missing:
            # Somebody else may make it in between; what counts is checked below.
            with suppress(TopicAlreadyExistsError):
                admin.create_topics(
                    {topic.name: _options(topic, kafka) for topic in missing},
                    timeout_ms=kafka.request_timeout_ms,
                    wait_for_metadata=True,
                )
            existing = _describe(admin, wanted)
    made = {topic.name for topic in missing}
    for topic in wanted:
        found = existing.get(topic.name)
        if found is None or found.partitions != topic.partitions:
            raise ContractError(
                f"{topic.name}: found {found.partitions if found else 'no'} partitions, expected {topic.partitions}; "
                "set kafka.activity_partitions to what exists, or use a new topic version"
            )
    return [existing[topic.name]._replace(created=topic.name in made) for topic in wanted]


def topic_states(kafka: Kafka) -> dict[str, TopicState]:
    """The platform's topics that exist on the broker, by name."""
    with admin_client(kafka) as admin:
        return _describe(admin, _wanted(kafka))


@contextmanager
def admin_client(kafka: Kafka) -> Iterator[KafkaAdminClient]:
    """A connected admin client; broker trouble inside becomes BrokerUnavailable."""
    admin = None
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=kafka.bootstrap_servers.split(","),
            request_timeout_ms=kafka.request_timeout_ms,
            bootstrap_timeout_ms=kafka.request_timeout_ms,
        )
        yield admin
    except KafkaError as error:
        raise BrokerUnavailable(
            f"no Kafka broker answered at {kafka.bootstrap_servers} ({type(error).__name__}); "
            "start it (`nearfeed up`) or set NEARFEED_KAFKA__BOOTSTRAP_SERVERS"
        ) from None
    finally:
        if admin is not None:
            admin.close()


def _wanted(kafka: Kafka) -> tuple[Topic, ...]:
    retention_ms = FOR_EVER_MS if kafka.retention_days == 0 else kafka.retention_days * _DAY_MS
    return topics(kafka.activity_partitions, retention_ms)


def _describe(admin: KafkaAdminClient, wanted: tuple[Topic, ...]) -> dict[str, TopicState]:
    names = {topic.name for topic in wanted}
    found = {}
    for entry in admin.describe_topics():
        if entry["name"] in names:
            found[entry["name"]] = TopicState(
                entry["name"], str(entry.get("topic_id", "")), len(entry["partitions"]), False
            )
    return found


def _options(topic: Topic, kafka: Kafka) -> dict[str, object]:
    configs = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(_MAX_MESSAGE_BYTES),
        "message.timestamp.type": "CreateTime",
        # Recorded days are replayed: a record may be years older than the broker's clock.
        "message.timestamp.before.max.ms": str(2**63 - 1),
        "message.timestamp.after.max.ms": str(2**63 - 1),
    }
    return {"num_partitions": topic.partitions, "replication_factor": kafka.replication, "configs": configs}
