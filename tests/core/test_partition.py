"""Every producer must agree on a user's partition: Kafka's murmur2, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import DefaultPartitioner

from core.partition import partition_of

# Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java (testMurmur2)
JAVA_VECTORS = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


class OneTopic:
    """The part of kafka-python's cluster metadata that its partitioner asks for."""

    def __init__(self, partitions: int) -> None:
        self.partitions = set(range(partitions))

    def topics(self) -> set[str]:
        return {"activity.v1"}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions

    def available_partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions


@pytest.mark.parametrize(("user_id", "signed"), JAVA_VECTORS.items())
def test_partition_is_the_java_clients_hash_without_its_sign(user_id: str, signed: int) -> None:
    assert partition_of(user_id, 2**31) == signed & 0x7FFFFFFF
    assert partition_of(user_id, 12) == (signed & 0x7FFFFFFF) % 12


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(1, 64))
def test_partition_is_where_kafka_python_puts_the_key(user_id: str, partitions: int) -> None:
    key = user_id.encode()
    default = DefaultPartitioner().partition("activity.v1", key, key, None, None, OneTopic(partitions))
    assert partition_of(user_id, partitions) == default
