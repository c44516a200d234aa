"""Regions: ``np.s_[...]`` expressions into Region messages, and the shapes of slices of tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

from seedbed import dtypes
from seedbed._ask import arguments
from seedbed._types import RegionLike
from seedbed.errors import InvalidRequest
from seedbed.v1 import Region, TensorDescription, TensorSlice


def resolve(region: RegionLike | None, shape: Sequence[int]) -> Region | None:
    """Convert a region to a message; None means all of the tensor.

    Args:
        region: Slices as ``np.s_`` makes them, where negative and omitted bounds and omitted dimensions mean the same
            as in NumPy; or a message, which the server validates.
        shape: The global shape.

    Raises:
        InvalidRequest: A slice has a step, is reversed or outside the shape, or there are more slices than dimensions.

    >>> resolve(np.s_[2:], (4, 5)) == resolve(np.s_[2:4, :], (4, 5)) == resolve(np.s_[-2:, ...], (4, 5))
    True
    >>> resolve(np.s_[2:, ..., -1:], (4, 5, 6))
    start: 2
    start: 0
    start: 5
    stop: 4
    stop: 5
    stop: 6
    <BLANKLINE>
    """
    if region is None or isinstance(region, Region):
        return region
    if any(size < 0 for size in shape):
        return None  # the server refuses such a shape
    slices = _expand(region if isinstance(region, tuple) else (region,), len(shape))
    bounds = [_bounds(item, size, axis) for axis, (item, size) in enumerate(zip(slices, shape, strict=True))]
    return Region(start=[start for start, _ in bounds], stop=[stop for _, stop in bounds])


def _expand(items: tuple[object, ...], rank: int) -> list[slice]:
    """One slice for each dimension; omitted ones stand for the Ellipsis, or come last."""
    for item in items:
        if not isinstance(item, slice) and item is not Ellipsis:
            raise InvalidRequest("region", _refusal(item))
    slices = [item for item in items if isinstance(item, slice)]
    if len(items) - len(slices) > 1:
        raise InvalidRequest("region", "has several `...`; give one, or a slice for each dimension")
    if len(slices) > rank:
        raise InvalidRequest(
            "region", f"has {len(slices)} dimensions, the shape has {rank}; give one slice for each, or fewer"
        )
    before = items.index(Ellipsis) if len(slices) < len(items) else len(slices)
    return [*slices[:before], *[slice(None)] * (rank - len(slices)), *slices[before:]]


def _refusal(item: object) -> str:
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        index = int(item)
        return f"index {index} would drop a dimension; use the slice {index}:{index + 1 if index != -1 else ''}"
    return (
        f"{item!r} is not a slice; give np.s_[start:stop, ...], with a slice for each dimension or for the first ones"
    )


def _bounds(item: slice, size: int, axis: int) -> tuple[int, int]:
    if item.step is not None and _index(item.step) != 1:
        raise InvalidRequest("region", f"dimension {axis} has step {item.step}; only step 1 is served")
    start = 0 if item.start is None else _from_end(_index(item.start), size)
    stop = size if item.stop is None else _from_end(_index(item.stop), size)
    if start < 0 or stop < 0 or max(start, stop) > size:
        raise InvalidRequest("region", f"{_text(item)} is outside dimension {axis}, whose size is {size}")
    if start > stop:
        raise InvalidRequest("region", f"{_text(item)} is reversed in dimension {axis}; exchange start and stop")
    return start, stop


def _index(value: object) -> int:
    return arguments.integer(value, "region", "index", arguments.INT64)


def _from_end(index: int, size: int) -> int:
    return index + size if index < 0 else index


def _text(item: slice) -> str:
    return f"{'' if item.start is None else item.start}:{'' if item.stop is None else item.stop}"


def region_of(tensor_slice: TensorSlice) -> Region | None:
    """The region of a slice; None means the whole tensor."""
    return tensor_slice.region if tensor_slice.HasField("region") else None


def bounds(tensor_slice: TensorSlice | TensorDescription) -> tuple[list[int], list[int]]:
    """The region's first index in each dimension, and one past its last."""
    if tensor_slice.HasField("region"):
        return tensor_slice.region.start[:], tensor_slice.region.stop[:]
    shape = tensor_slice.spec.shape[:]
    return [0] * len(shape), shape


def extents(tensor_slice: TensorSlice | TensorDescription) -> tuple[int, ...]:
    """The region's shape."""
    if not tensor_slice.HasField("region"):
        return tuple(tensor_slice.spec.shape[:])
    start, stop = bounds(tensor_slice)
    return tuple(map(operator.sub, stop, start))


def byte_count(tensor_slice: TensorSlice) -> int:
    """The bytes of the region."""
    return math.prod(extents(tensor_slice)) * dtypes.numpy_dtype(tensor_slice.spec.dtype).itemsize


def is_sound(tensor_slice: TensorSlice) -> bool:
    """Whether the region has a shape; otherwise the server refuses it, with the reason."""
    region, rank = tensor_slice.region, len(tensor_slice.spec.shape)
    ranks_agree = not tensor_slice.HasField("region") or len(region.start) == len(region.stop) == rank
    return ranks_agree and all(extent >= 0 for extent in extents(tensor_slice))
