"""Literals: tensors whose values are in the message, so that the client fills them without a server.

The checks and their messages are the engine's.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from seedbed import dtypes
from seedbed._ask import regions
from seedbed._types import Array
from seedbed.errors import InvalidRequest
from seedbed.v1 import DATA_TYPE_FLOAT32, Law, Literal, Region, TensorDescription, TensorSlice

VERSION = 1  # that of a description whose spec names none; a literal is the same in all versions
_MAX_DIMENSIONS = 64


def is_literal(tensor_slice: TensorSlice) -> bool:
    """Whether the tensor is a literal."""
    return bool(tensor_slice.spec.WhichOneof("scheme") == "literal")


def check(tensor_slice: TensorSlice, prefix: str = "") -> None:
    """Validate a literal and its region.

    Args:
        tensor_slice: The literal and its region.
        prefix: The prefix of field paths in errors, such as ``tensors[3].``.

    Raises:
        InvalidRequest: The data do not have the right size, an element is not finite, or the region is not within the
            shape.
    """
    _check_shape(tensor_slice, f"{prefix}spec.shape")
    field, dtype = f"{prefix}spec.literal.data", dtypes.numpy_dtype(tensor_slice.spec.dtype)
    shape, data = tensor_slice.spec.shape[:], tensor_slice.spec.literal.data
    if len(data) != (size := math.prod(shape) * dtype.itemsize):
        raise InvalidRequest(
            field, f"has {len(data)} bytes, but shape {shape} of {dtype} takes {size}; give each element once"
        )
    values = np.frombuffer(data, dtype)
    is_finite = np.isfinite(values)
    if not is_finite.all():
        first = int(np.argmin(is_finite))
        raise InvalidRequest(field, f"element {first} is {values[first]}; give finite numbers")
    if tensor_slice.HasField("region"):
        _check_region(tensor_slice.region, shape, f"{prefix}region")


def check_first(tensor_slice: TensorSlice, first_element: int) -> None:
    """Validate the position of the first element to send.

    Raises:
        InvalidRequest: The position is outside the region.
    """
    count = math.prod(regions.extents(tensor_slice))
    if not 0 <= first_element <= count:
        refusal = f"is {first_element}, but the region has {count} elements; give one of 0..{count}"
        raise InvalidRequest("first_element", refusal)


def describe(tensor_slice: TensorSlice) -> TensorDescription:
    """The description of a valid literal, equal to a server's."""
    start, stop = regions.bounds(tensor_slice)
    description = TensorDescription(
        spec=tensor_slice.spec,
        region=Region(start=start, stop=stop),
        law=Law(literal=Literal()),
        stream=_stream_of(tensor_slice.spec.stream or tensor_slice.spec.name),
        element_count=math.prod(regions.extents(tensor_slice)),
        byte_count=regions.byte_count(tensor_slice),
    )
    description.spec.dtype = tensor_slice.spec.dtype or DATA_TYPE_FLOAT32
    description.spec.algorithm_version = tensor_slice.spec.algorithm_version or VERSION
    return description


def values(tensor_slice: TensorSlice) -> Array:
    """The elements of a valid literal's region, 1-D and read-only."""
    array: Array = np.frombuffer(tensor_slice.spec.literal.data, dtypes.numpy_dtype(tensor_slice.spec.dtype))
    if tensor_slice.HasField("region"):
        start, stop = regions.bounds(tensor_slice)
        index: tuple[Any, ...] = (*map(slice, start, stop), ...)
        array = array.reshape(tensor_slice.spec.shape[:])[index].reshape(-1)
        array.flags.writeable = False
    return array


def _stream_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "little")


def _check_shape(tensor_slice: TensorSlice, field: str) -> None:
    shape = tensor_slice.spec.shape
    if len(shape) > _MAX_DIMENSIONS:
        raise InvalidRequest(field, f"{len(shape)} dimensions are over the limit of {_MAX_DIMENSIONS}; use fewer")
    for axis, size in enumerate(shape):
        if size < 0:
            raise InvalidRequest(f"{field}[{axis}]", f"{size} is negative; give 0 or more")
    # Sizes of 0 are skipped, so that the strides of empty tensors stay within 64 bits, too.
    elements = math.prod(filter(None, shape))
    if elements * dtypes.numpy_dtype(tensor_slice.spec.dtype).itemsize >= 2**63:
        unit = "elements" if elements >= 2**63 else "bytes"
        raise InvalidRequest(field, f"{shape[:]} has more than 2^63 - 1 {unit}; give a smaller shape")


def _check_region(region: Region, shape: list[int], field: str) -> None:
    for bound in ("start", "stop"):
        if (rank := len(getattr(region, bound))) != len(shape):
            raise InvalidRequest(
                f"{field}.{bound}", f"has {rank} dimensions, but the shape has {len(shape)}; give one number for each"
            )
    for axis, (start, stop, size) in enumerate(zip(region.start, region.stop, shape, strict=True)):
        if start > stop:
            raise InvalidRequest(f"{field}.start[{axis}]", f"start {start} is after stop {stop}; swap them")
        if start < 0:
            raise InvalidRequest(f"{field}.start[{axis}]", f"{start} is negative; give 0 or more")
        if stop > size:
            raise InvalidRequest(
                f"{field}.stop[{axis}]", f"{stop} is beyond the dimension's size {size}; give at most {size}"
            )
