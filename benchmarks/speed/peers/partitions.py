"""What every peer does with a batch: the driver, the folds and the PostgreSQL store of the stream worker."""

import gc
from collections.abc import Iterable, Sequence
from typing import Final

from core.settings import Settings, load
from core.telemetry import configure_logging
from core.topics import ACTIVITY
from core.topics_admin import topic_states
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.postgres_state import PostgresStateStore
from streams.published import PublishedItems

_COLLECT_AFTER: Final = (50_000, 20, 100)  # as the stream worker sets it


class Partitions:
    """The partitions of this process, each owned from its first batch until it is revoked. For one thread."""

    def __init__(self, settings: Settings) -> None:
        streams = settings.streams
        without_items = FoldContext(NoItems(), 0, streams.horizon_s * 1000, streams.location_resolution)
        self._settings = settings
        self._topic_id = topic_states(settings.kafka)[ACTIVITY].topic_id
        self._items = PublishedItems(settings.registry.home, without_items)
        self._store = PostgresStateStore(settings.postgres, streams.group, connections=2)
        self._store.open()
        self._drivers: dict[int, Driver] = {}

    def apply(self, number: int, records: Sequence[Record]) -> None:
        """The records of partition `number`, offsets ascending, are in the states.

        Raises:
            NearfeedError: they are not; the process must end and begin again where its cursor is.
        """
        driver = self._drivers.get(number)
        if driver is None:
            driver = self._drivers[number] = self._take_over(number)
        settled = driver.apply(records)
        if settled < len(records):
            raise RuntimeError(f"partition {number}: found a hole before offset {records[settled].offset}")

    def revoked(self, numbers: Iterable[int]) -> None:
        """None of these is ours."""
        for number in numbers:
            self._drivers.pop(number, None)

    def _take_over(self, number: int) -> Driver:
        settings = self._settings
        partition = Partition(
            settings.streams.group, ACTIVITY, self._topic_id, number, settings.kafka.activity_partitions
        )
        return Driver(partition, self._store, lambda: self._items.context, cache_users=settings.streams.cache_users)


def prepared() -> tuple[Settings, Partitions]:
    """The settings of this process, and what it brings batches to."""
    gc.set_threshold(*_COLLECT_AFTER)
    settings = load()
    configure_logging(settings.telemetry.log_level, "peer")
    return settings, Partitions(settings)
