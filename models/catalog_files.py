"""The files of a catalogue in a version's folder: items with their paths and vectors, tokenizer, neighbours."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import ArtefactError, ContractError, InputError
from models.catalog import Catalog
from models.evidence import save_neighbours
from models.items import ITEM_COLUMNS, items_of, table_of
from models.registry import CATALOG_FILE, NEIGHBOURS_FILE, TOKENIZER_FILE
from models.tokenizer import load_tokenizer, save_tokenizer

_Scalar = TypeVar("_Scalar", bound=np.generic)


def save_catalog(catalog: Catalog, folder: Path) -> None:
    """`folder` holds the catalogue, its tokenizer and its neighbours; equal contents give equal bytes."""
    table = table_of(catalog.items)
    size, levels = catalog.codes.shape
    columns = {
        "codes": pa.FixedSizeListArray.from_arrays(catalog.codes.ravel(), levels),
        "vector": pa.FixedSizeListArray.from_arrays(catalog.vectors.ravel(), catalog.vectors.shape[1]),
        "removed": pa.array(catalog.removed[:size]),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    table = table.replace_schema_metadata({"digest": catalog.digest(), "capacity": str(catalog.capacity)})
    pq.write_table(table, folder / CATALOG_FILE, compression="zstd")
    save_tokenizer(catalog.tokenizer, folder / TOKENIZER_FILE)
    if catalog.neighbours:
        save_neighbours(catalog.neighbours, folder / NEIGHBOURS_FILE)


def load_catalog(folder: Path) -> Catalog:
    """The catalogue that `save_catalog` wrote, but for its neighbours: a worker folds without them.

    Raises:
        ArtefactError: a file is missing or damaged, or the two do not belong together.
    """
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    path = folder / CATALOG_FILE
    try:
        table = pq.read_table(path)
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        table = table.combine_chunks()
        catalog = Catalog(
            items_of(table.select(ITEM_COLUMNS.names)),
            _matrix(table, "codes", np.int32),
            _matrix(table, "vector", np.float32),
            tokenizer,
            capacity=int(said["capacity"]),
        )
        for index in np.flatnonzero(table["removed"].to_numpy()):
            catalog.remove(catalog.items[index].item_id)
    except (OSError, KeyError, ValueError, pa.ArrowException, ContractError, InputError) as error:
        raise ArtefactError(f"{path}: found no readable catalogue ({error}); publish the version again") from None
    if catalog.digest() != said["digest"]:
        raise ArtefactError(
            f"{path}: found contents of digest {catalog.digest()[:12]}, expected {said['digest'][:12]}; "
            "catalogue and tokenizer were not published together"
        )
    return catalog


def _matrix(table: pa.Table, name: str, dtype: type[_Scalar]) -> npt.NDArray[_Scalar]:
    column = table[name]
    width = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype).reshape(-1, width)
