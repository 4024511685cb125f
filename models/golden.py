"""The golden batch: a few requests and their answer, published with a model, so that whoever loads it can tell that
it answers as it did where it was made."""

from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from core.errors import ArtefactError
from models.batches import Beams, ContextBatch

_BEAMS = "beams_"
_CONTEXT = "context_"


class Golden(NamedTuple):
    """What is asked and what must be answered, on the trie of the catalogue as it was published."""

    batch: ContextBatch
    beams: Beams


def save_golden(golden: Golden, path: Path) -> None:
    """`path` holds the golden batch; equal contents give equal bytes."""
    asked = {_CONTEXT + name: array for name, array in golden.batch._asdict().items()}
    answered = {_BEAMS + name: array for name, array in golden.beams._asdict().items()}
    np.savez(path, allow_pickle=False, **asked, **answered)


def load_golden(path: Path) -> Golden:
    """The golden batch that `save_golden` wrote.

    Raises:
        ArtefactError: the file is missing, damaged, or of another shape of context.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            batch = ContextBatch._make(arrays[_CONTEXT + name] for name in ContextBatch._fields)
            return Golden(batch, Beams._make(arrays[_BEAMS + name] for name in Beams._fields))
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ArtefactError(f"{path}: found no readable golden batch ({error}); export the model again") from None
