"""Laws of the catalogue lease, with a PostgreSQL and a log that do as they are told."""

import asyncio
import time
from typing import Any

import pytest

from core.errors import LeaseExpired, NotReady, StoreUnavailable
from grpc_api.lease import CatalogLease


class Log:
    """A catalogue log: `offset` is applied, `last` is the newest there is."""

    def __init__(self) -> None:
        self.offset = 5
        self.last = 5

    async def end(self) -> int:
        return self.last

    async def reach(self, offset: int) -> None:
        while self.offset < offset:
            await asyncio.sleep(0.005)


class Session:
    """Remembers the offset of every row written."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.down = False

    async def connection(self) -> Any:
        if self.down:
            raise StoreUnavailable("PostgreSQL did not answer")
        return self

    async def execute(self, statement: bytes, values: tuple[Any, ...] = ()) -> None:
        if statement.strip().startswith(b"insert"):
            self.rows.append(values[1])

    async def close(self) -> None:
        pass


def lease_on(session: Session, log: Log, lease_s: float = 0.3) -> CatalogLease:
    return CatalogLease(session, "scorer", lease_s=lease_s, log=log, model_version=lambda: 1)  # type: ignore[arg-type]


async def test_without_a_lease_nothing_is_answered() -> None:
    lease = lease_on(Session(), Log())
    with pytest.raises(LeaseExpired):
        lease.check()
    await lease.acquire(1.0)
    lease.check()


async def test_a_lease_runs_out_by_itself() -> None:
    lease = lease_on(Session(), Log(), lease_s=0.05)
    await lease.acquire(1.0)
    time.sleep(0.06)
    with pytest.raises(LeaseExpired):
        lease.check()


async def test_the_row_says_what_is_applied_and_so_cannot_promise_more() -> None:
    session, log = Session(), Log()
    lease = lease_on(session, log)
    await lease.acquire(1.0)
    log.offset = 6
    await lease.renew()
    assert session.rows == [5, 6]


async def test_a_lease_is_held_only_after_what_the_log_held_is_applied() -> None:
    session, log = Session(), Log()
    log.last = 9
    lease = lease_on(session, log)
    await lease.renew()
    with pytest.raises(LeaseExpired):
        lease.check()
    log.offset = 9
    await lease.renew()
    lease.check()


async def test_whoever_was_cut_off_must_catch_up_before_answering_again() -> None:
    session, log = Session(), Log()
    lease = lease_on(session, log, lease_s=0.05)
    await lease.acquire(1.0)
    await asyncio.sleep(0.06)
    log.last = 7  # removed meanwhile, and nobody waited for us
    await lease.renew()
    with pytest.raises(LeaseExpired):
        lease.check()
    log.offset = 7
    await lease.renew()
    lease.check()


async def test_while_the_lease_runs_new_records_do_not_stop_the_answers() -> None:
    session, log = Session(), Log()
    lease = lease_on(session, log)
    await lease.acquire(1.0)
    log.last = 100  # the writer waits for us; we still answer from what we know
    await lease.renew()
    lease.check()


async def test_keeping_renews_in_time_and_at_once_when_the_catalogue_moves() -> None:
    session, log = Session(), Log()
    lease = lease_on(session, log, lease_s=0.3)
    await lease.acquire(1.0)
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(0.5)
    lease.check()
    log.offset = log.last = 6
    await asyncio.sleep(0.05)
    assert session.rows[-1] == 6
    keeping.cancel()


async def test_a_store_that_returns_gives_the_lease_back() -> None:
    session, log = Session(), Log()
    lease = lease_on(session, log, lease_s=0.1)
    await lease.acquire(1.0)
    keeping = asyncio.create_task(lease.keep())
    session.down = True
    await asyncio.sleep(0.2)
    with pytest.raises(LeaseExpired):
        lease.check()
    session.down = False
    await asyncio.sleep(0.1)
    lease.check()
    keeping.cancel()


async def test_a_log_that_cannot_be_caught_up_with_is_said() -> None:
    log = Log()
    log.last = 9
    with pytest.raises(NotReady, match="applied up to 5, expected 9"):
        await lease_on(Session(), log).acquire(0.1)


async def test_after_a_release_nothing_is_answered() -> None:
    lease = lease_on(Session(), Log())
    await lease.acquire(1.0)
    await lease.release()
    with pytest.raises(LeaseExpired):
        lease.check()
