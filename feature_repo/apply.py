"""What `nearfeed features apply` does: tables, and the feature definitions in Feast's registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import psycopg
import yaml  # type: ignore[import-untyped]
from feast import FeatureStore
from feast.infra.registry.sql import SqlRegistry
from feast.repo_config import RepoConfig
from sqlalchemy.exc import SQLAlchemyError

from core.errors import StoreUnavailable
from core.settings import Settings
from feature_repo import schema
from feature_repo.postgres import conninfo, named_errors
from feature_repo.services import services
from feature_repo.views import entities, views

CONFIG_FILE: Final = Path(__file__).with_name("feature_store.yaml")
_LOCK: Final = 0x66656173  # "feas": Feast's registry makes its tables without guarding against a second maker


class Applied(NamedTuple):
    """What exists now."""

    tables: tuple[str, ...]
    views: tuple[str, ...]
    services: tuple[str, ...]


def apply_features(settings: Settings) -> Applied:
    """Afterwards every table exists and Feast's registry holds the definitions of this version.

    Idempotent; callers that come at once go one after another.

    Raises:
        StoreUnavailable: PostgreSQL did not answer in time.
    """
    with named_errors(), psycopg.connect(conninfo(settings.postgres, "nearfeed-apply"), autocommit=True) as guard:
        guard.execute("select pg_advisory_lock(%s)", (_LOCK,))
        with guard.transaction():
            schema.create(guard)
        with feature_store(settings) as store:
            store.apply([*entities, *views, *services])
    return Applied(schema.TABLES, tuple(view.name for view in views), tuple(service.name for service in services))


@contextmanager
def feature_store(settings: Settings) -> Iterator[FeatureStore]:
    """Feast over the settings' PostgreSQL and archive: feature_store.yaml with what `settings` say in its place.

    Raises:
        StoreUnavailable: PostgreSQL did not answer in time.
    """
    dsn = settings.postgres.dsn.get_secret_value()
    config: dict[str, Any] = yaml.safe_load(CONFIG_FILE.read_text("utf-8"))
    config["registry"]["path"] = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    config["online_store"]["dsn"] = dsn
    config["offline_store"]["settings"] = settings
    store = FeatureStore(config=RepoConfig(**config, repo_path=CONFIG_FILE.parent))
    with _registry_errors():
        registry = cast(SqlRegistry, store.registry)  # connects
        try:
            yield store
        finally:
            registry.write_engine.dispose()  # Feast leaves it open; without a read_path it is the only one


@contextmanager
def _registry_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        first_line = str(error).partition("\n")[0]
        raise StoreUnavailable(
            f"Feast's registry: {first_line}; expected PostgreSQL there, check postgres.dsn"
        ) from error
