"""The element types: their NumPy dtypes, their ranges, and rounding to them."""

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
"""The type of an element, or of the real and imaginary parts of a complex one."""
_LARGEST = {number: float(np.nextafter(dtype.type(math.inf), dtype.type(0))) for number, dtype in _REAL.items()}

LISTED = "float32, float16, bfloat16, float64, complex64"
"""The element types, for error texts."""


def is_known(data_type: int) -> bool:
    """Whether ``data_type`` is one of the contract's element types; unspecified is not."""
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
    """The largest finite value; for complex64 that of a real or imaginary part, as in all functions here.

    >>> largest(DataType.DATA_TYPE_FLOAT16)
    65504.0
    """
    return _LARGEST[data_type]


def largest_exact_integer(data_type: int) -> int:
    """The largest integer up to which every integer is a value of the type.

    >>> largest_exact_integer(DataType.DATA_TYPE_FLOAT16)
    2048
    """
    digits = {np.dtype(np.float64): 53, np.dtype(np.float32): 24, np.dtype(np.float16): 11}
    return 1 << digits.get(_REAL[data_type], 8)


def at_least(value: float, data_type: int) -> float:
    """The smallest value of the type that is at least ``value``.

    >>> at_least(0.1, DataType.DATA_TYPE_FLOAT32) >= 0.1
    True
    """
    return -at_most(-value, data_type) + 0.0  # turns -0.0 into 0.0


@lru_cache(maxsize=1024)  # bounds are needed to validate a tensor and again to sample it
def at_most(value: float, data_type: int) -> float:
    """The largest value of the type that is at most ``value``; zero is never negative."""
    dtype = _REAL[data_type]
    with np.errstate(over="ignore"):
        rounded = dtype.type(value)
    # Even for bfloat16, which is rounded twice (through float32), this is one of the two neighbours of ``value``.
    if float(rounded) > value:
        rounded = np.nextafter(rounded, dtype.type(-math.inf))
    return float(rounded) + 0.0  # never -0.0: the cache does not distinguish the zeros


def below(value: float, data_type: int) -> float:
    """The largest value of the type that is less than ``value``."""
    nearest = at_most(value, data_type)
    if nearest < value:
        return nearest
    dtype = _REAL[data_type]
    return float(np.nextafter(dtype.type(nearest), dtype.type(-math.inf)))


def bits_of(value: float, data_type: int) -> np.unsignedinteger[Any]:
    """The bits of a value; 16-bit types are rounded through float32 (docs/stream-v1.md, “Types”).

    >>> hex(bits_of(1.0, DataType.DATA_TYPE_BFLOAT16))
    '0x3f80'
    """
    dtype = _NUMPY[data_type]
    base = np.float64 if dtype == np.float64 else np.float32
    bits: np.unsignedinteger[Any] = base(value).astype(dtype).view(f"u{dtype.itemsize}")
    return bits


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounds finite float32 values to nearest even in integer arithmetic; this defines our bfloat16.

    >>> hex(bfloat16_bits(np.float32([1.0]))[0])
    '0x3f80'
    """
    bits = values.view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def store(values: NDArray[np.float32] | NDArray[np.float64], out: NDArray[Any]) -> None:
    """Rounds samples into ``out``: directly to float64 or float32, through float32 to 16 bits."""
    if out.dtype == _NUMPY[DataType.DATA_TYPE_BFLOAT16]:
        out.view(np.uint16)[...] = bfloat16_bits(values.astype(np.float32, copy=False))
    elif out.dtype == np.float16:
        out[...] = values.astype(np.float32, copy=False)
    else:
        out[...] = values


def store_once(values: NDArray[np.float64], out: NDArray[Any]) -> None:
    """Rounds float64 values into ``out`` once, even to 16 bits, where going through float32 would round twice.

    >>> out = np.zeros(1, np.float16)
    >>> store_once(np.float64([1 + 2**-11 + 2**-40]), out)  # float32 rounds to the midpoint, then to 1
    >>> out
    array([1.001], dtype=float16)
    """
    store(values if out.itemsize > 2 else _rounded_to_odd(values), out)


def _rounded_to_odd(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rounds to odd in float32: a second rounding, to fewer bits, then gives the correctly rounded value."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = values.astype(np.float32)
        is_beyond = np.abs(nearest.astype(np.float64)) > np.abs(values)
        is_inexact = nearest.astype(np.float64) != values
    bits = np.asarray(nearest).view(np.uint32) - is_beyond.astype(np.uint32)
    rounded: NDArray[np.float32] = (bits | is_inexact.astype(np.uint32)).view(np.float32)
    return rounded
