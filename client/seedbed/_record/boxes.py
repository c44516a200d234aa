"""Strided boxes of row-major tensors: where a view's elements are, what two views share, and a view of a view."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from seedbed._types import Array

if TYPE_CHECKING:
    import torch

Shape: TypeAlias = tuple[int, ...]


class Box(NamedTuple):
    """A strided box of a row-major tensor: index (i, j, ...) is the tensor's ``offset + i * strides[0] + ...``."""

    shape: Shape
    strides: Shape
    offset: int = 0

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Box:
        """Where a tensor's elements are in its storage."""
        return cls(tuple(tensor.size()), tuple(tensor.stride()), int(tensor.storage_offset()))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def axes(self) -> list[tuple[int, int, int]]:
        """Extent, stride, and stride in a row-major copy, of each axis with several elements; longest stride first."""
        own = row_major(self.shape)
        axes = [axis for axis in zip(self.shape, self.strides, own, strict=True) if axis[0] > 1]
        return sorted(axes, key=lambda axis: -abs(axis[1]))

    @property
    def bounds(self) -> tuple[int, int]:
        """The first element, and the one past the last; the box must not be empty."""
        steps = [(extent - 1) * stride for extent, stride, _ in self.axes]
        return self.offset + sum(min(step, 0) for step in steps), self.offset + sum(max(step, 0) for step in steps) + 1

    @property
    def is_injective(self) -> bool:
        """Whether no element is in it twice; False if in doubt."""
        reach = 0
        for extent, stride, _ in reversed(self.axes):
            if abs(stride) <= reach:
                return False
            reach += (extent - 1) * abs(stride)
        return True

    @property
    def is_dense(self) -> bool:
        """Whether it has every element between its bounds exactly once."""
        if not self.size:
            return False
        low, high = self.bounds
        return self.is_injective and high - low == self.size

    def covers(self, other: Box) -> bool:
        """Whether it has all elements of another box; False if in doubt."""
        if not other.size:
            return True
        if not self.size:
            return False
        if self.is_dense:
            return self.bounds[0] <= other.bounds[0] and other.bounds[1] <= self.bounds[1]
        return sorted_box(self) == sorted_box(other) or within(other, self) is not None

    def is_apart_from(self, other: Box) -> bool:
        """Whether two boxes have no element in common; False if in doubt."""
        if not (self.size and other.size):
            return True
        if self.bounds[1] <= other.bounds[0] or other.bounds[1] <= self.bounds[0]:
            return True
        lattice = common_lattice(self, other)
        if lattice is None:
            return False
        return any(b <= c or d <= a for (a, b), (c, d) in zip(*lattice, strict=True))


def row_major(shape: Shape) -> Shape:
    """The strides of a row-major tensor."""
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= max(size, 1)
    return tuple(reversed(strides))


def whole(shape: Shape) -> Box:
    """All of a tensor."""
    return Box(shape, row_major(shape))


def box_by(shape: Shape, change: Callable[[Any], Any]) -> Box:
    """The box that an operation of NumPy takes of a row-major array of this shape, without its memory."""
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), shape, row_major(shape))
    view = change(array)
    address = array.__array_interface__["data"][0]
    offset = view.__array_interface__["data"][0] - address if view.size else 0
    return Box(tuple(view.shape), tuple(view.strides), offset)


def elements(flat: Array, box: Box) -> Array:
    """A box of a flat array, as a view of its memory."""
    strides = [stride * flat.itemsize for stride in box.strides]
    return np.lib.stride_tricks.as_strided(flat[box.offset :], box.shape, strides)


def sorted_box(box: Box) -> tuple[Any, ...]:
    """A key that is equal for boxes with the same elements, whatever the order of their axes."""
    axes = [(extent, abs(stride)) for extent, stride, _ in box.axes]
    merged: list[tuple[int, int]] = []
    for extent, stride in axes:
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = merged[-1][0] * extent, stride
        else:
            merged.append((extent, stride))
    return (box.bounds[0] if box.size else 0, *merged)


def common_lattice(a: Box, b: Box) -> tuple[list[tuple[int, int]], list[tuple[int, int]]] | None:
    """Two boxes as ranges along the axes of one tensor; None if no tensor has both as regions."""
    if any(stride < 0 for box in (a, b) for _, stride, _ in box.axes):
        return None
    strides = sorted({stride for box in (a, b) for _, stride, _ in box.axes} | {1}, reverse=True)
    if any(outer % inner for outer, inner in itertools.pairwise(strides)):
        return None
    ranges = [_ranges(box, strides) for box in (a, b)]
    return None if ranges[0] is None or ranges[1] is None else (ranges[0], ranges[1])


