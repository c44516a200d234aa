"""Element types: their names and aliases, their NumPy dtypes, and their values in the contract."""

from __future__ import annotations

import difflib
from typing import Any

import ml_dtypes
import numpy as np

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

# Case-insensitive aliases from NumPy, torch, C, XLA, safetensors and the configurations of trainers. NumPy's one-letter
# codes are missing, because its "f" and "F" are different types.
_ALIASES = {
    # As in torch and C. For NumPy, "float" is Python's float of 64 bits; the type `float` means that to all of them.
    "float32": ("float", "single", "fp32", "f32", "f4"),
    "float16": ("half", "fp16", "f16", "f2"),
    "bfloat16": ("bf16",),
    "float64": ("double", "fp64", "f64", "f8"),
    "complex64": ("csingle", "singlecomplex", "cfloat", "c64", "c8"),
}
_BY_ALIAS = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}


def data_type(dtype: object) -> DataType:
    """The contract's value for an element type.

    Args:
        dtype: A name that NumPy, torch, JAX, safetensors or the configuration of a trainer uses, such as
            ``"bfloat16"``, ``"bf16"``, ``"BF16"``, ``"torch.bfloat16"``, ``"half"`` or ``"f4"``; or a dtype or scalar
            type, such as ``torch.bfloat16``, ``jnp.bfloat16``, ``np.float32`` or ``array.dtype``. The name ``"float"``
            is float32, as in torch and C; the type ``float`` is float64, as in NumPy and torch.

    Raises:
        InvalidRequest: The element type is not supported, or not in native byte order.

    >>> from seedbed.v1 import DATA_TYPE_FLOAT16
    >>> data_type("fp16") == data_type("torch.half") == data_type(np.float16) == DATA_TYPE_FLOAT16
    True
    """
    return _NUMBERS[_name(dtype)]


def in_contract(fields: Any) -> Any:  # noqa: ANN401 - JSON can be anything
    """Replace the names of element types in a message's parsed JSON by the contract's names.

    Args:
        fields: The result of `json.loads`.

    Raises:
        InvalidRequest: An element type is not supported.

    >>> in_contract({"tensors": [{"name": "w", "dtype": "bf16"}]})
    {'tensors': [{'name': 'w', 'dtype': 'DATA_TYPE_BFLOAT16'}]}
    """
    if isinstance(fields, list):
        return [in_contract(item) for item in fields]
    if not isinstance(fields, dict):
        return fields
    return {key: _in_contract(key, value) for key, value in fields.items()}


def _in_contract(key: str, value: Any) -> Any:  # noqa: ANN401
    if key not in ("dtype", "cast") or not isinstance(value, str) or value in DataType.keys():  # noqa: SIM118
        return in_contract(value)
    return DataType.Name(data_type(value))


def _name(dtype: object) -> str:
    if isinstance(dtype, str) or type(dtype).__module__ == "torch":  # torch is not imported for this
        dtype = str(dtype).removeprefix("torch.")
        if name := _BY_ALIAS.get(dtype.lower()):
            return name
    numpy_type = _of_numpy(dtype)
    for name, supported in _NUMPY.items():
        if numpy_type is not None and numpy_type == supported:
            return name
    raise InvalidRequest("spec.dtype", _refusal(dtype, numpy_type))


def _of_numpy(dtype: Any) -> np.dtype | None:  # noqa: ANN401 - NumPy decides what it accepts
    try:
        return None if dtype is None else np.dtype(dtype)  # NumPy would make float64 of None
    except (TypeError, ValueError):
        return None


def _refusal(dtype: object, numpy_type: np.dtype | None) -> str:
    remedy = f"use one of {', '.join(NAMES)}"
    if numpy_type is None:
        near = difflib.get_close_matches(str(dtype).lower(), _BY_ALIAS, 1, 0.75)
        return f"unknown dtype {dtype}; {f'did you mean {near[0]}? ' if near else ''}{remedy}"
    if numpy_type.newbyteorder("=") in _NUMPY.values():
        return f"dtype {dtype} is not in this machine's byte order; {remedy}"
    return f"dtype {numpy_type} is not supported; {remedy}"


def numpy_dtype(data_type: int) -> np.dtype:
    """The NumPy dtype of a ``DataType``; unspecified means float32.

    Args:
        data_type: A value of the enumeration ``seedbed.v1.DataType``.

    Raises:
        InvalidRequest: There is no such value.

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
        InvalidRequest: There is no such value.

    >>> name_of(DataType.DATA_TYPE_UNSPECIFIED)
    'float32'
    """
    if data_type not in _NAMES:
        raise InvalidRequest("spec.dtype", f"unknown dtype {data_type}; use one of {', '.join(NAMES)}")
    return _NAMES[data_type]
