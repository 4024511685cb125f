"""From one published version to the next, while requests keep coming.

The next version is loaded, verified against its golden batch and warmed up in a thread, brought up to
what catalog.v1 says, and put in place between two batches. A version that fails to load changes
nothing: what serves goes on serving, and the failure is counted and logged.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import numpy as np

from core.errors import NearfeedError
from core.telemetry import MODEL_SWAPS, MODEL_VERSION
from feature_repo.layouts import USER, UserRows, user_rows
from grpc_api.catalog_log import CatalogLog, bring_up_to_date
from grpc_api.serving import Host, Serving
from models.artefact import load_artefact
from models.contexts import context_batch
from models.registry import current
from protos.catalog.v1.catalog_pb2 import CatalogRecord

RETRY_S: Final = 30.0  # until a version that failed to load is tried again

_log = logging.getLogger(__name__)


def load_serving(home: Path, version: int | None, *, threads: int, max_batch_size: int) -> Serving:
    """A version that has answered its golden batch and batches of every size it will meet.

    Args:
        version: a number, or what `models.registry.current` says.

    Raises:
        ArtefactError: it, or any, is missing, damaged, or answers differently.
    """
    artefact = load_artefact(home, version, threads)
    for size in range(1, max_batch_size + 1):  # the first run of a shape allocates what later ones reuse
        nobody = _nobody(size)
        artefact.generator.generate(context_batch(nobody, artefact.catalog, 0), artefact.catalog.trie)
    return Serving(artefact.manifest, artefact.catalog, artefact.generator)


def _nobody(size: int) -> UserRows:
    """Rows of users of whom nothing is known, (size,) each."""
    return user_rows(np.zeros(size, USER), np.zeros(size, bool))


class ModelWatch:
    """Follows the registry's current version."""

    def __init__(
        self,
        host: Host,
        log: CatalogLog,
        between_batches: Callable[[], AbstractAsyncContextManager[None]],
        load: Callable[[int], Serving],
        home: Path,
        poll_ms: int,
    ) -> None:
        """
        Args:
            load: gives a version ready to serve, or raises a NearfeedError; runs in a thread.
        """
        self._host = host
        self._log = log
        self._between_batches = between_batches
        self._load = load
        self._home = home
        self._poll_s = poll_ms / 1000.0
        self._failed = 0
        self._failed_at_s = 0.0

    async def follow(self) -> None:
        """Swap whenever the current version changes, to a newer one or back; until cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                version = await asyncio.to_thread(current, self._home)
            except (NearfeedError, OSError) as error:
                _log.warning("model.registry_unreadable error=%s", error)
                continue
            if version is not None and version != self._host.serving.manifest.model_version and self._may_try(version):
                await self.swap(version)

    async def swap(self, version: int) -> bool:
        """Serve `version`, or go on with what serves; whether it was done."""
        started_s = time.monotonic()
        _log.info("model.swap.started version=%d", version)
        applied = self._log.offset
        records = self._log.latest()
        try:
            serving = await asyncio.to_thread(self._prepare, version, records)
        except Exception as error:
            self._failed, self._failed_at_s = version, time.monotonic()
            MODEL_SWAPS.labels("failed").inc()
            _log.error("model.swap.failed version=%d error=%s", version, error, exc_info=_unexpected(error))
            return False
        async with self._between_batches():
            bring_up_to_date(serving.catalog, self._log.latest(after=applied))
            self._host.swap(serving)
        MODEL_SWAPS.labels("done").inc()
        MODEL_VERSION.set(version)
        _log.info("model.swap.complete version=%d took_ms=%.0f", version, 1000.0 * (time.monotonic() - started_s))
        return True

    def _may_try(self, version: int) -> bool:
        return version != self._failed or time.monotonic() - self._failed_at_s >= RETRY_S

    def _prepare(self, version: int, records: Sequence[CatalogRecord]) -> Serving:
        serving = self._load(version)
        bring_up_to_date(serving.catalog, records)
        return serving


def _unexpected(error: Exception) -> bool:
    return not isinstance(error, NearfeedError)
