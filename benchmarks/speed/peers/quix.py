"""The same under quixstreams: a topic into a batching sink, which its checkpoint flushes before it commits offsets."""

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.speed.peers.partitions import Partitions, prepared
from core.topics import ACTIVITY
from streams.cursor import Record


class StateSink(BatchingSink):  # type: ignore[misc]
    """Writes each partition's batch of a checkpoint into the states."""

    def __init__(self, partitions: Partitions) -> None:
        super().__init__()
        self._partitions = partitions

    def write(self, batch: SinkBatch) -> None:
        records = [Record(item.offset, item.timestamp, item.value) for item in batch]
        self._partitions.apply(batch.partition, records)


def main() -> None:
    """Runs until SIGTERM."""
    settings, partitions = prepared()
    within_s = settings.streams.max_wait_ms / 1000.0
    app = Application(
        settings.kafka.bootstrap_servers,
        consumer_group=settings.streams.group,
        auto_offset_reset="earliest",
        commit_interval=within_s,
        commit_every=settings.streams.max_batch * settings.kafka.activity_partitions,
        consumer_poll_timeout=within_s,  # it is also how late an interval may end
        auto_create_topics=False,
        use_changelog_topics=False,
        loglevel="WARNING",
    )
    topic = app.topic(ACTIVITY, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(topic).sink(StateSink(partitions))
    app.run()


if __name__ == "__main__":
    main()
