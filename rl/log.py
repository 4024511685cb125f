"""Reading stated ranges of the log again: offsets in, records out, within a bounded time.

Nothing is subscribed and nothing is committed: a range read twice gives the same records.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from core.errors import BrokerUnavailable, ContractError, FrameError
from core.settings import Kafka
from feature_repo.admission import activities_of, fault_of
from feature_repo.folds.entries import message_of
from protos.events.v1.activity_pb2 import Activity

_POLL_MS: Final = 200
_FETCH_BYTES: Final = 8 << 20


class Span(NamedTuple):
    """Half-open offsets [start, end) of one partition of a topic."""

    topic: str
    partition: int
    start: int
    end: int


class LogRecord(NamedTuple):
    """One Kafka record."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None


class Log(NamedTuple):
    """A connected reader of ranges; close it after use."""

    consumer: KafkaConsumer
    timeout_s: float

    @classmethod
    def connect(cls, kafka: Kafka, *, timeout_s: float) -> "Log":
        """A reader each of whose calls ends within `timeout_s`.

        Raises:
            BrokerUnavailable: no broker answered.
        """
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=kafka.bootstrap_servers.split(","),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                request_timeout_ms=kafka.request_timeout_ms,
                bootstrap_timeout_ms=kafka.request_timeout_ms,
                max_partition_fetch_bytes=_FETCH_BYTES,
                max_poll_records=2_000,
            )
        except KafkaError as error:
            raise _unavailable(kafka.bootstrap_servers, error) from None
        return cls(consumer, timeout_s)

    def spans(self, topic: str) -> list[Span]:
        """Everything that the topic holds now, by partition.

        Raises:
            BrokerUnavailable: the broker did not answer in time.
            ContractError: there is no such topic.
        """
        try:
            numbers = self.consumer.partitions_for_topic(topic)
            if not numbers:
                raise ContractError(f"found no topic {topic}, expected it; run `nearfeed topics apply`")
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            starts = self.consumer.beginning_offsets(partitions)
            ends = self.consumer.end_offsets(partitions)
        except KafkaError as error:
            raise _unavailable(topic, error) from None
        return [Span(topic, at.partition, starts[at], ends[at]) for at in partitions]

    def read(self, spans: Sequence[Span]) -> Iterator[LogRecord]:
        """The records of the spans, each partition's in order of offset.

        Raises:
            BrokerUnavailable: the broker failed, or the spans were not at their end in time.
        """
        left = {TopicPartition(span.topic, span.partition): span.end for span in spans if span.end > span.start}
        deadline_s = time.monotonic() + self.timeout_s
        try:
            self.consumer.assign(list(left))
            self.consumer.resume(*left)  # an earlier read may have paused them
            for span in spans:
                if span.end > span.start:
                    self.consumer.seek(TopicPartition(span.topic, span.partition), span.start)
            while left:
                if time.monotonic() > deadline_s:
                    raise BrokerUnavailable(
                        f"found {len(left)} of {len(spans)} ranges unread after {self.timeout_s:.0f} s, expected none; "
                        "read again, with a longer limit if the log is long"
                    )
                for at, records in self.consumer.poll(timeout_ms=_POLL_MS).items():
                    for record in records:
                        if at in left and record.offset < left[at]:
                            yield LogRecord(at.topic, at.partition, record.offset, record.timestamp, record.value)
                self._drop_finished(left)
        except KafkaError as error:
            raise _unavailable(", ".join(sorted({span.topic for span in spans})), error) from None

    def _drop_finished(self, left: dict[TopicPartition, int]) -> None:
        """Judged by position, since a range may end in offsets that hold no record."""
        finished = [at for at, end in left.items() if self.consumer.position(at) >= end]
        for at in finished:
            del left[at]
        if finished:
            self.consumer.pause(*finished)

    def close(self) -> None:
        """The connections are gone."""
        self.consumer.close()


def activities_by_user(record: LogRecord, partitions: int) -> Mapping[str, list[Activity]]:
    """The valid activities of one activity.v1 record, per user in order: those that a worker applies.

    What a worker rejects is passed over here; it stands in rejected.v1 with its reason.
    """
    try:
        activities = activities_of(record.value, record.timestamp_ms)
    except FrameError:
        return {}
    by_user: dict[str, list[Activity]] = {}
    for activity in activities:
        message = message_of(activity)
        if message is not None and fault_of(message, record.timestamp_ms, record.partition, partitions) is None:
            by_user.setdefault(message.user_id, []).append(activity)
    return by_user


def _unavailable(what: str, error: KafkaError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{what}: Kafka did not answer ({type(error).__name__}: {error}); check kafka.bootstrap_servers and the broker"
    )
