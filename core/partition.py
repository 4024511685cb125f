"""Which partition a user belongs to: Kafka's default partitioner, murmur2 over the UTF-8 user id.

Every producer of activity.v1, in whatever language, must agree with this function: Java clients and
kafka-python do by default when the record key is the user id; librdkafka clients set
`partitioner=murmur2_random`.
"""

from functools import lru_cache

from kafka.partitioner.default import murmur2


@lru_cache(maxsize=1 << 16)
def partition_of(user_id: str, partitions: int) -> int:
    """The partition of activity.v1, 0 .. partitions-1, that holds everything about `user_id`."""
    return int(murmur2(user_id.encode()) & 0x7FFFFFFF) % partitions
