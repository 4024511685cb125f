"""float16 in compiled loops, which know it only as 16 bits: round to nearest, ties to even, as numpy does."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.folds.compiled import compiled

_VALUES: Final[NDArray[np.float32]] = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
_NORMAL: Final = 113 << 23  # float32's bits of 2**-14, float16's smallest normal number
_REBIAS: Final = (127 - 15) << 23
_HALF: Final = np.float32(0.5)  # its last place is float16's smallest step, 2**-24
_HALF_BITS: Final = 126 << 23


def as_bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same layout with each float16 as its 16 bits."""
    if dtype.names is not None:
        assert dtype.fields is not None
        return np.dtype([(name, as_bits(dtype.fields[name][0])) for name in dtype.names])
    if dtype.shape:
        return np.dtype((as_bits(dtype.base), dtype.shape))
    return np.dtype("<u2") if dtype == np.float16 else dtype


@compiled
def value_of(bits: np.uint16) -> np.float32:
    """The number that 16 bits stand for."""
    return _VALUES[bits]


@compiled
def bits_of(value: np.float32) -> np.uint16:
    """The 16 bits of the float16 nearest to a finite `value` below 65,504."""
    bits = np.int64(np.float32(value).view(np.uint32))  # numba's arithmetic is 64 bits wide
    sign = bits & 0x8000_0000
    bits -= sign
    if bits < _NORMAL:
        # The addition rounds: float16's subnormals are the last places of its sum.
        shifted = np.float32(np.uint32(bits).view(np.float32) + _HALF)
        half = np.int64(shifted.view(np.uint32)) - _HALF_BITS
    else:
        half = (bits - _REBIAS + 0xFFF + (bits >> 13 & 1)) >> 13
    return np.uint16(half | sign >> 16)
