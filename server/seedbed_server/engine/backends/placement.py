"""Placements: where the elements of a tensor, or of a part, go in the region that is filled."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from seedbed.v1 import TensorDescription

from .. import recipes
from ..regions import layout_of
from ..spec import plan_of
from ..views import row_major

_LAWS: Final = ("uniform", "normal", "trunc_normal", "sparse", "constant", "disk")
"""The laws of parts whose elements can be sampled in place."""


class Touched(NamedTuple):
    """The consecutive runs that contain elements of a piece."""

    first: int
    number: int
    begin: int
    """The position of the first run in the region."""
    skipped: int
    """The number of elements of the first run before the piece."""
    last_end: int
    """The number of elements of the last run before the end of the piece."""


class Placement(NamedTuple):
    """Runs that are contiguous both in a tensor's flat indices and in the region that is filled.

    As `regions.Layout`, with a second offset and second strides, those of positions in the region. Runs are ordered by
    these positions.
    """

    offset: int
    out_offset: int
    run_length: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    out_strides: tuple[int, ...]

    @property
    def out_end(self) -> int:
        """The position after the last one."""
        return self.position_of_run(math.prod(self.extents) - 1) + self.run_length

    @property
    def doubled(self) -> Placement:
        """The placement of the floats of complex elements."""
        strides, out_strides = (tuple(2 * stride for stride in steps) for steps in (self.strides, self.out_strides))
        return Placement(2 * self.offset, 2 * self.out_offset, 2 * self.run_length, self.extents, strides, out_strides)

    def shift(self, per_block: int) -> int:
        """The largest offset of the start of a run into a block of ``per_block`` flat indices."""
        return per_block - 1 if any(stride % per_block for stride in self.strides) else self.offset % per_block

    def is_whole(self, per_block: int) -> bool:
        """Whether one axis lies outside the runs, and all runs consist of whole blocks, aligned in the region too."""
        lengths = (self.offset, self.run_length, *self.strides, *self.out_strides)
        return len(self.extents) == 1 and not any(length % per_block for length in lengths)

    def flat_of_run(self, run: int) -> int:
        """The first flat index of a run."""
        return _decoded(run, self.extents, self.strides, self.offset)

    def position_of_run(self, run: int) -> int:
        """The first position of a run."""
        return _decoded(run, self.extents, self.out_strides, self.out_offset)

    def touched(self, first: int, count: int) -> Touched | None:
        """The runs with elements at positions ``first .. first + count - 1``; None if there are none."""
        if not self.extents:
            low, high = max(first - self.out_offset, 0), min(first + count - self.out_offset, self.run_length)
            return Touched(0, 1, self.out_offset, low, high) if low < high else None
        begin, end = self._count_below(first - self.run_length + 1), self._count_below(first + count)
        if begin >= end:
            return None
        position = self.position_of_run(begin)
        last_end = min(self.run_length, first + count - self.position_of_run(end - 1))
        return Touched(begin, end - begin, position, max(first - position, 0), last_end)

    def _count_below(self, bound: int) -> int:
        """How many runs begin below a position."""
        last, count = bound - 1 - self.out_offset, 0  # the last position below the bound
        if last < 0:
            return 0
        for extent, stride in zip(self.extents, self.out_strides, strict=True):
            coordinate = min(last // stride, extent - 1)
            last -= coordinate * stride
            count = count * extent + coordinate
        return count + 1


class VisiblePart(NamedTuple):
    """The elements of a part that are in a described region."""

    inner: TensorDescription
    start: tuple[int, ...]
    """The first index in each dimension of the region."""
    extents: tuple[int, ...]
    placement: Placement


def placement_of(description: TensorDescription) -> Placement:
    """The placement of a whole described region, which must not be empty."""
    layout = layout_of(description)
    if not layout.extents:
        return Placement(layout.offset, 0, layout.run_length, (), (), ())
    out_strides = tuple(stride * layout.run_length for stride in row_major(layout.extents))
    return Placement(layout.offset, 0, layout.run_length, layout.extents, layout.strides, out_strides)


def visible_parts(description: TensorDescription) -> list[VisiblePart] | None:
    """The parts with elements in a described region, in order; None if any of them cannot be sampled in place."""
    plan = plan_of(description)
    assert isinstance(plan, recipes.PartsPlan)
    visible = []
    for message, part in zip(description.law.parts.parts, plan.parts, strict=True):
        if message.WhichOneof("box") == "view":
            return None
        shape = description.spec.shape
        low, high = [0] * len(shape), shape[:]
        if message.HasField("region"):
            low, high = message.region.start[:], message.region.stop[:]
        start = tuple(map(max, low, description.region.start))
        extents = tuple(map(operator.sub, map(min, high, description.region.stop), start))
        if any(extent <= 0 for extent in extents):
            continue
        if not _is_drawn_in_place(part, description):
            return None
        within = tuple(map(operator.sub, start, low))
        out = tuple(map(operator.sub, start, description.region.start))
        placement = _part_placement(part, description, within, out, extents)
        visible.append(VisiblePart(part.inner, out, extents, placement))
    return visible


def are_all_covered(description: TensorDescription, parts: Sequence[VisiblePart]) -> bool:
    """Whether the parts are known to cover a described region: one part alone does, or all do without overlap."""
    sizes = [math.prod(part.extents) for part in parts]
    if description.element_count in sizes:
        return True
    return sum(sizes) == description.element_count and are_disjoint(parts)


def are_disjoint(parts: Sequence[VisiblePart]) -> bool:
    """Whether no two parts overlap."""
    starts = np.array([part.start for part in parts], np.int64)
    stops = starts + np.array([part.extents for part in parts], np.int64)
    return not any(
        ((starts[:index] < stops[index]) & (stops[:index] > starts[index])).all(axis=1).any()
        for index in range(len(parts))
    )


def _is_drawn_in_place(part: recipes.PlacedPart, description: TensorDescription) -> bool:
    inner = part.inner
    return (
        inner.law.WhichOneof("law") in _LAWS
        and inner.spec.dtype == description.spec.dtype
        and part.source.shape == tuple(inner.spec.shape)
    )


def _part_placement(
    part: recipes.PlacedPart,
    description: TensorDescription,
    within: Sequence[int],
    out: Sequence[int],
    extents: Sequence[int],
) -> Placement:
    out_strides = row_major(list(map(operator.sub, description.region.stop, description.region.start)))
    # all elements of a constant are equal, so its runs may be those of the region
    strides = out_strides if part.inner.law.WhichOneof("law") == "constant" else row_major(part.inner.spec.shape)
    run_length, axes = _merged(zip(extents, strides, out_strides, strict=True))
    merged: Any = zip(*axes, strict=True) if axes else ((), (), ())
    return Placement(_dot(within, strides), _dot(out, out_strides), run_length, *merged)


def _merged(axes: Iterator[tuple[int, int, int]]) -> tuple[int, list[tuple[int, int, int]]]:
    """The length of the runs, and the axes outside them; adjacent axes are merged where possible.

    Args:
        axes: The extent, the stride and the stride in the region of each axis, outermost first.
    """
    run_length = 1
    merged: list[tuple[int, int, int]] = []  # innermost first
    for extent, stride, out_stride in reversed(list(axes)):
        if extent == 1:
            continue
        if not merged and stride == out_stride == run_length:
            run_length *= extent
        elif merged and (stride, out_stride) == (math.prod(merged[-1][:2]), merged[-1][0] * merged[-1][2]):
            merged[-1] = (extent * merged[-1][0], *merged[-1][1:])
        else:
            merged.append((extent, stride, out_stride))
    return run_length, merged[::-1]


def _decoded(run: int, extents: Sequence[int], strides: Sequence[int], offset: int) -> int:
    for extent, stride in zip(reversed(extents), reversed(strides), strict=True):
        run, coordinate = divmod(run, extent)
        offset += coordinate * stride
    return offset


def _dot(indices: Sequence[int], strides: Sequence[int]) -> int:
    return sum(map(operator.mul, indices, strides))
