"""What PostgreSQL does not answer in time has one name, whichever of its clocks ended it."""

import psycopg
import pytest

from core.errors import StoreUnavailable
from core.settings import Settings
from feature_repo.postgres import named_errors

pytestmark = pytest.mark.live


@pytest.mark.parametrize("clock", ["statement_timeout", "transaction_timeout", "lock_timeout"])
def test_an_answer_that_comes_too_late_is_a_store_that_is_not_there(platform_settings: Settings, clock: str) -> None:
    dsn = platform_settings.postgres.dsn.get_secret_value()
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn) as late:
        holder.execute("select pg_advisory_xact_lock(7)")
        late.execute(f"set {clock} = 200".encode())
        late.commit()
        with pytest.raises(StoreUnavailable, match="timeout"), named_errors():
            late.execute("select pg_advisory_xact_lock(7)")
