"""Following catalog.v1: what changed since the catalogue was published, in order, from the beginning.

catalog.v1 in, changes to catalogues out. A thread reads; every change is handed over on the event
loop, where catalogues live. The newest record of each item is kept, so that the next published version
starts where this one is.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import wait
from contextlib import AbstractAsyncContextManager
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from core.errors import BrokerUnavailable, ContractError, NearfeedError
from core.settings import Kafka
from core.telemetry import CATALOG_OFFSET, STAGE_IN, STAGE_OUT, STAGE_REMOVED
from core.topics import CATALOG
from models.catalog import Catalog
from protos.catalog.v1.catalog_pb2 import CatalogRecord, Item

STAGE: Final = "catalog"
POLL_MS: Final = 100
RETRY_S: Final = 1.0
AT_ONCE: Final = 16  # records that are applied between two answers: a new item costs some milliseconds

_PARTITION: Final = TopicPartition(CATALOG, 0)

_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """One record and where it stands."""

    offset: int
    record: CatalogRecord


class CatalogLog:
    """Reads catalog.v1 and hands every change to `apply`, on the event loop, in order."""

    def __init__(self, kafka: Kafka, apply: Callable[[Sequence[CatalogRecord]], Awaitable[None]]) -> None:
        self._kafka = kafka
        self._apply = apply
        self._latest: dict[str, Change] = {}
        self._applied = asyncio.Condition()
        self._stopping = threading.Event()
        self._asked_for_end: SimpleQueue[asyncio.Future[int]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.offset = -1  # of the last record applied; -1 = none

    async def start(self) -> None:
        """Connect and begin to read.

        Raises:
            BrokerUnavailable: no broker answered.
            ContractError: the broker has no such topic.
        """
        self._loop = asyncio.get_running_loop()
        consumer = await asyncio.to_thread(_consumer, self._kafka)
        self._thread = threading.Thread(target=self._read, args=(consumer,), name="catalog-log", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Read no more."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)

    def latest(self, after: int = -1) -> list[CatalogRecord]:
        """The newest record of every item, of those beyond offset `after`, in the order of the log."""
        changes = sorted((change.offset, change.record) for change in self._latest.values() if change.offset > after)
        return [record for _, record in changes]

    async def end(self) -> int:
        """The offset of the last record that the broker holds now; -1 = none.

        Raises:
            BrokerUnavailable: the broker did not say.
        """
        asked: asyncio.Future[int] = self._loop.create_future()
        self._asked_for_end.put(asked)
        try:
            async with asyncio.timeout(self._kafka.request_timeout_ms / 1000.0):
                return await asked
        except TimeoutError:
            raise BrokerUnavailable(f"{CATALOG}: the broker did not say where it ends; check that it runs") from None

    async def reach(self, offset: int) -> None:
        """Return when everything up to `offset` is applied."""
        async with self._applied:
            await self._applied.wait_for(lambda: self.offset >= offset)

    def _read(self, consumer: KafkaConsumer) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._step(consumer)
                except KafkaError as error:
                    _log.warning("catalog_log.unavailable error=%r", error)
                    self._stopping.wait(RETRY_S)
                except Exception:  # nothing is skipped: the same records are read again
                    _log.exception("catalog_log.failed offset=%d", self.offset)
                    consumer.seek(_PARTITION, self.offset + 1)
                    self._stopping.wait(RETRY_S)
        finally:
            consumer.close()

    def _step(self, consumer: KafkaConsumer) -> None:
        if not self._asked_for_end.empty():
            asked = [self._asked_for_end.get() for _ in range(self._asked_for_end.qsize())]
            end = consumer.end_offsets([_PARTITION], timeout_ms=self._kafka.request_timeout_ms)[_PARTITION] - 1
            self._loop.call_soon_threadsafe(_answer_all, asked, end)
        records = consumer.poll(timeout_ms=POLL_MS).get(_PARTITION, [])
        if records:
            changes = [
                Change(record.offset, decoded) for record in records if (decoded := _decoded(record)) is not None
            ]
            taking = asyncio.run_coroutine_threadsafe(self._take(changes, records[-1].offset), self._loop)
            while not wait([taking], timeout=POLL_MS / 1000.0).done:
                if self._stopping.is_set():
                    taking.cancel()
                    return
            taking.result()

    async def _take(self, changes: Sequence[Change], offset: int) -> None:
        STAGE_IN.labels(STAGE).inc(len(changes))
        for change in changes:
            self._latest[change.record.item.item_id] = change
        await self._apply([change.record for change in changes])
        STAGE_OUT.labels(STAGE).inc(len(changes))
        async with self._applied:
            self.offset = offset
            self._applied.notify_all()
        CATALOG_OFFSET.set(offset)


async def apply_between_answers(
    records: Sequence[CatalogRecord],
    catalog: Callable[[], Catalog],
    between_batches: Callable[[], AbstractAsyncContextManager[None]],
) -> None:
    """As `bring_up_to_date`, a few records at a time, so that answers wait for no more than those.

    Args:
        catalog: the one that serves, which may be another one after each of the times.
    """
    for start in range(0, len(records), AT_ONCE):
        async with between_batches():
            bring_up_to_date(catalog(), records[start : start + AT_ONCE])
        await asyncio.sleep(0)


def bring_up_to_date(catalog: Catalog, records: Sequence[CatalogRecord]) -> None:
    """Apply records; one that contradicts the catalogue is logged and counted, and the others still apply."""
    try:
        applied = catalog.apply(records)
        foreign = applied.foreign
    except NearfeedError:
        foreign = 0
        for record in records:
            try:
                foreign += catalog.apply([record]).foreign
            except NearfeedError as error:
                STAGE_REMOVED.labels(STAGE, "contradicts").inc()
                _log.error("catalog.refused item_id=%s error=%s", record.item.item_id, error)
    if foreign:  # new items under another tokenizer's codes: the writer assigns them anew
        STAGE_REMOVED.labels(STAGE, "foreign_tokenizer").inc(foreign)
        _log.warning("catalog.foreign items=%d tokenizer_version=%d", foreign, catalog.tokenizer.version)


def _consumer(kafka: Kafka) -> KafkaConsumer:
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers.split(","),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=max(kafka.request_timeout_ms, POLL_MS + 1),
            bootstrap_timeout_ms=kafka.request_timeout_ms,
            reconnect_backoff_max_ms=1000,
            fetch_max_wait_ms=POLL_MS,
            allow_auto_create_topics=False,
        )
        known = consumer.partitions_for_topic(CATALOG)
    except KafkaError as error:
        raise BrokerUnavailable(
            f"no Kafka broker answered at {kafka.bootstrap_servers} ({type(error).__name__}); "
            "start it (`nearfeed up`) or set NEARFEED_KAFKA__BOOTSTRAP_SERVERS"
        ) from None
    if not known:
        consumer.close()
        raise ContractError(f"found no topic {CATALOG} at {kafka.bootstrap_servers}; run `nearfeed topics apply`")
    consumer.assign([_PARTITION])
    consumer.seek_to_beginning(_PARTITION)
    return consumer


def _decoded(record: Any) -> CatalogRecord | None:
    """The record; a null value is a removal. What nobody can read is logged, counted and left out."""
    try:
        if record.value is None:
            return CatalogRecord(item=Item(item_id=record.key.decode()), removed=True)
        return CatalogRecord.FromString(record.value)
    except (DecodeError, AttributeError, UnicodeDecodeError) as error:
        STAGE_REMOVED.labels(STAGE, "unreadable").inc()
        _log.error("catalog.unreadable offset=%d error=%r", record.offset, error)
        return None


def _answer_all(asked: Sequence["asyncio.Future[int]"], end: int) -> None:
    for future in asked:
        if not future.done():
            future.set_result(end)
