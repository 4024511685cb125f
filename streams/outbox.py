"""Produced records leave for Kafka after the commit that produced them.

outbox rows in, records of outcomes.v1 and rejected.v1 out. A row is deleted once all replicas hold its
record; a crash in between sends it again, and consumers know a repeat by its id (`outcome_id`, or
topic, partition, offset and index of a reject).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from kafka import KafkaProducer

from core.errors import BrokerUnavailable, NotReady
from core.producer import send_record

logger = logging.getLogger(__name__)

BATCH: Final = 500  # rows in flight at once
_IDLE_S: Final = 0.5  # without a wake-up: rows that an earlier owner left behind
_BACKOFF_S: Final = 1.0


class Produced(NamedTuple):
    """A record for another topic, made by a fold."""

    topic: str
    key: bytes | None
    value: bytes
    partition: int  # of `topic`
    timestamp_ms: int  # the log time at which it was made


class OutboxRow(NamedTuple):
    """A produced record as it waits."""

    id: int  # ascending in the order of commits of one source partition
    produced: Produced


class Outbox(Protocol):
    """Produced records that wait, by the partition that produced them."""

    def waiting(self, partition: int, limit: int) -> list[OutboxRow]:
        """The first rows of a source partition, in order of id.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """

    def delete(self, ids: Sequence[int]) -> None:
        """The rows are gone.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """


class Relay(threading.Thread):
    """Sends what waits for the partitions this process owns, until `stop()`.

    Per source partition the records keep the order of their ids: behind one that the broker did not
    acknowledge nothing is deleted, so that it and all behind it are sent again.
    """

    def __init__(
        self, outbox: Outbox, producer: KafkaProducer, owned: Callable[[], Sequence[int]], *, ack_timeout_s: float
    ) -> None:
        super().__init__(name="outbox-relay", daemon=True)
        self._outbox = outbox
        self._producer = producer
        self._owned = owned
        self._ack_timeout_s = ack_timeout_s
        self._wake = threading.Event()
        self._stopping = False
        self.failure: Exception | None = None  # what ended it although nobody asked: the process must end, too

    def wake(self) -> None:
        """New rows were committed."""
        self._wake.set()

    def stop(self) -> None:
        """Ended, after a last round for what was committed before."""
        self._stopping = True
        self._wake.set()
        if self.is_alive():
            self.join(2 * self._ack_timeout_s)

    def run(self) -> None:
        while True:
            last = self._stopping
            self._wake.clear()
            pause_s = _IDLE_S
            try:
                while self.send_waiting() and not self._stopping:
                    pass
            except NotReady as error:
                logger.warning("outbox.waiting reason=%s", error)
                pause_s = _BACKOFF_S
            except Exception as error:
                self.failure = error
                return
            if last:
                return
            self._wake.wait(pause_s)

    def send_waiting(self) -> int:
        """One round over the owned partitions; how many records were acknowledged.

        Raises:
            BrokerUnavailable, StoreUnavailable: rows stay and are sent again later.
        """
        return sum(self._send_partition(partition) for partition in self._owned())

    def _send_partition(self, partition: int) -> int:
        rows = self._outbox.waiting(partition, BATCH)
        sent = [
            send_record(
                self._producer,
                row.produced.topic,
                row.produced.value,
                key=row.produced.key,
                partition=row.produced.partition,
                timestamp_ms=row.produced.timestamp_ms,
            )
            for row in rows
        ]
        acknowledged: list[int] = []
        failure: BrokerUnavailable | None = None
        for row, future in zip(rows, sent, strict=True):
            try:
                future.result(self._ack_timeout_s)
            except (BrokerUnavailable, TimeoutError) as error:
                failure = (
                    error
                    if isinstance(error, BrokerUnavailable)
                    else BrokerUnavailable(
                        f"{row.produced.topic}: no acknowledgement within {self._ack_timeout_s} s; sent again later"
                    )
                )
                break
            acknowledged.append(row.id)
        if acknowledged:
            self._outbox.delete(acknowledged)
        if failure is not None:
            raise failure
        return len(acknowledged)
