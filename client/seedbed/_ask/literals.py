"""Tensors whose values are in the message: whoever holds it makes them, and no server is asked.

What is refused is what the engine would refuse, in its words.
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

_VERSION = 1  # what 0 becomes; a literal is the same in all versions
_MAX_DIMENSIONS = 64


def is_literal(wanted: TensorSlice) -> bool:
    """Whether the tensor is one."""
    return bool(wanted.spec.WhichOneof("scheme") == "literal")


def check(wanted: TensorSlice, prefix: str = "") -> None:
    """Refuses a literal, or a region of it, that there cannot be.

    Args:
        wanted: The part wanted.
        prefix: What the field paths of errors begin with, such as ``tensors[3].``.

    Raises:
        InvalidRequest: Its bytes do not fit, a value is not finite, or the region is not within the shape.
    """
    _check_shape(wanted, f"{prefix}spec.shape")
    field, dtype = f"{prefix}spec.literal.data", dtypes.numpy_dtype(wanted.spec.dtype)
    shape, data = wanted.spec.shape[:], wanted.spec.literal.data
    if len(data) != (size := math.prod(shape) * dtype.itemsize):
        raise InvalidRequest(
            field, f"has {len(data)} bytes, but shape {shape} of {dtype} takes {size}; give every element once"
        )
    values = np.frombuffer(data, dtype)
    is_finite = np.isfinite(values)
    if not is_finite.all():
        first = int(np.argmin(is_finite))
        raise InvalidRequest(field, f"element {first} is {values[first]}; give finite numbers")
    if wanted.HasField("region"):
        _check_region(wanted.region, shape, f"{prefix}region")


def check_first(wanted: TensorSlice, first_element: int) -> None:
    """Refuses a position to begin at that the part wanted does not have.

    Raises:
        InvalidRequest: It is outside.
    """
    count = math.prod(regions.extents(wanted))
    if not 0 <= first_element <= count:
        refusal = f"is {first_element}, but the region has {count} elements; give one of 0..{count}"
        raise InvalidRequest("first_element", refusal)


def describe(wanted: TensorSlice) -> TensorDescription:
    """What a server would answer of a literal that was checked."""
    start, stop = regions.bounds(wanted)
    description = TensorDescription(
        spec=wanted.spec,
        region=Region(start=start, stop=stop),
        law=Law(literal=Literal()),
        stream=_stream_of(wanted.spec.stream or wanted.spec.name),
        element_count=math.prod(regions.extents(wanted)),
        byte_count=regions.byte_count(wanted),
    )
    description.spec.dtype = wanted.spec.dtype or DATA_TYPE_FLOAT32
    description.spec.algorithm_version = wanted.spec.algorithm_version or _VERSION
    return description


def values(wanted: TensorSlice) -> Array:
    """The elements of the part wanted, 1-D and read-only, of a literal that was checked."""
    array: Array = np.frombuffer(wanted.spec.literal.data, dtypes.numpy_dtype(wanted.spec.dtype))
    if wanted.HasField("region"):
        start, stop = regions.bounds(wanted)
        part: tuple[Any, ...] = (*map(slice, start, stop), ...)
        array = array.reshape(wanted.spec.shape[:])[part].reshape(-1)
        array.flags.writeable = False
    return array


def _stream_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "little")


def _check_shape(wanted: TensorSlice, field: str) -> None:
    shape = wanted.spec.shape
    if len(shape) > _MAX_DIMENSIONS:
        raise InvalidRequest(field, f"{len(shape)} dimensions are over the limit of {_MAX_DIMENSIONS}; give fewer")
    for axis, size in enumerate(shape):
        if size < 0:
            raise InvalidRequest(f"{field}[{axis}]", f"{size} is negative; give 0 or more")
    # Sizes of 0 are passed over, so that strides of empty tensors stay within 64 bits too.
    elements = math.prod(filter(None, shape))
    if elements * dtypes.numpy_dtype(wanted.spec.dtype).itemsize >= 2**63:
        unit = "elements" if elements >= 2**63 else "bytes"
        raise InvalidRequest(field, f"{shape[:]} has more than 2^63 - 1 {unit}; give a smaller shape")


def _check_region(region: Region, shape: list[int], field: str) -> None:
    for bound in ("start", "stop"):
        if (rank := len(getattr(region, bound))) != len(shape):
            raise InvalidRequest(
                f"{field}.{bound}", f"has {rank} dimensions, the shape has {len(shape)}; give one number for each"
            )
    for axis, (start, stop, size) in enumerate(zip(region.start, region.stop, shape, strict=True)):
        if start > stop:
            raise InvalidRequest(f"{field}.start[{axis}]", f"start {start} is after stop {stop}; exchange them")
        if start < 0:
            raise InvalidRequest(f"{field}.start[{axis}]", f"{start} is negative; give 0 or more")
        if stop > size:
            raise InvalidRequest(f"{field}.stop[{axis}]", f"{stop} is outside the dimension's size {size}")
