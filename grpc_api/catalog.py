"""CatalogService: changes to what may be recommended, by the one process that assigns codes.

A change is judged, given its codes, written to catalog.v1 and, when every live scorer has applied it,
answered. The writer's own catalogue changes through the log only, like everybody else's, so a writer
that takes over knows exactly what its predecessor wrote.

One writer: whoever holds a PostgreSQL advisory lock. The lock ends with its session, so a dead writer is
replaced at once. A writer that loses its session between the check and the write, and sleeps, could
still write beside its successor; followers then refuse the second use of a path and say so.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from grpc.aio import ServicerContext
from kafka import KafkaProducer

from core.clock import Clock
from core.errors import InputError, TooLarge, WriterTaken
from core.producer import Acknowledged, send_record
from core.settings import Kafka
from core.topics import CATALOG
from feature_repo.postgres import named_errors
from grpc_api.catalog_changes import Judged, judge, records_of
from grpc_api.catalog_log import CatalogLog, bring_up_to_date
from grpc_api.lease import Session
from models.catalog import Catalog
from models.catalog_files import load_catalog
from models.registry import current, folder_of
from protos.catalog.v1 import catalog_pb2_grpc
from protos.catalog.v1.catalog_pb2 import (
    CatalogRecord,
    ChangeResult,
    UpdateCatalogRequest,
    UpdateCatalogResponse,
)

MAX_CHANGES: Final = 1000  # in one call
DEFAULT_PATIENCE_S: Final = 10.0  # for scorers to follow, when the call names no deadline
RESERVE_S: Final = 0.1  # of the caller's deadline, for answering
POLL_S: Final = 0.02  # between looks at the leases
_WRITER_LOCK: Final = 0x63617461  # "cata"

_log = logging.getLogger(__name__)

Context = ServicerContext[UpdateCatalogRequest, UpdateCatalogResponse]


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """Takes changes one call at a time; a call to a process that is not the writer fails with WriterTaken."""

    def __init__(self, kafka: Kafka, home: Path, session: Session, producer: KafkaProducer, clock: Clock) -> None:
        """
        Args:
            home: the registry; its current version has the tokenizer that assigns codes.
            session: holds the writer's lock, and looks at the leases.
        """
        self._log = CatalogLog(kafka, self._follow)
        self._home = home
        self._session = session
        self._producer = producer
        self._clock = clock
        self._one_call = asyncio.Lock()
        self._locked: psycopg.AsyncConnection[Any] | None = None  # the session that holds the writer's lock
        self._catalog: Catalog | None = None
        self._version: int | None = None
        self._loading: asyncio.Task[None] | None = None

    async def UpdateCatalog(self, request: UpdateCatalogRequest, context: Context) -> UpdateCatalogResponse:
        """One result per change, in order, when the scorers follow or the deadline is near.

        Raises:
            TooLarge: more changes than one call may carry.
            InputError: no change was good.
            WriterTaken: another process writes the catalogue.
            ArtefactError: no model is published, so there is no tokenizer to assign codes with.
            BrokerUnavailable, StoreUnavailable: try again; a repeated change changes nothing.
        """
        started_s = time.monotonic()
        remaining_s = context.time_remaining()
        patience_s = DEFAULT_PATIENCE_S if remaining_s is None else remaining_s - RESERVE_S
        if len(request.changes) > MAX_CHANGES:
            raise TooLarge(f"found {len(request.changes)} changes, expected at most {MAX_CHANGES}; send fewer a call")
        async with self._one_call:
            await self._be_the_writer()
            catalog = await self._newest_catalog()
            judged = judge(request.changes, catalog)
            if all(change.fault is not None for change in judged):
                raise InputError(_nothing_kept(judged))
            records = records_of([change for change in judged if change.fault is None], catalog)
            acknowledged = await self._write(records)
            await self._log.reach(acknowledged[-1].offset)
        offsets = iter(acknowledged)
        results = [
            ChangeResult(item_id=change.item_id, kept=True, offset=next(offsets).offset)
            if change.fault is None
            else ChangeResult(item_id=change.item_id, field=change.fault.field, reason=change.fault.reason)
            for change in judged
        ]
        applied = await self._applied_everywhere(acknowledged[-1].offset, started_s + patience_s)
        return UpdateCatalogResponse(results=results, applied_by_all_scorers=applied)

    async def start(self) -> None:
        """Follow catalog.v1 from now on. Raises BrokerUnavailable, or ContractError without the topic."""
        await self._log.start()

    async def stop(self) -> None:
        """Follow no more."""
        if self._loading is not None:
            self._loading.cancel()
        await self._log.stop()

    async def _follow(self, records: Sequence[CatalogRecord]) -> None:
        if self._catalog is not None:  # loaded at the first call, with everything that the log held
            bring_up_to_date(self._catalog, records)

    async def _be_the_writer(self) -> None:
        connection = await self._session.connection()
        with named_errors():
            if connection is not self._locked:
                cursor = await connection.execute(b"select pg_try_advisory_lock(%s)", (_WRITER_LOCK,))
                row = await cursor.fetchone()
                if row is None or not row[0]:
                    await self._session.close()
                    raise WriterTaken("another process holds the catalogue's lock; send changes to it, or stop it")
                await self._log.reach(await self._log.end())  # what the writer before wrote last
                self._locked = connection
                _log.info("catalog.writer lock=held")
            else:
                await connection.execute(b"select 1")  # the lock lives as long as its session

    async def _newest_catalog(self) -> Catalog:
        """The catalogue of the current version with everything that the log holds.

        A large one takes longer to load than a call lasts: the load outlives the call, and the next one finds it.
        """
        while self._catalog is None or current(self._home) != self._version:
            if self._loading is None:
                self._loading = asyncio.create_task(self._load(current(self._home)))
            await asyncio.shield(self._loading)
        return self._catalog

    async def _load(self, version: int | None) -> None:
        try:
            catalog = await asyncio.to_thread(load_catalog, folder_of(self._home, version))
            bring_up_to_date(catalog, self._log.latest())
            self._catalog, self._version = catalog, version
            _log.info("catalog.loaded model_version=%d items=%d", version, len(catalog))
            await self._assign_anew(catalog)
        finally:
            self._loading = None

    async def _assign_anew(self, catalog: Catalog) -> None:
        """Items that the log knows under another tokenizer's codes get codes of this one."""
        unknown = [record.item for record in self._log.latest() if not record.removed]
        unknown = [item for item in unknown if catalog.index_of(item.item_id) is None]
        if unknown:
            changes = [Judged(item.item_id, None, item) for item in unknown]
            acknowledged = await self._write(records_of(changes, catalog))
            await self._log.reach(acknowledged[-1].offset)
            _log.info("catalog.assigned_anew items=%d tokenizer_version=%d", len(unknown), catalog.tokenizer.version)

    async def _write(self, records: Sequence[CatalogRecord]) -> list[Acknowledged]:
        now_ms = self._clock.now_ms()
        for record in records:
            record.updated_at.FromMilliseconds(now_ms)
        sent = await asyncio.to_thread(
            lambda: [
                send_record(
                    self._producer,
                    CATALOG,
                    record.SerializeToString(),
                    key=record.item.item_id.encode(),
                    partition=0,
                    timestamp_ms=now_ms,
                )
                for record in records
            ]
        )
        return list(await asyncio.gather(*map(asyncio.wrap_future, sent)))

    async def _applied_everywhere(self, offset: int, until_s: float) -> bool:
        """Whether every live lease passed `offset` in time; no live scorer is no obstacle."""
        while True:
            connection = await self._session.connection()
            with named_errors():
                cursor = await connection.execute(
                    b"select count(*) from scorer_lease where expires_at > now() and catalog_offset < %s", (offset,)
                )
                row = await cursor.fetchone()
            if row is not None and row[0] == 0:
                return True
            if time.monotonic() + POLL_S >= until_s:
                return False
            await asyncio.sleep(POLL_S)


def _nothing_kept(judged: Sequence[Judged]) -> str:
    if not judged:
        return "found no changes, expected at least one"
    first = judged[0]
    assert first.fault is not None
    return f"none of {len(judged)} changes was kept; changes[0] {first.fault.field}: {first.fault.reason}"
