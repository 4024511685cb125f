"""The floor: a loop around confluent-kafka's consumer, with nothing between it and the driver."""

import signal
from collections import defaultdict

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.speed.peers.partitions import prepared
from core.topics import ACTIVITY
from streams.cursor import Record


def main() -> None:
    """Runs until SIGTERM."""
    settings, partitions = prepared()
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": settings.streams.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([ACTIVITY], on_revoke=lambda _, gone: partitions.revoked(at.partition for at in gone))
    most, within_s = settings.streams.max_batch * settings.kafka.activity_partitions, settings.streams.max_wait_ms / 1e3
    while not stopping:
        batches: defaultdict[int, list[Record]] = defaultdict(list)
        for message in consumer.consume(most, within_s):
            if message.error() is not None:
                raise KafkaException(message.error())
            record = Record(message.offset(), message.timestamp()[1], message.value())
            batches[message.partition()].append(record)
        for number, records in batches.items():
            partitions.apply(number, records)
        if batches:
            ends = [TopicPartition(ACTIVITY, number, records[-1].offset + 1) for number, records in batches.items()]
            consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main()
