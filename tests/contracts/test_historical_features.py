"""Historical features are what serving saw: the offline store against the online one, over one log."""

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
import yaml
from feast import FeatureStore
from feast.repo_config import RepoConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from core.archive import ArchivedRecord, write_segment
from core.clock import as_datetime
from core.errors import ContractError, InputError
from core.frames import encode_frame
from core.settings import Archive, Kafka, Registry, Settings
from feature_repo import point_in_time, values
from feature_repo.apply import CONFIG_FILE, apply_features, feature_store
from feature_repo.folds.entries import Columns, LogEntry, columns
from feature_repo.folds.popularity import cell_key
from feature_repo.layouts import GLOBAL_CELL
from feature_repo.point_in_time import Asked, rows_at
from feature_repo.schema import USER_FEATURES
from feature_repo.services import generator_v1
from feature_repo.sums import CELL_SUMS, ITEM_SUMS, SUMS
from feature_repo.views import entities, views
from models.dataset import folded_samples
from models.serving_context import serving_context
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction
from streams.postgres_state import PostgresStateStore
from streams.state_store import MemoryStateStore
from tests.contracts.world import (
    CONTEXT,
    ITEMS,
    NO_FRAME,
    PARTITIONS,
    PLACES,
    START_MS,
    STEP_MS,
    TOPIC_ID,
    USERS,
    a_log,
    stream,
)

LOG: Final = a_log(11, 90, swaps=False)
MOMENTS: Final = (START_MS - 1, *(LOG[place].timestamp_ms for place in (0, 20, 50, 70)), LOG[-1].timestamp_ms)
CELLS: Final = (GLOBAL_CELL, cell_key(*PLACES[0], CONTEXT.location_resolution), "no such cell")
PEOPLE: Final = (*USERS, "nobody")
THINGS: Final = (*ITEMS, "nothing")
FEATURES: Final = [f"{view.name}:{name}" for view in values.VIEWS.values() for name in view.fields]


def world_context(_: Settings) -> Any:
    """What feature_store.yaml would name; here the world's own items."""
    return CONTEXT


def archived(home: Path, log: Sequence[ArchivedRecord], topic_id: str = TOPIC_ID) -> Settings:
    """Settings whose archive holds the log, in segments of a few records."""
    for partition in range(PARTITIONS):
        mine = [record for record in log if record.partition == partition]
        for first in range(0, len(mine), 16):
            write_segment(home / "archive", topic_id, mine[first : first + 16])
    return Settings(archive=Archive(home=home / "archive"), kafka=Kafka(activity_partitions=PARTITIONS))


def offline(settings: Settings, home: Path, **more: Any) -> FeatureStore:
    """Feast with a registry of its own over the settings' archive."""
    store = FeatureStore(
        config=RepoConfig(
            project="past",
            provider="local",
            registry=str(home / "registry.db"),
            online_store={"type": "sqlite", "path": str(home / "online.db")},
            offline_store={
                "type": "feature_repo.archive_store.ArchiveOfflineStore",
                "context": f"{__name__}:world_context",
                "settings": settings,
                **more,
            },
            entity_key_serialization_version=3,
            repo_path=home,
        )
    )
    store.apply([*entities, *views, generator_v1])
    return store


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    home = tmp_path_factory.mktemp("past")
    return offline(archived(home, LOG), home)


def entity_rows(moments: Sequence[int] = MOMENTS) -> pd.DataFrame:
    """Every user at every moment, with some cell and some item each."""
    rows = [(user, at_ms) for at_ms in moments for user in PEOPLE]
    return pd.DataFrame(
        {
            "user_id": [user for user, _ in rows],
            "cell_id": [CELLS[place % len(CELLS)] for place in range(len(rows))],
            "item_id": [THINGS[place % len(THINGS)] for place in range(len(rows))],
            "event_timestamp": [as_datetime(at_ms) for _, at_ms in rows],
            "label": range(len(rows)),
        }
    )


