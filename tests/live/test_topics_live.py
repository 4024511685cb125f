"""`topics apply` against a real broker: safe to repeat and to race, and never silent about a disagreement."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from core.errors import BrokerUnavailable, ContractError
from core.settings import Settings
from core.topics import ACTIVITY, topics
from core.topics_admin import admin_client, apply_topics, topic_states

pytestmark = pytest.mark.live


def test_topics_are_made_once_also_when_many_ask_at_once(platform_settings: Settings) -> None:
    kafka = platform_settings.kafka
    assert topic_states(kafka) == {}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(apply_topics, [kafka] * 4))
    wanted = {topic.name: topic.partitions for topic in topics(kafka.activity_partitions, 1)}
    states = topic_states(kafka)
    assert {name: state.partitions for name, state in states.items()} == wanted
    for answer in answers:
        assert {state.name: state.topic_id for state in answer} == {name: s.topic_id for name, s in states.items()}
    assert not any(state.created for state in apply_topics(kafka))


def test_another_partition_count_is_refused_with_the_way_out(platform_settings: Settings) -> None:
    apply_topics(platform_settings.kafka)
    other = platform_settings.kafka.model_copy(update={"activity_partitions": 7})
    with pytest.raises(ContractError, match=r"^activity\.v1: found 4 partitions, expected 7; .*new topic version"):
        apply_topics(other)
    assert topic_states(platform_settings.kafka)[ACTIVITY].partitions == 4


def test_retention_is_what_the_settings_say(platform_settings: Settings) -> None:
    apply_topics(platform_settings.kafka)
    with admin_client(platform_settings.kafka) as admin:
        answer = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, ACTIVITY)])
    days = platform_settings.kafka.retention_days
    assert str(days * 86_400_000 if days > 0 else -1) in str(answer)


def test_unreachable_broker_is_one_clear_line(platform_settings: Settings) -> None:
    nobody = platform_settings.kafka.model_copy(
        update={"bootstrap_servers": "127.0.0.1:9", "request_timeout_ms": 1_000}
    )
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9 .*NEARFEED_KAFKA__BOOTSTRAP_SERVERS"):
        apply_topics(nobody)
