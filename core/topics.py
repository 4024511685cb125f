"""The catalogue of topics: name, key, message, retention. Everybody imports names from here.

The partition count of a topic is fixed for its version: the partition is part of what a state row
means. More partitions are a new topic version beside the old one.
"""

from typing import NamedTuple

ACTIVITY = "activity.v1"
OUTCOMES = "outcomes.v1"
REJECTED = "rejected.v1"
CATALOG = "catalog.v1"
MODELS = "models.v1"

FOR_EVER_MS = -1


class Topic(NamedTuple):
    """One Kafka topic as this project needs it."""

    name: str
    key: str  # what the record key is, for people
    message: str  # full protobuf name of the value
    partitions: int
    retention_ms: int  # FOR_EVER_MS = keep all
    compacted: bool
    help: str


def topics(activity_partitions: int, retention_ms: int) -> tuple[Topic, ...]:
    """Every topic of the platform; outcomes stay with their activity partition.

    The broker counts retention from the record's timestamp, which is platform time: a replay of old days
    needs FOR_EVER_MS.
    """
    return (
        Topic(
            ACTIVITY,
            "none; the partition is murmur2(user_id)",
            "protos.events.v1.ActivityFrame",
            activity_partitions,
            retention_ms,
            False,
            "what people did and what they were shown, one order per user",
        ),
        Topic(
            OUTCOMES,
            "user_id",
            "protos.events.v1.Outcome",
            activity_partitions,
            retention_ms,
            False,
            "each shown item and what followed; repeats are recognised by outcome_id",
        ),
        Topic(
            REJECTED,
            "none",
            "protos.events.v1.Rejected",
            1,
            retention_ms,
            False,
            "what could not be applied, whole, with the reason",
        ),
        Topic(
            CATALOG, "item_id", "protos.catalog.v1.CatalogRecord", 1, FOR_EVER_MS, True, "items, codes, availability"
        ),
        Topic(MODELS, "model_version", "protos.registry.v1.ModelManifest", 1, FOR_EVER_MS, False, "what was published"),
    )
