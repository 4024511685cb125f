"""models.v1: everybody who listens hears what was published."""

from core.producer import make_producer, send_record
from core.settings import Kafka
from core.topics import MODELS
from protos.registry.v1.manifest_pb2 import ModelManifest


def announce(kafka: Kafka, manifest: ModelManifest) -> None:
    """The manifest of a published version stands in models.v1. Said again, it is the same record again.

    Raises:
        BrokerUnavailable: Kafka did not answer in time; the version is published all the same.
    """
    timeout_ms = kafka.request_timeout_ms
    producer = make_producer(kafka, timeout_ms=timeout_ms)
    try:
        key = str(manifest.model_version).encode()
        send_record(producer, MODELS, manifest.SerializeToString(), key=key).result(timeout_ms / 1000.0)
    finally:
        producer.close(timeout=1.0)
