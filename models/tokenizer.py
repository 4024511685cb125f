"""The tokenizer: item encoder and codebook under one version.

Every code and every stored vector is computed with one tokenizer and means nothing without it. The file holds plain
arrays, loads without anything but numpy, and is equal byte for byte when the contents are.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from core.errors import ArtefactError
from models.item_vectors import Floats, ItemEncoder
from models.semantic_ids import Codebook
from protos.catalog.v1.catalog_pb2 import Item


class Tokenizer(NamedTuple):
    """Places items: vector first, path second."""

    version: int  # 1 and up; 0 in a stored row means that no vector was there
    encoder: ItemEncoder
    codebook: Codebook

    def vector(self, item: Item) -> Floats:
        """(D,) unit vector of an item that nobody has acted on yet."""
        return np.asarray(self.encoder.encode([item])[0])

    def digest(self) -> str:
        """SHA-256 (hex) of version and contents."""
        sha = hashlib.sha256(str(self.version).encode())
        for name, array in _arrays(self).items():
            sha.update(f"{name}{array.dtype}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """`path` holds the tokenizer."""
    np.savez(path, allow_pickle=False, **_arrays(tokenizer))


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote.

    Raises:
        ArtefactError: the file is missing, damaged, or not a tokenizer.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            encoder = ItemEncoder(*(arrays[f"encoder_{name}"] for name in ItemEncoder._fields))
            return Tokenizer(int(arrays["version"]), encoder, Codebook(arrays["centroids"]))
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ArtefactError(f"{path}: found no readable tokenizer ({error}); publish the version again") from None


def _arrays(tokenizer: Tokenizer) -> dict[str, npt.NDArray[Any]]:
    encoder = {f"encoder_{name}": array for name, array in tokenizer.encoder._asdict().items()}
    return {"version": np.array(tokenizer.version), "centroids": tokenizer.codebook.centroids, **encoder}
