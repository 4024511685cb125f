"""Feast's offline store over the archive: `get_historical_features` gives what serving would have seen.

Feast finds it by `offline_store: {type: feature_repo.archive_store.ArchiveOfflineStore}` when the repository root is
importable. There are no tables of past features: each row asked for is the state of its entity at its moment, folded
from the archived log (feature_repo/point_in_time.py), as ordinary values.

What the folds must know of items comes from a published model, and this room may not import models. So the
configuration names the function that gives it, `context: models.serving_context:serving_context`, as it names every
other class that Feast brings together; it is looked up when features are asked for, not before.

States come from the log alone: nothing is pulled from tables into the online store, and nothing is written here.
"""

from collections.abc import Callable, Iterator, Sequence
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.type_map import feast_value_type_to_pa
from numpy.typing import NDArray
from pydantic import Field, StrictStr

from core.archive import ArchivedRecord, read_archive, topic_ids
from core.errors import ContractError, InputError
from core.settings import Settings, load
from feature_repo import values
from feature_repo.folds.context import FoldContext
from feature_repo.layouts import USER
from feature_repo.point_in_time import Asked, rows_at
from feature_repo.schema import USER_FEATURES
from feature_repo.values import View

_USER_PARTS = dict(zip((view.name for view in values.USER_VIEWS), USER.names or (), strict=True))


class ArchiveOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` section of feature_store.yaml."""

    type: Literal["feature_repo.archive_store.ArchiveOfflineStore"] = "feature_repo.archive_store.ArchiveOfflineStore"
    context: StrictStr  # "package.module:function" of a function Settings -> FoldContext
    topic_id: StrictStr | None = None  # which topic, where the archive holds several; None = the only one
    settings: Settings = Field(default_factory=load)  # archive.home, kafka.activity_partitions, ...: the process's own


class ArchiveOfflineStore(OfflineStore):
    """Feast's OfflineStore over the archived log; reads it once for each `to_df` or `to_arrow`."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """The rows of `entity_df`, in order, each with the features of its entities as of its event timestamp.

        An entity of which the log had told nothing by then has nulls. Timestamps are platform time; one without a
        zone is UTC.

        Raises:
            InputError: entity_df is no dataframe, or lacks a key or a time, or has a column named like a feature.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise InputError(
                f"entity_df: found {type(entity_df).__name__}, expected a pandas DataFrame with the entities' keys and "
                "event_timestamp; run a query first and hand over its rows"
            )
        time_column = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        wanted = _wanted(feature_views, feature_refs, full_feature_names)
        keys = sorted({feature.key_column for feature in wanted})
        for column in (time_column, *keys):
            if column not in entity_df or entity_df[column].isna().any():
                raise InputError(f"entity_df: found rows without {column}, expected a value in each; fill or drop them")
        taken = sorted({feature.column for feature in wanted} & set(entity_df))
        if taken:
            raise InputError(
                f"entity_df: found columns {', '.join(taken)}, expected none named like a feature; rename them, or ask "
                "with full_feature_names=True"
            )
        times = pd.to_datetime(entity_df[time_column], utc=True)
        return ArchiveRetrievalJob(
            lambda: _table(config.offline_store, entity_df, times, wanted),
            full_feature_names,
            RetrievalMetadata(feature_refs, keys, times.min(), times.max()),
        )

    @staticmethod
    def pull_latest_from_table_or_query(*_: Any, **__: Any) -> RetrievalJob:
        """Refused: this is what `feast materialize` would copy over the states of the stream."""
        _refuse()

    @staticmethod
    def pull_all_from_table_or_query(*_: Any, **__: Any) -> RetrievalJob:
        """Refused: there are no tables to pull from."""
        _refuse()

    @staticmethod
    def offline_write_batch(*_: Any, **__: Any) -> None:
        """Refused: features are never pushed into the log."""
        _refuse()

    @staticmethod
    def write_logged_features(*_: Any, **__: Any) -> None:
        """Refused: what was served can be had again from the log."""
        _refuse()

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Nothing to check: views name a source only for its time column."""


class ArchiveRetrievalJob(RetrievalJob):
    """A request for historical features, answered when its result is asked for."""

    def __init__(self, evaluate: Callable[[], pa.Table], full_feature_names: bool, metadata: RetrievalMetadata) -> None:
        self._evaluate = evaluate
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """The rows as a dataframe. Numbers stay whole where some are missing: keys of items and cells have 63 bits."""
        return self.to_arrow(validation_reference, timeout).to_pandas(integer_object_nulls=True)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas(integer_object_nulls=True)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._evaluate()

    def persist(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: see `to_df`."""
        _refuse()


class _Wanted(NamedTuple):
    """One feature of the answer."""

    column: str  # its name there
    view: View
    name: str  # within the view
    key_column: str  # of entity_df
    type: pa.DataType


def _wanted(feature_views: Sequence[FeatureView], refs: Sequence[str], full_names: bool) -> list[_Wanted]:
    by_name = {str(view.projection.name_to_use()): view for view in feature_views}  # type: ignore[no-untyped-call]
    wanted = []
    for ref in refs:
        view_name, _, name = ref.partition(":")
        table = by_name[view_name]
        view = values.VIEWS.get(table.name)
        field = next((field for field in table.features if field.name == name), None)
        if view is None or field is None or name not in view.fields:
            known = ", ".join(values.VIEWS)
            raise ContractError(
                f"found {ref}, expected a feature of {known}; run `nearfeed features apply` if the registry is older"
            )
        (key,) = table.join_keys
        column = f"{view_name}__{name}" if full_names else name
        kind = feast_value_type_to_pa(field.dtype.to_value_type())
        wanted.append(_Wanted(column, view, name, table.projection.join_key_map.get(key, key), kind))
    return wanted


def _table(
    config: ArchiveOfflineStoreConfig, entity_df: pd.DataFrame, times: "pd.Series[Any]", wanted: Sequence[_Wanted]
) -> pa.Table:
    """The answer: the columns of entity_df, then a column for each feature."""
    at_ms = times.dt.as_unit("ms").astype("int64").tolist()
    asked = {
        (table, column): [Asked(table, str(key), at) for key, at in zip(entity_df[column], at_ms, strict=True)]
        for table, column in {(_table_of(feature.view), feature.key_column) for feature in wanted}
    }
    context: FoldContext = resolve_name(config.context)(config.settings)
    found = rows_at({one for column in asked.values() for one in column}, _log(config), _partitions(config), context)
    columns: dict[tuple[str, str], list[dict[str, Any]]] = {}
    answer = pa.Table.from_pandas(entity_df, preserve_index=False)
    for feature in wanted:
        key = (feature.view.name, feature.key_column)
        if key not in columns:
            rows = (found[one] for one in asked[_table_of(feature.view), feature.key_column])
            columns[key] = [_values(feature.view, row) for row in rows]
        answer = answer.append_column(
            feature.column, pa.array([row.get(feature.name) for row in columns[key]], feature.type)
        )
    return answer


def _table_of(view: View) -> str:
    return USER_FEATURES if view.name in _USER_PARTS else view.name


def _values(view: View, row: NDArray[np.void]) -> dict[str, Any]:
    """What a row (1,) shows of a view; empty where nothing was ever folded into it."""
    part = row[_USER_PARTS[view.name]] if view.name in _USER_PARTS else row
    stored = part.tobytes()
    return values.decode(view, stored) if values.updated_ms(view, stored) else {}


def _log(config: ArchiveOfflineStoreConfig) -> Callable[[int], Iterator[ArchivedRecord]]:
    """Reads the archived partitions.

    Raises:
        InputError: nothing is archived, or several topics are and none is named.
    """
    home = config.settings.archive.home
    known = topic_ids(home)
    if config.topic_id not in (known if config.topic_id or len(known) != 1 else (None,)):
        raise InputError(
            f"{home}: found {', '.join(known) or 'no topic'}, expected "
            f"{config.topic_id or 'one topic, or topic_id in the offline_store of feature_store.yaml'}; "
            "`nearfeed archive` keeps the log there"
        )
    topic_id = config.topic_id or known[0]
    return lambda partition: read_archive(home, topic_id, partition=partition)


def _partitions(config: ArchiveOfflineStoreConfig) -> int:
    return config.settings.kafka.activity_partitions


def _refuse() -> NoReturn:
    raise ContractError(
        "found a request to move tables of features (materialize, push, a saved dataset), expected none: states come "
        "from the log alone; `nearfeed replay` rebuilds them, get_historical_features(...).to_df() gives past ones"
    )
