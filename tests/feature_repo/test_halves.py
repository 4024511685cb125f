"""Laws of float16 in compiled loops: numpy's own numbers, bit by bit."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from feature_repo.folds.halves import as_bits, bits_of, value_of
from feature_repo.layouts import USER

MOST = 65_504.0  # the largest float16


def numpys(value: float) -> int:
    return int(np.float32(value).astype(np.float16).view(np.uint16))


def test_every_half_reads_as_numpy_reads_it() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    read = np.array([value_of(one) for one in bits], np.float32)
    expected = bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(np.signbit(read), np.signbit(expected))


def test_every_finite_half_leads_back_to_its_bits() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[np.isfinite(bits.view(np.float16))]
    assert [bits_of(value_of(one)) for one in finite] == finite.tolist()


def test_half_way_between_two_neighbours_the_even_one_is_taken() -> None:
    halves = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float64)  # all, subnormals too, but the last
    steps = np.diff(np.append(halves, 65_504.0))
    middles = (halves + steps / 2).astype(np.float32)
    found = [bits_of(middle) for middle in middles]
    assert found == middles.astype(np.float16).view(np.uint16).tolist()
    assert not any(one & 1 for one in found)


@given(st.floats(-MOST, MOST, width=32) | st.floats(-(2.0**-13), 2.0**-13, width=32))
@example(0.0)
@example(-0.0)
@example(2.0**-24)  # the smallest subnormal
@example(2.0**-25)  # half of it: even is zero
@example(2.0**-14 - 2.0**-26)  # rounds up to the smallest normal number
@example(65_504.0)
def test_a_number_becomes_the_nearest_half(value: float) -> None:
    assert bits_of(np.float32(value)) == numpys(value)


def test_a_layout_of_bits_lies_as_the_layout_of_numbers() -> None:
    bits = as_bits(USER)
    assert bits.itemsize == USER.itemsize
    assert bits["interests"]["interest"].base == np.uint16
    assert bits["interests"]["weight"] == np.float32
    assert [bits.fields[name][1] for name in USER.names] == [USER.fields[name][1] for name in USER.names]
