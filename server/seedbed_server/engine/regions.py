"""A region (a hyper-rectangle of a row-major tensor) as runs of consecutive flat indices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import Region, TensorDescription

from .errors import InvalidSpec

Runs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The first global flat index and the length of each run, in elements."""

_Index = TypeVar("_Index", int, NDArray[np.signedinteger[Any]])


class Layout(NamedTuple):
    """The runs of a region.

    ``extents`` are those of the region's dimensions outside a run, outermost first; ``strides`` are those of the global
    tensor. Adjacent dimensions are merged where possible.
    """

    offset: int
    """The flat index of the region's first element."""
    run_length: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]

    def flat_of_run(self, run: _Index) -> _Index:
        """The first flat index of a run, or of each of an array of runs."""
        flat = run * 0 + self.offset
        for extent, stride in zip(self.extents[::-1], self.strides[::-1], strict=True):
            run, coordinate = divmod(run, extent)
            flat += coordinate * stride
        return flat


def check_region(region: Region, shape: Sequence[int], field: str) -> None:
    """Validates a region of a shape.

    Raises:
        InvalidSpec: The region is not within the shape.
    """
    for bound in ("start", "stop"):
        if (rank := len(getattr(region, bound))) != len(shape):
            raise InvalidSpec(
                f"{field}.{bound}", f"has {rank} dimensions, but the shape has {len(shape)}; give one number for each"
            )
    for axis, (start, stop, size) in enumerate(zip(region.start, region.stop, shape, strict=True)):
        if start > stop:
            raise InvalidSpec(f"{field}.start[{axis}]", f"start {start} is after stop {stop}; swap them")
        if start < 0:
            raise InvalidSpec(f"{field}.start[{axis}]", f"{start} is negative; give 0 or more")
        if stop > size:
            raise InvalidSpec(
                f"{field}.stop[{axis}]", f"{stop} is beyond the dimension's size {size}; give at most {size}"
            )


def layout(shape: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> Layout:
    """The layout of a region that is not empty.

    Args:
        shape: The global shape.
        start: The region's first index in each dimension.
        stop: One past the region's last index in each dimension.

    >>> layout((4, 5), (1, 2), (3, 4))
    Layout(offset=7, run_length=2, extents=(2,), strides=(5,))
    >>> layout((4, 5), (1, 0), (3, 5))
    Layout(offset=5, run_length=10, extents=(), strides=())
    """
    offset, run_length, stride = 0, 1, 1
    outer: list[tuple[int, int]] = []
    for size, low, high in zip(reversed(shape), reversed(start), reversed(stop), strict=True):
        offset += low * stride
        extent = high - low
        if not outer and run_length == stride:  # the run covers all inner dimensions
            run_length *= extent
        elif outer and stride == math.prod(outer[-1]):
            outer[-1] = (extent * outer[-1][0], outer[-1][1])
        elif extent > 1:
            outer.append((extent, stride))
        stride *= size
    extents, strides = zip(*reversed(outer), strict=True) if outer else ((), ())
    return Layout(offset, run_length, extents, strides)


def layout_of(description: TensorDescription) -> Layout:
    """The layout of a described region, which is not empty."""
    shape, count = description.spec.shape, description.element_count
    if count == math.prod(shape):
        return Layout(0, count, (), ())  # the common case: the whole tensor
    return layout(shape, description.region.start, description.region.stop)


def runs(where: Layout, first: int, count: int) -> Runs:
    """The runs of elements ``first .. first + count - 1`` of a region, in the region's row-major order.

    Args:
        where: The region's layout.
        first: A position within the region, in elements.
        count: The number of elements, at least 1 and within the region.

    >>> runs(layout((4, 5), (1, 2), (3, 4)), 1, 3)
    (array([ 8, 12]), array([1, 2]))
    """
    if not where.extents:
        return np.array([where.offset + first]), np.array([count])
    first_run, skipped = divmod(first, where.run_length)
    last_run, last_kept = divmod(first + count - 1, where.run_length)
    starts = where.flat_of_run(np.arange(first_run, last_run + 1, dtype=np.int64))
    lengths = np.full(len(starts), where.run_length, np.int64)
    lengths[-1] = last_kept + 1
    starts[0] += skipped
    lengths[0] -= skipped
    return starts, lengths


def tiles(elements: Runs, size: int) -> Iterator[tuple[int, Runs]]:
    """Splits runs into tiles of ``size`` elements; yields each with the position of its first element.

    >>> elements = np.array([5, 20]), np.array([3, 2])
    >>> [(begin, starts.tolist(), lengths.tolist()) for begin, (starts, lengths) in tiles(elements, 4)]
    [(0, [5, 20], [3, 1]), (4, [21], [1])]
    """
    starts, lengths = elements
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    if total <= size:
        yield 0, elements
        return
    for begin in range(0, total, size):
        end = min(begin + size, total)
        first, last = np.searchsorted(ends, begin, "right"), np.searchsorted(ends, end, "left")
        some, counts = starts[first : last + 1].copy(), lengths[first : last + 1].copy()
        skipped = begin - int(ends[first] - lengths[first])
        counts[-1] -= int(ends[last]) - end
        some[0] += skipped
        counts[0] -= skipped
        yield begin, (some, counts)
