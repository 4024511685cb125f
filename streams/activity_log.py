"""activity.v1 read alone, without a group: what the archiver, a replay and a forget need of the topic.

Nothing is subscribed and nothing is committed. A reader is for one thread.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Self, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from core.errors import BrokerUnavailable, ContractError
from core.settings import Kafka
from core.topics import ACTIVITY
from core.topics_admin import topic_states
from streams.cursor import Record

_FETCH_BYTES: Final = 8 << 20  # of one partition at once
_POLL_RECORDS: Final = 500

T = TypeVar("T")


class Bounds(NamedTuple):
    """What a partition holds: offsets [begin, end)."""

    begin: int
    end: int


def activity_topic(kafka: Kafka) -> str:
    """The id of activity.v1.

    Raises:
        BrokerUnavailable: no broker answered.
        ContractError: the topic is missing or has another number of partitions.
    """
    found = topic_states(kafka).get(ACTIVITY)
    if found is None or found.partitions != kafka.activity_partitions:
        raise ContractError(
            f"{ACTIVITY}: found {found.partitions if found else 'no'} partitions, expected "
            f"{kafka.activity_partitions}; run `nearfeed topics apply` or set kafka.activity_partitions"
        )
    return found.topic_id


class ActivityReader:
    """Every record of the partitions asked for, in order of offset, from where it is told to begin."""

    def __init__(self, kafka: Kafka) -> None:
        """Connected.

        Raises:
            BrokerUnavailable: no broker answered.
        """
        self._kafka = kafka
        self._consumer: Any = self._asked(
            lambda: KafkaConsumer(
                bootstrap_servers=kafka.bootstrap_servers.split(","),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                request_timeout_ms=kafka.request_timeout_ms,
                bootstrap_timeout_ms=kafka.request_timeout_ms,
                max_partition_fetch_bytes=_FETCH_BYTES,
                max_poll_records=_POLL_RECORDS,
            )
        )

    def bounds(self) -> dict[int, Bounds]:
        """What each partition holds now.

        Raises:
            BrokerUnavailable: the broker did not answer in time.
        """
        partitions = [TopicPartition(ACTIVITY, number) for number in range(self._kafka.activity_partitions)]
        timeout_ms = self._kafka.request_timeout_ms
        begins = self._asked(lambda: self._consumer.beginning_offsets(partitions, timeout_ms=timeout_ms))
        ends = self._asked(lambda: self._consumer.end_offsets(partitions, timeout_ms=timeout_ms))
        return {at.partition: Bounds(begins[at], ends[at]) for at in partitions}

    def begin(self, offsets: Mapping[int, int]) -> None:
        """Exactly these partitions are read, each from its offset."""
        self._consumer.assign([TopicPartition(ACTIVITY, number) for number in offsets])
        for number, offset in offsets.items():
            self._consumer.seek(TopicPartition(ACTIVITY, number), offset)

    def poll(self, timeout_s: float) -> Iterator[tuple[int, list[Record]]]:
        """The next records, by partition; nothing when none arrived in time, also while the broker is away.

        Raises:
            ContractError: the topic does not hold the offset asked for.
        """
        polled = self._asked(lambda: self._consumer.poll(timeout_ms=round(timeout_s * 1000)))
        for at, records in polled.items():
            yield at.partition, [Record(record.offset, record.timestamp, record.value) for record in records]

    def position(self, partition: int) -> int:
        """The offset that is read next: also beyond offsets that hold no record."""
        at = TopicPartition(ACTIVITY, partition)
        return int(self._asked(lambda: self._consumer.position(at, timeout_ms=self._kafka.request_timeout_ms)))

    def close(self) -> None:
        """The connections are gone."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            raise ContractError(
                f"{ACTIVITY}: the topic does not hold the offset that is next ({error}); retention was faster, or the "
                "topic was made again: start anew, what is missing will be said"
            ) from None
        except KafkaError as error:
            raise BrokerUnavailable(
                f"{ACTIVITY}: no Kafka broker answered at {self._kafka.bootstrap_servers} ({type(error).__name__}); "
                "start it (`nearfeed up`) or set NEARFEED_KAFKA__BOOTSTRAP_SERVERS"
            ) from None
