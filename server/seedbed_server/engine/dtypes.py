"""The element types: their NumPy dtypes, their range, and rounding into them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import DataType

_NUMPY: dict[int, np.dtype[Any]] = {
    DataType.DATA_TYPE_FLOAT32: np.dtype(np.float32),
    DataType.DATA_TYPE_FLOAT16: np.dtype(np.float16),
    DataType.DATA_TYPE_BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    DataType.DATA_TYPE_FLOAT64: np.dtype(np.float64),
    DataType.DATA_TYPE_COMPLEX64: np.dtype(np.complex64),
}
_REAL = {**_NUMPY, DataType.DATA_TYPE_COMPLEX64: np.dtype(np.float32)}
"""The type of the numbers that an element has one or two of."""
_LARGEST = {number: float(np.nextafter(dtype.type(math.inf), dtype.type(0))) for number, dtype in _REAL.items()}


LISTED = "float32, float16, bfloat16, float64, complex64"
"""For errors."""


def is_known(data_type: int) -> bool:
    """Whether ``data_type`` is one of the contract's element types (unspecified is not)."""
    return data_type in _NUMPY


def is_complex(data_type: int) -> bool:
    """Whether an element has a real and an imaginary part."""
    return data_type == DataType.DATA_TYPE_COMPLEX64


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """The NumPy dtype of a ``DataType``.

    >>> numpy_dtype(DataType.DATA_TYPE_BFLOAT16)
    dtype(bfloat16)
    """
    return _NUMPY[data_type]


def largest(data_type: int) -> float:
    """The largest finite value, of complex numbers that of a part, as of all functions here.

    >>> largest(DataType.DATA_TYPE_FLOAT16)
    65504.0
    """
    return _LARGEST[data_type]


def largest_exact_integer(data_type: int) -> int:
    """The integer up to which each is a value of the type.

    >>> largest_exact_integer(DataType.DATA_TYPE_FLOAT16)
    2048
    """
    digits = {np.dtype(np.float64): 53, np.dtype(np.float32): 24, np.dtype(np.float16): 11}
    return 1 << digits.get(_REAL[data_type], 8)


def at_least(value: float, data_type: int) -> float:
    """The smallest value of the type that is not below ``value``.

    >>> at_least(0.1, DataType.DATA_TYPE_FLOAT32) >= 0.1
    True
    """
    return -at_most(-value, data_type) + 0.0  # the zero is the positive one


@lru_cache(maxsize=1024)  # a tensor's bounds are asked for when it is validated and when it is sampled
def at_most(value: float, data_type: int) -> float:
    """The largest value of the type that is not above ``value``; a zero is the positive one."""
    dtype = _REAL[data_type]
    with np.errstate(over="ignore"):
        rounded = dtype.type(value)
    # One of the two neighbours of ``value``, even of bfloat16, which is rounded twice (by way of float32).
    if float(rounded) > value:
        rounded = np.nextafter(rounded, dtype.type(-math.inf))
    return float(rounded) + 0.0  # never -0.0, because the cache takes the two zeros for one


def below(value: float, data_type: int) -> float:
    """The largest value of the type that is below ``value``."""
    nearest = at_most(value, data_type)
    if nearest < value:
        return nearest
    dtype = _REAL[data_type]
    return float(np.nextafter(dtype.type(nearest), dtype.type(-math.inf)))


def bits_of(value: float, data_type: int) -> np.unsignedinteger[Any]:
    """The bits of a value, rounded by way of float32, which 16-bit types are rounded from (docs/stream-v1.md, «Types»).

    >>> hex(bits_of(1.0, DataType.DATA_TYPE_BFLOAT16))
    '0x3f80'
    """
    dtype = _NUMPY[data_type]
    base = np.float64 if dtype == np.float64 else np.float32
    bits: np.unsignedinteger[Any] = base(value).astype(dtype).view(f"u{dtype.itemsize}")
    return bits


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounds finite float32 values to nearest even, by integers: the definition of our bfloat16.

    >>> hex(bfloat16_bits(np.float32([1.0]))[0])
    '0x3f80'
    """
    bits = values.view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def store(values: NDArray[np.float32] | NDArray[np.float64], out: NDArray[Any]) -> None:
    """Rounds samples into ``out``: to float64 or float32 at once, to 16 bits by way of float32."""
    if out.dtype == _NUMPY[DataType.DATA_TYPE_BFLOAT16]:
        out.view(np.uint16)[...] = bfloat16_bits(values.astype(np.float32, copy=False))
    elif out.dtype == np.float16:
        out[...] = values.astype(np.float32, copy=False)
    else:
        out[...] = values


def store_once(values: NDArray[np.float64], out: NDArray[Any]) -> None:
    """Rounds float64 values into ``out`` once, also to 16 bits, where the way by float32 alone would round twice.

    >>> out = np.zeros(1, np.float16)
    >>> store_once(np.float64([1 + 2**-11 + 2**-40]), out)  # float32 would bring it to the middle, and that to 1
    >>> out
    array([1.001], dtype=float16)
    """
    store(values if out.itemsize > 2 else _rounded_to_odd(values), out)


def _rounded_to_odd(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cut to float32, the last bit set if anything was cut off: rounding that to fewer bits is rounding once."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = values.astype(np.float32)
        is_beyond = np.abs(nearest.astype(np.float64)) > np.abs(values)
        is_inexact = nearest.astype(np.float64) != values
    bits = np.asarray(nearest).view(np.uint32) - is_beyond.astype(np.uint32)
    rounded: NDArray[np.float32] = (bits | is_inexact.astype(np.uint32)).view(np.float32)
    return rounded
