"""The caller's arrays: NumPy's own, or another library's memory that NumPy can share."""

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

_NOT_SHARED = (BufferError, RuntimeError, TypeError, ValueError)  # what DLPack and torch raise


def as_array(out: object, tensor_slice: TensorSlice) -> Array:
    """View the memory of ``out`` as a NumPy array of the region's shape and the tensor's dtype.

    Raises:
        InvalidRequest: ``out`` is not an array in host memory, has another shape or dtype, is read-only, or has
            elements that share memory.
    """
    # A memory map or another subclass becomes a plain array, because its own indexing may be slow or odd.
    array = np.asarray(out) if isinstance(out, np.ndarray) else _shared(out, label(tensor_slice))
    check_fit(array.shape, array.dtype, tensor_slice)
    if not array.flags.writeable:
        raise InvalidRequest("out", f"is read-only{label(tensor_slice)}; give a writable array")
    check_no_overlap(array, tensor_slice)
    return array


def check_fit(shape: tuple[int, ...], dtype: np.dtype[Any], tensor_slice: TensorSlice) -> None:
    """Check the shape and dtype of ``out`` against the region's shape and the tensor's dtype.

    Raises:
        InvalidRequest: They differ.
    """
    extents, element_type = regions.extents(tensor_slice), dtypes.numpy_dtype(tensor_slice.spec.dtype)
    if shape != extents:
        raise InvalidRequest(
            "out", f"has shape {shape}{label(tensor_slice)}; give one of the region's shape, {extents}"
        )
    if dtype != element_type and dtype.newbyteorder("=") == element_type:
        raise InvalidRequest(
            "out", f"has dtype {dtype}{label(tensor_slice)}, of the other byte order; give {element_type}"
        )
    if dtype != element_type:
        raise InvalidRequest(
            "out",
            f"has dtype {dtype}{label(tensor_slice)}; give one of dtype {element_type}, or change the tensor's dtype",
        )


def label(tensor_slice: TensorSlice) -> str:
    """The phrase that names the tensor in an error about ``out``."""
    return f" for tensor {tensor_slice.spec.name!r}" if tensor_slice.spec.name else ""


def _shared(out: object, label: str) -> Array:
    try:
        if (torch := sys.modules.get("torch")) and isinstance(out, torch.Tensor):
            return of_torch(out.detach(), torch)
        if hasattr(out, "__dlpack__"):
            return np.from_dlpack(out)
    except _NOT_SHARED as error:
        remedy = "give an array in host memory"
        reason = str(error).rstrip(".")
        raise InvalidRequest("out", f"cannot be shared with NumPy{label}: {reason}; {remedy}") from error
    remedy = "give a NumPy array, or one that supports DLPack, such as a torch tensor"
    raise InvalidRequest("out", f"is a {type(out).__name__}{label}; {remedy}")


def readable(values: object, field: str) -> Array:
    """Convert values to a NumPy array for reading; a torch tensor may be on a GPU, or require a gradient.

    Raises:
        InvalidRequest: NumPy cannot hold them.
    """
    torch = sys.modules.get("torch")  # imported already, if the values are a tensor
    try:
        if torch and isinstance(values, torch.Tensor):
            return of_torch(values.detach().cpu().resolve_conj().resolve_neg(), torch)
        return np.asarray(values)
    except _NOT_SHARED as error:
        reason = str(error).rstrip(".")
        raise InvalidRequest(
            field, f"a {type(values).__name__} is not an array: {reason}; give a NumPy array"
        ) from error


def of_torch(tensor: Any, torch: Any) -> Array:  # noqa: ANN401 - torch is not imported for its types
    """View the memory of a detached torch tensor on the CPU; ``torch`` is the module."""
    if tensor.dtype != torch.bfloat16:
        array: Array = tensor.numpy()
        return array
    return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)  # type: ignore[no-any-return]


def check_no_overlap(array: Any, tensor_slice: TensorSlice) -> None:  # noqa: ANN401 - CuPy has no types
    """Refuse a NumPy or CuPy array that was expanded, or is a sliding window over its memory.

    Raises:
        InvalidRequest: Elements share memory.
    """
    if not array.flags.c_contiguous and _may_overlap(array):
        raise InvalidRequest(
            "out", f"has elements that share memory{label(tensor_slice)}; give an array whose elements are distinct"
        )


def _may_overlap(array: Any) -> bool:  # noqa: ANN401
    """Whether elements may share memory: whether a stride lies within the reach of the smaller ones."""
    reach: int = array.dtype.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return bool(array.size > 0)
            reach += stride * (size - 1)
    return False
