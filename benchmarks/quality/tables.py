"""Columns of the data sets' files, or a word on what is missing."""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError


def read_columns(path: Path, *names: str) -> dict[str, npt.NDArray[Any]]:
    """The named columns of a Parquet file, in that order.

    Raises:
        InputError: the file or a column is not there.
    """
    try:
        table = pq.read_table(path, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the Parquet file of the data set: name the folder that holds "
            "the data sets by --data-home or NEARFEED_DATA_HOME"
        ) from None
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: found no column {missing[0]!r}, expected {', '.join(names)}")
    return {name: table[name].to_numpy() for name in names}
