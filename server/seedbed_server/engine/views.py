"""Views of row-major tensors: maps runs of flat indices between a strided box and its tensor, in both directions.

Index (i, j, ...) of a view is its tensor's element ``offset + i * strides[0] + j * strides[1] + ...``. A view has flat
indices too, those of its shape in row-major order. Everything here works on runs of consecutive flat indices rather
than on elements; the worst case, runs of one element, costs a few operations for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import Region, View

from .errors import InvalidSpec
from .regions import Runs

Indices = NDArray[np.int64]

MAX_DIMENSIONS = 64
"""The most dimensions of a shape."""

_NONE = np.zeros(0, np.int64)


class _Axis(NamedTuple):
    """One axis of a view: its extent, and its strides in the tensor and in the view."""

    extent: int
    stride: int
    own: int


class Box(NamedTuple):
    """The geometry of a view."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of indices."""
        return math.prod(self.shape)

    @property
    def is_injective(self) -> bool:
        """Whether no element occurs twice; a sufficient test: each stride exceeds the reach of all smaller ones."""
        reach = 0
        for axis in sorted(self.axes(), key=lambda axis: abs(axis.stride)):
            if abs(axis.stride) <= reach:
                return False
            reach += (axis.extent - 1) * abs(axis.stride)
        return True

    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest flat index in the tensor; the box must not be empty."""
        steps = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        return self.offset + sum(min(step, 0) for step in steps), self.offset + sum(max(step, 0) for step in steps)

    def taken(self, elements: Runs) -> Runs:
        """The tensor's flat indices of these elements of the view, in the same order."""
        axes = _merged(self.axes())
        length, axes = _run(axes)
        if not axes:  # the view is one run of the tensor
            return elements[0] + self.offset, elements[1]
        starts, lengths = elements
        first, last = starts // length, (starts + lengths - 1) // length
        source, segment = counted(first, last + 1)
        begin: Indices = np.maximum(segment * length, starts[source])
        end: Indices = np.minimum((segment + 1) * length, (starts + lengths)[source])
        taken, _ = _decoded(axes, segment, self.offset)
        return taken + (begin - segment * length), end - begin

    def axes(self) -> list[_Axis]:
        """The axes of more than one element, outermost first."""
        own = row_major(self.shape)
        axes = map(_Axis, self.shape, self.strides, own)
        return [axis for axis in axes if axis.extent > 1]


class BoxIndex:
    """Finds elements of a tensor in a box, as segments: runs that are consecutive in the tensor and in the box.

    Segments are numbered by their order in the tensor.

    Args:
        box: An injective box that is not empty.
    """

    def __init__(self, box: Box) -> None:
        axes, self._offset, self._own_offset = [], box.offset, 0
        for axis in sorted(box.axes(), key=lambda axis: -abs(axis.stride)):
            if axis.stride < 0:  # count from the other end
                self._offset += (axis.extent - 1) * axis.stride
                self._own_offset += (axis.extent - 1) * axis.own
                axis = _Axis(axis.extent, -axis.stride, -axis.own)  # noqa: PLW2901 - the same axis
            axes.append(axis)
        self._length, self._axes = _run(_merged(axes))
        _, self._last = box.bounds()

    def locate(self, elements: Runs) -> tuple[Indices, Runs]:
        """Finds those of the tensor's elements that are in the box.

        Returns:
            The position of each found run, counted through ``elements``; and the runs, in flat indices of the box.
        """
        starts, lengths = elements
        if len(starts) == 1:
            return self._locate_one(int(starts[0]), int(lengths[0]))
        first = _count_below(self._axes, starts - (self._length - 1) - self._offset)
        last = _count_below(self._axes, starts + lengths - self._offset)
        run, segment = counted(first, last)
        segment_start, own_start = _decoded(self._axes, segment, self._offset, self._own_offset)
        begin: Indices = np.maximum(segment_start, starts[run])
        end: Indices = np.minimum(segment_start + self._length, (starts + lengths)[run])
        before = np.cumsum(lengths) - lengths
        return before[run] + begin - starts[run], (own_start + (begin - segment_start), end - begin)

    def _locate_one(self, start: int, length: int) -> tuple[Indices, Runs]:
        """The same for a single run, the common case: ten times as fast as arrays of length 1."""
        if start > self._last or start + length <= self._offset:
            return _NONE, (_NONE, _NONE)
        first = _count_one_below(self._axes, start - (self._length - 1) - self._offset)
        last = _count_one_below(self._axes, start + length - self._offset)
        if last <= first:
            return _NONE, (_NONE, _NONE)
        segment = np.arange(first, last)
        segment_start, own = _decoded(self._axes, segment, self._offset - start, self._own_offset)
        lengths = np.full(last - first, self._length)
        if (missing := -int(segment_start[0])) > 0:  # only the first one can begin too early
            segment_start[0] = 0
            own[0] += missing
            lengths[0] -= missing
        if (beyond := int(segment_start[-1] + lengths[-1]) - length) > 0:
            lengths[-1] -= beyond
        return segment_start, (own, lengths)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major tensor, in elements.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    return tuple(reversed(strides))


def whole(shape: Sequence[int]) -> Box:
    """A whole tensor, as a box."""
    return Box(tuple(shape), row_major(shape))


def axis_first(shape: Sequence[int], axis: int) -> Box:
    """A tensor as a view of itself with ``axis`` moved to the front.

    >>> axis_first((2, 3, 4), 1)
    Box(shape=(2, 3, 4), strides=(4, 8, 1), offset=0)
    """
    others = [*shape[:axis], *shape[axis + 1 :]]
    strides = row_major(others)
    return Box(tuple(shape), (*strides[:axis], math.prod(others), *strides[axis:]))