def plain(value: Any) -> Any:
    """A dataframe's value as Feast gives it online."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None or value != value else value


@pytest.mark.live
def test_every_feature_is_what_serving_saw_at_that_moment(platform_settings: Settings, tmp_path: Path) -> None:
    settings = archived(tmp_path, LOG)
    apply_features(platform_settings)
    asked = entity_rows()
    states = PostgresStateStore(platform_settings.postgres, "contracts", connections=1)
    states.open()
    served: dict[str, list[Any]] = {name.partition(":")[2]: [] for name in FEATURES}
    place = 0
    with feature_store(platform_settings) as online:
        for at_ms in MOMENTS:
            now = [record for record in LOG[place:] if record.timestamp_ms <= at_ms]
            stream(now, states)
            place += len(now)
            of_moment = asked[asked["event_timestamp"] == as_datetime(at_ms)]
            keys = of_moment[["user_id", "cell_id", "item_id"]].to_dict("records")
            answer = online.get_online_features(features=FEATURES, entity_rows=keys).to_dict()
            for name, column in served.items():
                column += answer[name]
    states.close()
    past = offline(settings, tmp_path).get_historical_features(asked, FEATURES).to_df()
    assert {name: [plain(value) for value in past[name]] for name in served} == served
    assert past["label"].tolist() == asked["label"].tolist()
    assert sum(value is not None for value in served["popular_item"]) > 10
    assert sum(value is not None for value in served["shown"]) > 10


def prefix(log: Sequence[ArchivedRecord], at_ms: int) -> list[ArchivedRecord]:
    """What the log had reached: of each partition all records before the first that was stamped later."""
    ended: set[int] = set()
    reached = []
    for record in log:
        if record.timestamp_ms > at_ms and record.value != NO_FRAME:
            ended.add(record.partition)
        if record.partition not in ended:
            reached.append(record)
    return reached


def everything(at_ms: int) -> list[Asked]:
    return [
        *(Asked(USER_FEATURES, user, at_ms) for user in PEOPLE),
        *(Asked(CELL_SUMS.table, cell, at_ms) for cell in CELLS),
        *(Asked(ITEM_SUMS.table, item, at_ms) for item in THINGS),
    ]


def stored(one: Asked, store: MemoryStateStore) -> bytes:
    """What the store in memory holds of one thing."""
    if one.table == USER_FEATURES:
        return store.features.load_users(None, [one.key]).tobytes()
    (sums,) = (sums for sums in SUMS if sums.table == one.table)
    partials = [store.features.load_sums(None, sums, partition, [one.key]) for partition in range(PARTITIONS)]
    return sums.merged(
        np.concatenate([row for row in partials if row["updated_ms"][0]] or [np.zeros(0, sums.row)])
    ).tobytes()


def folded(log: Sequence[ArchivedRecord], asked: Sequence[Asked]) -> dict[Asked, bytes]:
    found = rows_at(asked, lambda partition: (one for one in log if one.partition == partition), PARTITIONS, CONTEXT)
    return {one: found[one].tobytes() for one in asked}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    moments=st.lists(st.tuples(st.integers(0, 39), st.sampled_from((-1, 0, 1, STEP_MS))), min_size=1, max_size=4),
)
def test_states_are_those_of_the_log_up_to_the_moment_and_no_further(seed: int, moments: list[tuple[int, int]]) -> None:
    log = a_log(seed, 40)
    asked = [one for place, later_ms in moments for one in everything(log[place].timestamp_ms + later_ms)]
    found = folded(log, asked)
    for at_ms in {one.at_ms for one in asked}:
        store = MemoryStateStore()
        stream(prefix(log, at_ms), store)
        for one in everything(at_ms):
            assert found[one] == stored(one, store), one


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000), offset_ms=st.integers(0, 40 * STEP_MS))
def test_what_comes_after_the_moment_changes_nothing(seed: int, other: int, offset_ms: int) -> None:
    log, at_ms = a_log(seed, 40), START_MS + offset_ms
    reached = prefix(log, at_ms)
    offsets = [sum(record.partition == partition for record in reached) for partition in range(PARTITIONS)]
    after = [ArchivedRecord(number, offset, at_ms + 1, encode_frame(())) for number, offset in enumerate(offsets)]
    after += [
        record._replace(offset=offsets[record.partition] + 1 + record.offset)
        for record in a_log(other, 20)  # stamped before the moment or behind it
    ]
    asked = everything(at_ms)
    assert folded([*reached, *after], asked) == folded(reached, asked) == folded(log, asked)


def test_of_users_alone_only_their_own_entries_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def watched(entries: Sequence[LogEntry], *rest: Any) -> Columns:
        seen.update(entry.user_id for entry in entries)
        return columns(entries, *rest)

    monkeypatch.setattr(point_in_time, "columns", watched)
    folded(LOG, [Asked(USER_FEATURES, USERS[0], MOMENTS[-1])])
    assert seen == {USERS[0]}


def test_a_log_that_ends_before_the_moment_is_told(caplog: pytest.LogCaptureFixture) -> None:
    folded(LOG, [Asked(USER_FEATURES, USERS[0], MOMENTS[-1] + STEP_MS)])
    assert [record.message.split()[0] for record in caplog.records] == ["log.ends"]


def test_training_learns_from_historical_features() -> None:
    """models/dataset.py takes a user's rows as they stood before an exposure: what the offline store gives then."""
    rng = np.random.default_rng(5)
    acts, log = [], []
    for number in range(300):
        at_ms = START_MS + number * STEP_MS
        act = Interaction(event_id=str(number), user_id=f"user {rng.integers(5)}", item_id=str(rng.choice(ITEMS)))
        act.action = Action.ACTION_LIKE if rng.random() < 0.2 else Action.ACTION_PLAY
        act.play_ms = int(rng.integers(60_000))
        act.occurred_at.FromMilliseconds(at_ms)
        acts.append(act)
        log.append(ArchivedRecord(0, number, at_ms, encode_frame([Activity(interaction=act)])))
    samples = folded_samples(acts, CONTEXT)
    asked = [
        Asked(USER_FEATURES, user, int(at_ms) - 1) for user, at_ms in zip(samples.users, samples.at_ms, strict=True)
    ]
    found = rows_at(asked, lambda _: log, 1, CONTEXT)
    rows = np.concatenate([found[one] for one in asked])
    assert len(rows) > 50
    for part in ("interests", "history", "watch", "places"):
        learned, past = getattr(samples.rows, part).copy(), rows[part].copy()
        if part == "history":
            learned["log_offset"] = past["log_offset"] = 0  # training counts a user's records, not the log's
        assert learned.tobytes() == past.tobytes()


