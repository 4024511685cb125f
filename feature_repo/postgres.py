"""Connections to PostgreSQL: one way to open them, and one name for its absence."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from core.errors import ContractError, StoreUnavailable
from core.settings import Postgres


def conninfo(settings: Postgres, application: str) -> str:
    """A libpq connection string with both timeouts; `application` is the name that pg_stat_activity shows."""
    given = conninfo_to_dict(settings.dsn.get_secret_value())
    options = f"{given.get('options') or ''} -c statement_timeout={settings.statement_timeout_ms}"
    return make_conninfo(
        "",
        **{**given, "options": options.strip()},
        connect_timeout=settings.connect_timeout_s,
        application_name=application,
    )


# A transaction that took too long ends by errors that psycopg counts among its own internal ones.
_TOO_LATE: Final = (
    psycopg.OperationalError,
    psycopg.errors.TransactionTimeout,
    psycopg.errors.IdleInTransactionSessionTimeout,
)


@contextmanager
def named_errors() -> Iterator[None]:
    """Turns what psycopg raises inside into this project's errors.

    Raises:
        StoreUnavailable: no connection, or no answer within the timeout of a statement or a transaction.
        ContractError: a table is missing or has other columns.
    """
    try:
        yield
    except _TOO_LATE as error:
        raise StoreUnavailable(
            f"PostgreSQL: {_first_line(error)}; expected an answer in time, check that it runs and postgres.dsn"
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise ContractError(f"PostgreSQL: {_first_line(error)}; run `nearfeed features apply`") from error


def text_array(values: Iterable[str]) -> str:
    """The values as PostgreSQL writes a text[]: many times cheaper than psycopg's way through every element."""
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return "{" + ",".join(quoted) + "}"


def int_array(values: NDArray[np.integer[Any]]) -> str:
    """The values as PostgreSQL writes an array of integers."""
    return "{" + ",".join(map(str, values.tolist())) + "}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
