"""Loops over stored records, compiled by numba: there, and only there, a record's fields are attributes.

Compiled code is kept in `var/cache/folds` of the checkout, one folder per state of the sources: numba itself looks
only at the file of the function that it compiled, not at the functions and constants that were compiled into it.
Where that folder cannot be written, each process compiles anew (a few seconds).
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_HERE: Final = Path(__file__).resolve().parent
_CACHE: Final = _HERE.parents[1] / "var" / "cache" / "folds"


def _cache_folder() -> Path | None:
    """Where code compiled from the present sources is kept; None when nothing can be kept."""
    digest = hashlib.blake2b(numba.__version__.encode(), digest_size=8)
    for source in (*sorted(_HERE.glob("*.py")), _HERE.parent / "layouts.py", _HERE.parents[1] / "core" / "geo.py"):
        digest.update(source.read_bytes())
    folder = _CACHE / digest.hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


_FOLDER: Final = _cache_folder()
if _FOLDER is not None:
    vars(numba.config)["CACHE_DIR"] = str(_FOLDER)


def compiled(function: F) -> F:
    """`function`, compiled at its first call; it holds no lock of the interpreter while it runs."""
    return cast(F, numba.njit(function, nogil=True, cache=_FOLDER is not None))


@compiled
def signed(value: Any) -> int:
    """An unsigned number of a row, signed: numba's arithmetic of the two kinds together is floating point."""
    return np.int64(value)  # type: ignore[return-value]
