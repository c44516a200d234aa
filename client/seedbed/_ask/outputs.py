"""The arrays that callers give to be filled: NumPy's own, or memory of another library that NumPy can share."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np

from seedbed import dtypes
from seedbed._ask import regions
from seedbed._types import Array
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorSlice

_NOT_SHARED = (BufferError, RuntimeError, TypeError, ValueError)  # with what DLPack and torch refuse


def as_array(out: object, wanted: TensorSlice) -> Array:
    """The memory that was given, as a NumPy array of the part's shape and dtype.

    Raises:
        InvalidRequest: It is no array in this computer's memory, has another shape or dtype, cannot be written, or has
            elements that share memory.
    """
    # Of a memory map or another subclass, whose own indexing may be slow or odd, the plain array.
    array = np.asarray(out) if isinstance(out, np.ndarray) else _shared(out, label(wanted))
    check_fit(array.shape, array.dtype, wanted)
    if not array.flags.writeable:
        raise InvalidRequest("out", f"cannot be written{label(wanted)}; give a writable array")
    check_no_overlap(array, wanted)
    return array


def check_fit(shape: tuple[int, ...], dtype: np.dtype[Any], wanted: TensorSlice) -> None:
    """Refuses another shape or dtype than those of the part wanted.

    Raises:
        InvalidRequest: They differ.
    """
    extents, element_type = regions.extents(wanted), dtypes.numpy_dtype(wanted.spec.dtype)
    if shape != extents:
        raise InvalidRequest("out", f"has shape {shape}{label(wanted)}; give one of shape {extents}, the region's")
    if dtype != element_type and dtype.newbyteorder("=") == element_type:
        raise InvalidRequest("out", f"has dtype {dtype}{label(wanted)}, of the other byte order; give {element_type}")
    if dtype != element_type:
        raise InvalidRequest(
            "out", f"has dtype {dtype}{label(wanted)}; give one of dtype {element_type}, or ask for its dtype"
        )


def label(wanted: TensorSlice) -> str:
    """The tensor in an error about ``out``."""
    return f" for tensor {wanted.spec.name!r}" if wanted.spec.name else ""


def _shared(out: object, which: str) -> Array:
    try:
        if (torch := sys.modules.get("torch")) and isinstance(out, torch.Tensor):
            return of_torch(out.detach(), torch)
        if hasattr(out, "__dlpack__"):
            return np.from_dlpack(out)
    except _NOT_SHARED as error:
        remedy = "give an array in this computer's memory"
        reason = str(error).rstrip(".")
        raise InvalidRequest("out", f"cannot be shared with NumPy{which}: {reason}; {remedy}") from error
    remedy = "give a NumPy array, or another with DLPack such as a torch tensor"
    raise InvalidRequest("out", f"is a {type(out).__name__}{which}; {remedy}")


def given(values: object, field: str) -> Array:
    """Values that a caller gives to be read, as NumPy has them; a torch tensor may be on a GPU, or need a gradient.

    Raises:
        InvalidRequest: They cannot be NumPy's.
    """
    torch = sys.modules.get("torch")  # who gives a tensor has imported it
    try:
        if torch and isinstance(values, torch.Tensor):
            return of_torch(values.detach().cpu().resolve_conj().resolve_neg(), torch)
        return np.asarray(values)
    except _NOT_SHARED as error:
        reason = str(error).rstrip(".")
        raise InvalidRequest(field, f"a {type(values).__name__} is no array: {reason}; give one of NumPy's") from error


def of_torch(tensor: Any, torch: Any) -> Array:  # noqa: ANN401 - torch is not imported for its types
    """The memory of a torch tensor on the CPU that needs no gradient; ``torch`` is the module."""
    if tensor.dtype != torch.bfloat16:
        array: Array = tensor.numpy()
        return array
    return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)  # type: ignore[no-any-return]


def check_no_overlap(array: Any, wanted: TensorSlice) -> None:  # noqa: ANN401 - CuPy has no types
    """Refuses an array of NumPy or CuPy that was expanded, or is a window moved over its memory.

    Raises:
        InvalidRequest: Elements of it share memory.
    """
    if not array.flags.c_contiguous and _may_overlap(array):
        raise InvalidRequest("out", f"has elements that share memory{label(wanted)}; give an array without such")


def _may_overlap(array: Any) -> bool:  # noqa: ANN401
    """Whether elements may share memory: unless each stride goes beyond what all smaller ones reach."""
    reach: int = array.dtype.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return bool(array.size > 0)
            reach += stride * (size - 1)
    return False
