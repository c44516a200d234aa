"""Element types: their names, their NumPy dtypes and their numbers in the contract."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from seedbed.errors import InvalidRequest
from seedbed.v1 import DATA_TYPE_UNSPECIFIED, DataType

__all__ = ["NAMES", "data_type", "name_of", "numpy_dtype"]

_NUMPY: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float64": np.dtype(np.float64),
    "complex64": np.dtype(np.complex64),
}
_NUMBERS = {
    "float32": DataType.DATA_TYPE_FLOAT32,
    "float16": DataType.DATA_TYPE_FLOAT16,
    "bfloat16": DataType.DATA_TYPE_BFLOAT16,
    "float64": DataType.DATA_TYPE_FLOAT64,
    "complex64": DataType.DATA_TYPE_COMPLEX64,
}
_NAMES: dict[int, str] = {DATA_TYPE_UNSPECIFIED: "float32", **{number: name for name, number in _NUMBERS.items()}}

NAMES = tuple(_NUMPY)
"""The names of all element types."""


def data_type(dtype: npt.DTypeLike) -> DataType:
    """The contract's number of an element type.

    Args:
        dtype: One of `NAMES`, a NumPy dtype or scalar type, ``ml_dtypes.bfloat16`` included, or torch's of such a name.

    Raises:
        InvalidRequest: If it is not an element type of Seedbed's, or not in native byte order.

    >>> from seedbed.v1 import DATA_TYPE_FLOAT16
    >>> data_type("float16") == data_type(np.float16) == DATA_TYPE_FLOAT16
    True
    """
    name = str(dtype).removeprefix("torch.")  # torch is not imported for this
    if name in _NUMBERS and type(dtype).__module__ in ("builtins", "torch"):
        return _NUMBERS[name]
    for name, known in _NUMPY.items():
        if dtype is not None and _same(dtype, known):
            return _NUMBERS[name]
    raise InvalidRequest("spec.dtype", f"unknown dtype {dtype}; use one of {', '.join(NAMES)}")


def _same(dtype: npt.DTypeLike, known: np.dtype) -> bool:
    try:
        return np.dtype(dtype) == known
    except (TypeError, ValueError):
        return False


def numpy_dtype(data_type: int) -> np.dtype:
    """The NumPy dtype of a ``DataType``; unspecified means float32.

    Args:
        data_type: A value of the enumeration ``seedbed.v1.DataType``.

    Raises:
        InvalidRequest: If it is none.

    >>> from seedbed.v1 import DATA_TYPE_BFLOAT16
    >>> numpy_dtype(DATA_TYPE_BFLOAT16)
    dtype(bfloat16)
    """
    return _NUMPY[name_of(data_type)]


def name_of(data_type: int) -> str:
    """The name of a ``DataType``; unspecified means float32.

    Args:
        data_type: A value of the enumeration ``seedbed.v1.DataType``.

    Raises:
        InvalidRequest: If it is none.

    >>> name_of(DataType.DATA_TYPE_UNSPECIFIED)
    'float32'
    """
    if data_type not in _NAMES:
        raise InvalidRequest("spec.dtype", f"unknown dtype {data_type}; use one of {', '.join(NAMES)}")
    return _NAMES[data_type]
