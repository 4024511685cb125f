"""What folds know beside the log while the current version serves: for whoever folds without being told of swaps."""

from core.settings import Settings
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from models.catalog_files import load_catalog
from models.registry import current, folder_of, load_manifest


def serving_context(settings: Settings) -> FoldContext:
    """The context of the version that serves now; without items while nothing is published.

    Raises:
        ArtefactError: there is a version and it cannot be read.
    """
    home, streams = settings.registry.home, settings.streams
    context = FoldContext(NoItems(), 0, streams.horizon_s * 1000, streams.location_resolution)
    version = current(home)
    if version is None:
        return context
    tokenizer = load_manifest(home, version).tokenizer_version
    return context._replace(items=load_catalog(folder_of(home, version)), tokenizer_version=tokenizer)
