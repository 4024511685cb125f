"""The same under bytewax: its Kafka source into a sink. It keeps no offsets in Kafka; the cursor in PostgreSQL is
where it would go on."""

from collections import defaultdict
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.speed.peers.partitions import Partitions, prepared
from core.topics import ACTIVITY
from streams.cursor import Record


class _StatePartition(StatelessSinkPartition[Any]):  # type: ignore[misc]
    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def write_batch(self, items: list["KafkaSourceMessage[bytes, bytes]"]) -> None:
        batches: defaultdict[int, list[Record]] = defaultdict(list)
        for item in items:
            batches[item.partition].append(Record(item.offset, item.timestamp[1], item.value))
        for number, records in batches.items():
            self._partitions.apply(number, records)


class StateSink(DynamicSink[Any]):  # type: ignore[misc]
    """Writes what the source read into the states."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _StatePartition:
        return _StatePartition(self._partitions)


def flow() -> Dataflow:
    """The dataflow that `python -m bytewax.run` runs."""
    settings, partitions = prepared()
    servers = settings.kafka.bootstrap_servers.split(",")
    dataflow = Dataflow("state")
    read = op.input("read", dataflow, KafkaSource(servers, [ACTIVITY], batch_size=settings.streams.max_batch))
    op.output("write", read, StateSink(partitions))
    return dataflow
