"""What folds know of items: the catalogue of the version that serves, taken up when another is published.

The switch happens between two batches, at no fixed place of the log: rows name the tokenizer version of
their vectors, and a replay under one catalogue makes them uniform. An item that is newer than the
version has no vector here yet: acts on it enter the history, and the interests with the next version.
"""

import logging
from pathlib import Path

from core.errors import ArtefactError
from feature_repo.folds.context import FoldContext
from models.catalog_files import load_catalog
from models.registry import current, folder_of, load_manifest

logger = logging.getLogger(__name__)


class PublishedItems:
    """Holds the fold context. `context` may be read from any thread; `refresh` belongs to one."""

    def __init__(self, home: Path, without_items: FoldContext) -> None:
        """The version that serves now, or no items, with a warning, while nothing is published.

        Raises:
            ArtefactError: there is a version and it cannot be read.
        """
        self._home = home
        self._version: int | None = None
        self.context = without_items
        self._take_up(current(home))
        if self._version is None:
            logger.warning("items.none registry=%s: interests wait for a published version", home)

    def refresh(self) -> None:
        """Another version is taken up if one serves now; one that cannot be read leaves the items as they are."""
        try:
            self._take_up(current(self._home))
        except ArtefactError as error:
            logger.warning("items.kept version=%s reason=%s", self._version, error)

    def _take_up(self, version: int | None) -> None:
        if version is None or version == self._version:
            return
        self._version = version  # one attempt for each: what is broken stays broken
        manifest = load_manifest(self._home, version)
        catalog = load_catalog(folder_of(self._home, version))
        self.context = self.context._replace(items=catalog, tokenizer_version=manifest.tokenizer_version)
        logger.info(
            "items.published version=%d tokenizer=%d items=%d", version, manifest.tokenizer_version, len(catalog)
        )