def region_box(region: Region, shape: Sequence[int]) -> Box:
    """A region of a tensor, as a box."""
    strides = row_major(shape)
    extents = tuple(high - low for low, high in zip(region.start, region.stop, strict=True))
    return Box(extents, strides, sum(low * stride for low, stride in zip(region.start, strides, strict=True)))


def broadcast(shape: Sequence[int], to: Sequence[int]) -> Box | None:
    """A tensor broadcast to another shape by NumPy's rules; None if that is impossible.

    >>> broadcast((3, 1), (2, 3, 4))
    Box(shape=(2, 3, 4), strides=(0, 1, 0), offset=0)
    """
    missing = len(to) - len(shape)
    if missing < 0 or any(size not in (1, target) for size, target in zip(shape, to[missing:], strict=True)):
        return None
    strides = [0 if size == 1 else stride for size, stride in zip(shape, row_major(shape), strict=True)]
    return Box(tuple(to), (0,) * missing + tuple(strides))


def checked(view: View, elements: int, field: str) -> Box:
    """Validates a view of a tensor.

    Args:
        view: The view.
        elements: The number of elements of the tensor.
        field: The path of the view in errors.

    Raises:
        InvalidSpec: The numbers of strides and dimensions differ, or an index is outside the tensor.
    """
    check_dimensions(view.shape, f"{field}.shape")
    if len(view.shape) != len(view.strides):
        raise InvalidSpec(
            f"{field}.strides",
            f"has {len(view.strides)} numbers for {len(view.shape)} dimensions; give one stride for each",
        )
    box = Box(tuple(view.shape), tuple(view.strides), view.offset)
    if box.size >= 2**63:
        raise InvalidSpec(f"{field}.shape", f"{list(box.shape)} has more than 2^63 - 1 elements; give a smaller shape")
    if box.size:
        low, high = box.bounds()
        if low < 0 or high >= elements:
            outside = low if low < 0 else high
            raise InvalidSpec(
                field,
                f"takes element {outside}, outside the tensor of {elements} elements; correct shape, strides or offset",
            )
    return box


def check_dimensions(shape: Sequence[int], field: str) -> None:
    """Refuses a shape with too many dimensions or a negative size."""
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidSpec(field, f"{len(shape)} dimensions are over the limit of {MAX_DIMENSIONS}; use fewer")
    for axis, size in enumerate(shape):
        if size < 0:
            raise InvalidSpec(f"{field}[{axis}]", f"{size} is negative; give 0 or more")


def check_injective(box: Box, field: str) -> None:
    """Refuses a box to write to in which an element may occur twice."""
    if box.size and not box.is_injective:
        raise InvalidSpec(
            field,
            f"may contain an element twice: shape {list(box.shape)}, strides {list(box.strides)}; change the strides",
        )


def expanded(runs: Runs) -> Indices:
    """The flat indices of the runs, one by one."""
    starts, lengths = runs
    if len(starts) == 1:
        return np.arange(starts[0], starts[0] + lengths[0])
    ends = np.cumsum(lengths)
    indices: Indices = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return indices


def _merged(axes: Sequence[_Axis]) -> list[_Axis]:
    """The axes, adjacent ones merged where possible."""
    merged: list[_Axis] = []
    for axis in axes:
        if merged and merged[-1].stride == axis.extent * axis.stride and merged[-1].own == axis.extent * axis.own:
            merged[-1] = _Axis(merged[-1].extent * axis.extent, axis.stride, axis.own)
        else:
            merged.append(axis)
    return merged


def _run(axes: list[_Axis]) -> tuple[int, list[_Axis]]:
    """The length of the runs that the innermost axis forms, and the axes outside it."""
    if axes and axes[-1].stride == axes[-1].own == 1:
        return axes[-1].extent, axes[:-1]
    return 1, axes


def counted(first: Indices, last: Indices) -> tuple[Indices, Indices]:
    """The concatenated ranges ``first[i] .. last[i] - 1``: the ``i`` of each number, and the number."""
    counts = np.maximum(last - first, 0)
    if len(counts) == 1:
        return np.zeros(counts[0], np.int64), np.arange(first[0], first[0] + counts[0])
    source = np.repeat(np.arange(len(counts)), counts)
    return source, np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts) + first[source]


def _decoded(axes: Sequence[_Axis], segment: Indices, offset: int, own_offset: int = 0) -> tuple[Indices, Indices]:
    """The first index of segments in the tensor and in the view; ``segment`` numbers them in the order of the axes."""
    start, own = np.full_like(segment, offset), np.full_like(segment, own_offset)
    for position, axis in enumerate(reversed(axes)):
        if position == len(axes) - 1:
            coordinate = segment
        else:
            segment, coordinate = np.divmod(segment, axis.extent)
        start += coordinate * axis.stride
        own += coordinate * axis.own
    return start, own


def _count_one_below(axes: Sequence[_Axis], bound: int) -> int:
    """How many segments begin below a bound, which is relative to the first segment."""
    last, count = bound - 1, 0  # the last index below the bound
    if last < 0:
        return 0
    for axis in axes:
        coordinate = min(last // axis.stride, axis.extent - 1)
        last -= coordinate * axis.stride
        count = count * axis.extent + coordinate
    return count + 1


def _count_below(axes: Sequence[_Axis], bound: Indices) -> Indices:
    """How many segments begin below each bound, which is relative to the first segment."""
    last = bound - 1  # the last index below the bound
    is_none, count = last < 0, np.zeros_like(bound)
    for axis in axes:
        coordinate = np.minimum(last // axis.stride, axis.extent - 1)
        last = last - coordinate * axis.stride
        count = count * axis.extent + coordinate
    return np.where(is_none, 0, count + 1)
