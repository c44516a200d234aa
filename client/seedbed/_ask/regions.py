"""The part of a tensor that is wanted: ``np.s_[...]`` expressions into Region messages, and their shapes."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

from seedbed import dtypes
from seedbed._ask import arguments
from seedbed._types import RegionLike
from seedbed.errors import InvalidRequest
from seedbed.v1 import Region, TensorSlice


def resolve(region: RegionLike | None, shape: Sequence[int]) -> Region | None:
    """A region of a shape as a message; None means all of it.

    Args:
        region: Slices as ``np.s_`` makes them, with NumPy's meaning of negative and omitted ends and of dimensions that
            are left out; or a message, which is the server's to judge.
        shape: The global shape.

    Raises:
        InvalidRequest: If a slice has a step, is reversed or outside the shape, or there are more than dimensions.

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
        return None  # there is no region of such a shape, which the server will refuse
    slices = _expand(region if isinstance(region, tuple) else (region,), len(shape))
    bounds = [_bounds(part, size, axis) for axis, (part, size) in enumerate(zip(slices, shape, strict=True))]
    return Region(start=[start for start, _ in bounds], stop=[stop for _, stop in bounds])


def _expand(parts: tuple[object, ...], rank: int) -> list[slice]:
    """One slice for each dimension; those that are missing are where the Ellipsis is, else at the end."""
    for part in parts:
        if not isinstance(part, slice) and part is not Ellipsis:
            raise InvalidRequest("region", _refusal(part))
    given = [part for part in parts if isinstance(part, slice)]
    if len(parts) - len(given) > 1:
        raise InvalidRequest("region", "has several `...`; give one, or a slice for each dimension")
    if len(given) > rank:
        raise InvalidRequest(
            "region", f"has {len(given)} dimensions, the shape has {rank}; give one slice for each, or fewer"
        )
    before = parts.index(Ellipsis) if len(given) < len(parts) else len(given)
    return [*given[:before], *[slice(None)] * (rank - len(given)), *given[before:]]


def _refusal(part: object) -> str:
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        part = int(part)
        return f"index {part} would drop a dimension; use the slice {part}:{part + 1 if part != -1 else ''}"
    return f"{part!r} is not a slice; give np.s_[start:stop, ...], slices of the first dimensions or of all"


def _bounds(part: slice, size: int, axis: int) -> tuple[int, int]:
    if part.step is not None and _index(part.step) != 1:
        raise InvalidRequest("region", f"dimension {axis} has step {part.step}; only step 1 is served")
    start = 0 if part.start is None else _from_end(_index(part.start), size)
    stop = size if part.stop is None else _from_end(_index(part.stop), size)
    if start < 0 or stop < 0 or max(start, stop) > size:
        raise InvalidRequest("region", f"{_text(part)} is outside dimension {axis}, whose size is {size}")
    if start > stop:
        raise InvalidRequest("region", f"{_text(part)} is reversed in dimension {axis}; exchange start and stop")
    return start, stop


def _index(value: object) -> int:
    return arguments.integer(value, "region", "index", arguments.INT64)


def _from_end(index: int, size: int) -> int:
    return index + size if index < 0 else index


def _text(part: slice) -> str:
    return f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"


def bounds(wanted: TensorSlice) -> tuple[list[int], list[int]]:
    """The first index of the part wanted in each dimension, and one past the last."""
    if wanted.HasField("region"):
        return wanted.region.start[:], wanted.region.stop[:]
    shape = wanted.spec.shape[:]
    return [0] * len(shape), shape


def extents(wanted: TensorSlice) -> tuple[int, ...]:
    """The shape of the part wanted."""
    if not wanted.HasField("region"):
        return tuple(wanted.spec.shape[:])
    start, stop = bounds(wanted)
    return tuple(map(operator.sub, stop, start))


def byte_count(wanted: TensorSlice) -> int:
    """The bytes of the part wanted."""
    return math.prod(extents(wanted)) * dtypes.numpy_dtype(wanted.spec.dtype).itemsize


def is_sound(wanted: TensorSlice) -> bool:
    """Whether the part wanted has a shape at all; if not, the server will refuse it and say why."""
    region, rank = wanted.region, len(wanted.spec.shape)
    ranks_agree = not wanted.HasField("region") or len(region.start) == len(region.stop) == rank
    return ranks_agree and all(extent >= 0 for extent in extents(wanted))
