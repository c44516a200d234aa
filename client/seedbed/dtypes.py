"""Element types: their names, here and elsewhere, their NumPy dtypes and their numbers in the contract."""

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

# What they are called elsewhere, in any case: by NumPy, torch and C, XLA and safetensors, and in the configurations of
# trainers. NumPy's codes of one letter are not here, for "f" and "F" are two types of its.
_ALIASES = {
    # To torch and C "float" is this. To NumPy it is Python's float, of 64 bits, and so is that type itself to all.
    "float32": ("float", "single", "fp32", "f32", "f4"),
    "float16": ("half", "fp16", "f16", "f2"),
    "bfloat16": ("bf16",),
    "float64": ("double", "fp64", "f64", "f8"),
    "complex64": ("csingle", "singlecomplex", "cfloat", "c64", "c8"),
}
_BY_ALIAS = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}


def data_type(dtype: object) -> DataType:
    """The contract's number of an element type.

    Args:
        dtype: What NumPy, torch, JAX, safetensors or the configuration of a trainer calls it: text, such as
            ``"bfloat16"``, ``"bf16"``, ``"BF16"``, ``"torch.bfloat16"``, ``"half"`` or ``"f4"``; a dtype or scalar
            type of theirs, such as ``torch.bfloat16``, ``jnp.bfloat16``, ``np.float32`` or that of an array. The text
            ``"float"`` is float32, as in torch and in C; the type ``float`` is float64, as in NumPy and torch.

    Raises:
        InvalidRequest: If it is not an element type of Seedbed's, or not in native byte order.

    >>> from seedbed.v1 import DATA_TYPE_FLOAT16
    >>> data_type("fp16") == data_type("torch.half") == data_type(np.float16) == DATA_TYPE_FLOAT16
    True
    """
    return _NUMBERS[_name(dtype)]


def in_contract(fields: Any) -> Any:  # noqa: ANN401 - JSON can be anything
    """The JSON of a message, parsed, with element types by the contract's names, whatever they are called in it.

    Args:
        fields: What `json.loads` gives.

    Raises:
        InvalidRequest: If one is not an element type of Seedbed's.

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
    found = _of_numpy(dtype)
    for name, known in _NUMPY.items():
        if found is not None and found == known:
            return name
    raise InvalidRequest("spec.dtype", _refusal(dtype, found))


def _of_numpy(dtype: Any) -> np.dtype | None:  # noqa: ANN401 - what it can be is NumPy's to say
    try:
        return None if dtype is None else np.dtype(dtype)  # of None, NumPy makes float64
    except (TypeError, ValueError):
        return None


def _refusal(dtype: object, found: np.dtype | None) -> str:
    listed = f"use one of {', '.join(NAMES)}"
    if found is None:
        near = difflib.get_close_matches(str(dtype).lower(), _BY_ALIAS, 1, 0.75)
        return f"unknown dtype {dtype}; {f'did you mean {near[0]}? ' if near else ''}{listed}"
    if found.newbyteorder("=") in _NUMPY.values():
        return f"dtype {dtype} is not in this machine's byte order; {listed}"
    return f"dtype {found} is not served; {listed}"


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
