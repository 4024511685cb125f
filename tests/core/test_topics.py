"""The catalogue of topics: names, partitions and retention hang together."""

import re

import pytest

from core.topics import ACTIVITY, CATALOG, FOR_EVER_MS, MODELS, OUTCOMES, REJECTED, topics

DAY_MS = 86_400_000
ALL = {topic.name: topic for topic in topics(6, DAY_MS)}


def test_every_named_topic_is_listed_once() -> None:
    assert [topic.name for topic in topics(6, DAY_MS)] == [ACTIVITY, OUTCOMES, REJECTED, CATALOG, MODELS]


@pytest.mark.parametrize("name", ALL)
def test_name_is_a_word_and_a_version(name: str) -> None:
    assert re.fullmatch(r"[a-z]+\.v\d+", name)


def test_outcomes_stay_in_the_partition_of_their_activity() -> None:
    assert ALL[OUTCOMES].partitions == ALL[ACTIVITY].partitions == 6


def test_what_cannot_be_replayed_from_the_log_is_kept_for_ever() -> None:
    """Retention is for the log and what is made of it; the catalogue and the models are nobody's by-product."""
    assert {name for name, topic in ALL.items() if topic.retention_ms == FOR_EVER_MS} == {CATALOG, MODELS}
    assert {topic.retention_ms for topic in topics(6, FOR_EVER_MS)} == {FOR_EVER_MS}


def test_only_a_topic_with_a_key_is_compacted() -> None:
    assert [topic.name for topic in ALL.values() if topic.compacted] == [CATALOG]
    assert ALL[CATALOG].key == "item_id"