def _ranges(box: Box, strides: list[int]) -> list[tuple[int, int]] | None:
    """Start and stop along each stride; None if the box runs over from one axis into the next."""
    extents = dict.fromkeys(strides, 1)
    for extent, stride, _ in box.axes:
        if extents[stride] > 1:
            return None
        extents[stride] = extent
    ranges, rest, outer = [], box.offset, 0
    for stride in strides:
        first, rest = divmod(rest, stride)
        if outer and first + extents[stride] > outer // stride:
            return None
        ranges.append((first, first + extents[stride]))
        outer = stride
    return ranges


def within(inner: Box, outer: Box) -> Box | None:
    """A box inside another, counted in the elements of the outer one; None if it is not inside, or in doubt."""
    if not inner.size:
        return None
    axes = outer.axes
    if any(stride <= 0 for _, stride, _ in axes) or not outer.is_injective:
        return None
    rest, offset = inner.offset - outer.offset, 0
    if rest < 0:
        return None
    room: dict[int, tuple[int, int]] = {}  # by stride: what is left of the axis, and its stride in the outer box
    for extent, stride, own in axes:
        first = min(rest // stride, extent - 1)
        rest -= first * stride
        offset += first * own
        room[stride] = extent - 1 - first, own
    if rest:
        return None
    strides = []
    for extent, stride in zip(inner.shape, inner.strides, strict=True):
        step = 0
        if extent > 1 and stride:
            decomposed = _decomposed(stride, extent, axes, room)
            if decomposed is None:
                return None
            step = decomposed
        strides.append(step)
    return Box(inner.shape, tuple(strides), offset)


def _decomposed(
    stride: int, extent: int, axes: Sequence[tuple[int, int, int]], room: dict[int, tuple[int, int]]
) -> int | None:
    """A stride as steps along axes, which must not run over; uses up their room."""
    if stride < 0:
        return None
    own_step, rest = 0, stride
    for _, axis_stride, own in axes:
        count, rest = divmod(rest, axis_stride)
        if not count:
            continue
        left = room[axis_stride][0] - count * (extent - 1)
        if left < 0:
            return None
        room[axis_stride] = left, own
        own_step += count * own
    return None if rest else own_step


def is_same(a: Box, b: Box) -> bool:
    """Whether two boxes of the same shape have the same elements at the same indices."""
    return a.offset == b.offset and all(
        size <= 1 or s == t for size, s, t in zip(a.shape, a.strides, b.strides, strict=True)
    )


def joined(outer: Box, inner: Box) -> Box | None:
    """A box of a box as one box; None if its strides run over from one axis of the inner box into the next."""
    own = row_major(inner.shape)
    axes = [
        (extent, stride, step)
        for extent, stride, step in zip(inner.shape, inner.strides, own, strict=True)
        if extent > 1
    ]
    merged = _merged_flat(axes)
    flat = Box(tuple(extent for extent, _, _ in merged), tuple(step for _, _, step in merged))
    located = _located(outer, flat, [stride for _, stride, _ in merged])
    if located is None:
        return None
    strides, offset = located
    return Box(outer.shape, strides, inner.offset + offset)


def _merged_flat(axes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    merged: list[tuple[int, int, int]] = []
    for extent, stride, step in axes:
        if merged and merged[-1][1] == extent * stride and merged[-1][2] == extent * step:
            merged[-1] = merged[-1][0] * extent, stride, step
        else:
            merged.append((extent, stride, step))
    return merged


def _located(outer: Box, flat: Box, steps: list[int]) -> tuple[Shape, int] | None:
    """The outer box's strides and offset, counted in the given steps along the axes of a row-major tensor."""
    low, rest, offset = [], outer.offset, 0
    high = list(flat.shape)
    for stride, step in zip(flat.strides, steps, strict=True):
        first, rest = divmod(rest, stride)
        low.append(first)
        offset += first * step
    up, down = list(low), list(low)
    strides = []
    for extent, stride in zip(outer.shape, outer.strides, strict=True):
        sign, rest, total = (-1 if stride < 0 else 1), abs(stride), 0
        if extent > 1:
            for axis, (own, step) in enumerate(zip(flat.strides, steps, strict=True)):
                count, rest = divmod(rest, own)
                total += sign * count * step
                if sign > 0:
                    up[axis] += count * (extent - 1)
                else:
                    down[axis] -= count * (extent - 1)
        strides.append(total)
    if any(d < 0 or u >= h for d, u, h in zip(down, up, high, strict=True)):
        return None
    return tuple(strides), offset
