"""Leases: how a removal becomes certain.

A scorer says in PostgreSQL which catalog.v1 offset it has applied, and until when it may answer without
saying so again. The writer of the catalogue calls a change known everywhere when every live lease has
passed its offset. A scorer whose lease ran out stops answering by itself, so one that sleeps, or is cut
off, cannot show what was removed meanwhile; it answers again once it holds a lease and has applied
whatever the log held at that moment.

The scorer's own judgement starts its time before the row is written, so it ends before the writer's.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

import psycopg

from core.errors import LeaseExpired, NearfeedError, NotReady
from core.settings import Postgres
from feature_repo.postgres import conninfo, named_errors

RENEWALS: Final = 3  # tries within one lease

_RENEW: Final = b"""
insert into scorer_lease (scorer_id, catalog_offset, model_version, expires_at)
values (%s, %s, %s, now() + make_interval(secs => %s))
on conflict (scorer_id) do update set catalog_offset = excluded.catalog_offset,
    model_version = excluded.model_version, expires_at = excluded.expires_at"""

_log = logging.getLogger(__name__)


class Session:
    """One PostgreSQL connection of its own, opened when needed and again when lost."""

    def __init__(self, postgres: Postgres, application: str) -> None:
        self._conninfo = conninfo(postgres, application)
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def connection(self) -> psycopg.AsyncConnection[Any]:
        """The connection, in autocommit; another one after it was lost. Raises StoreUnavailable."""
        if self._connection is None or self._connection.closed:
            with named_errors():
                self._connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        return self._connection

    async def close(self) -> None:
        """Whatever the session held is let go."""
        if self._connection is not None:
            await self._connection.close()


class Followed(Protocol):
    """How far this process follows catalog.v1 (`CatalogLog`)."""

    @property
    def offset(self) -> int:
        """Of the last record applied; -1 = none."""
        ...

    async def end(self) -> int:
        """Of the last record there is now; raises BrokerUnavailable."""
        ...

    async def reach(self, offset: int) -> None:
        """Return when everything up to `offset` is applied."""
        ...


class CatalogLease:
    """One scorer's lease on the catalogue."""

    def __init__(
        self,
        session: Session,
        scorer_id: str,
        *,
        lease_s: float,
        log: Followed,
        model_version: Callable[[], int],
    ) -> None:
        self._session = session
        self._scorer_id = scorer_id
        self._lease_s = lease_s
        self._log = log
        self._model_version = model_version
        self._held_until_s = -1.0
        self._must_reach: int | None = None

    @property
    def offset(self) -> int:
        """The catalog.v1 offset applied; -1 = none."""
        return self._log.offset

    def check(self) -> None:
        """Raise LeaseExpired unless this process is sure to know the newest acknowledged catalogue."""
        if time.monotonic() >= self._held_until_s:
            raise LeaseExpired(
                f"the catalogue lease of {self._lease_s:.1f} s ran out and could not be renewed; ask another scorer"
            )

    async def acquire(self, timeout_s: float) -> None:
        """The lease is held and the catalogue is as new as the log was.

        Raises:
            NearfeedError: why it could not be had within `timeout_s`.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            await self.renew()
            with suppress(LeaseExpired):
                return self.check()
            if time.monotonic() >= until_s:
                raise NotReady(
                    f"catalog.v1 is applied up to {self._log.offset}, expected {self._must_reach} "
                    f"within {timeout_s:.0f} s; look whether the broker keeps up"
                )
            await asyncio.sleep(0.02)

    async def renew(self) -> None:
        """Write the row; answering is allowed from then on if everything known to be missed is applied.

        Raises:
            StoreUnavailable, BrokerUnavailable: the lease runs on, or out, as it was.
        """
        started_s = time.monotonic()
        if started_s >= self._held_until_s:  # nobody waited for us meanwhile: find out what we missed
            self._must_reach = None
        offset = self._log.offset
        connection = await self._session.connection()
        with named_errors():
            await connection.execute(_RENEW, (self._scorer_id, offset, self._model_version(), self._lease_s))
        if self._must_reach is None:  # asked after the row stands: later changes wait for it
            self._must_reach = await self._log.end()
        if self._log.offset >= self._must_reach:
            self._held_until_s = started_s + self._lease_s

    async def keep(self) -> None:
        """Renew until cancelled: in time, and at once when the catalogue moved."""
        said = self._log.offset
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / RENEWALS):
                    await self._log.reach(said + 1)
            said = self._log.offset
            try:
                async with asyncio.timeout(self._lease_s / RENEWALS):
                    await self.renew()
            except (NearfeedError, TimeoutError) as error:
                _log.warning("lease.not_renewed error=%r", error)
                await asyncio.sleep(self._lease_s / RENEWALS / 4)

    async def release(self) -> None:
        """Nobody waits for this scorer any more; it does not answer any more."""
        self._held_until_s = -1.0
        with suppress(NearfeedError):
            connection = await self._session.connection()
            with named_errors():
                await connection.execute(b"delete from scorer_lease where scorer_id = %s", (self._scorer_id,))
                await connection.execute(b"delete from scorer_lease where expires_at < now() - interval '1 hour'")
        await self._session.close()