def test_features_of_a_service_come_under_full_names_too(feast: FeatureStore) -> None:
    asked = entity_rows(MOMENTS[-1:])
    service = feast.get_feature_service("generator_v1")
    short, full = (feast.get_historical_features(asked, service, full_feature_names=full) for full in (False, True))
    names = [f"{view.name}__{feature.name}" for view in service.feature_view_projections for feature in view.features]
    assert full.to_df().columns.tolist() == [*asked.columns, *names]
    assert short.to_arrow().rename_columns(full.to_arrow().column_names) == full.to_arrow()
    assert full.metadata.keys == ["cell_id", "user_id"]


def test_numbers_stay_whole_and_times_keep_their_zone(feast: FeatureStore) -> None:
    asked = entity_rows(MOMENTS[-1:])
    asked["event_timestamp"] = asked["event_timestamp"].dt.tz_convert("Asia/Shanghai")
    past = feast.get_historical_features(asked, ["user_places:last_cell", "user_history:item"]).to_df()
    assert past["event_timestamp"].tolist() == asked["event_timestamp"].tolist()
    cells = [cell for cell in past["last_cell"] if cell is not None]
    assert 0 < len(cells) < len(past)
    assert all(isinstance(cell, int) and cell >> 59 == 1 for cell in cells), "an H3 index has 60 bits"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: "select user_id from people", "found str, expected a pandas DataFrame"),
        (lambda rows: rows.drop(columns="user_id"), "found rows without user_id"),
        (lambda rows: rows.assign(user_id=None), "found rows without user_id"),
        (lambda rows: rows.assign(applied=1), "found columns applied, expected none named like a feature"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(feast: FeatureStore, change: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        feast.get_historical_features(change(entity_rows()), ["user_history:applied"])


def test_an_archive_must_hold_one_topic_or_the_one_named(tmp_path: Path) -> None:
    asked = entity_rows(MOMENTS[-1:])
    empty = offline(Settings(archive=Archive(home=tmp_path / "empty")), tmp_path)
    with pytest.raises(InputError, match="found no topic, expected one topic"):
        empty.get_historical_features(asked, ["user_history:applied"]).to_df()
    settings = archived(tmp_path, LOG)
    archived(tmp_path, LOG[:30], "made before")
    with pytest.raises(InputError, match="found made before, world, expected one topic, or topic_id in"):
        offline(settings, tmp_path).get_historical_features(asked, ["user_history:applied"]).to_df()
    applied = [
        offline(settings, tmp_path, topic_id=topic_id).get_historical_features(asked, ["user_history:applied"]).to_df()
        for topic_id in (TOPIC_ID, "made before")
    ]
    assert applied[0]["applied"].sum() > applied[1]["applied"].sum() > 0


def test_nothing_is_materialized_over_the_states_of_the_stream(feast: FeatureStore) -> None:
    with pytest.raises(ContractError, match="states come from the log alone; `nearfeed replay`"):
        feast.materialize(as_datetime(START_MS), as_datetime(MOMENTS[-1]), ["user_history"])


def test_the_configuration_of_the_platform_names_a_context_that_is_there(tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG_FILE.read_text("utf-8"))["offline_store"]
    assert resolve_name(config["context"]) is serving_context
    context = serving_context(Settings(registry=Registry(home=tmp_path)))
    assert (context.tokenizer_version, context.location_resolution) == (0, Settings().streams.location_resolution)
