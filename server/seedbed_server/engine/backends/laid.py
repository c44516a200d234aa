"""Where the elements of a tensor, or of a part of one, lie in its flat indices and in a region that is written."""

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
"""Of parts whose elements can be made where they belong."""


class Touched(NamedTuple):
    """Consecutive runs that have elements of a piece."""

    first: int
    number: int
    begin: int
    """The position of the first run in the region."""
    skipped: int
    """How many elements of the first run come before the piece."""
    last_end: int
    """How many elements of the last run come before the piece's end."""


class Laid(NamedTuple):
    """Runs that are contiguous both in a tensor's flat indices and in the region that they are written to.

    As `regions.Layout`, with a second offset and second strides: those of positions in the region, in which the runs
    ascend.
    """

    offset: int
    out_offset: int
    run_length: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    out_strides: tuple[int, ...]

    @property
    def out_end(self) -> int:
        """One past the last position."""
        return self.position_of_run(math.prod(self.extents) - 1) + self.run_length

    @property
    def doubled(self) -> Laid:
        """The same of elements half as long, of which there are twice as many."""
        strides, out_strides = (tuple(2 * stride for stride in steps) for steps in (self.strides, self.out_strides))
        return Laid(2 * self.offset, 2 * self.out_offset, 2 * self.run_length, self.extents, strides, out_strides)

    def shift(self, per_block: int) -> int:
        """How far into a block of so many flat indices runs begin, at the most."""
        return per_block - 1 if any(stride % per_block for stride in self.strides) else self.offset % per_block

    def is_whole(self, per_block: int) -> bool:
        """Whether there is one axis beyond the runs, and all of these are of whole blocks, there and in the region."""
        lengths = (self.offset, self.run_length, *self.strides, *self.out_strides)
        return len(self.extents) == 1 and not any(length % per_block for length in lengths)

    def flat_of_run(self, run: int) -> int:
        """The flat index at which a run begins."""
        return _decoded(run, self.extents, self.strides, self.offset)

    def position_of_run(self, run: int) -> int:
        """The position at which a run begins."""
        return _decoded(run, self.extents, self.out_strides, self.out_offset)

    def touched(self, first: int, count: int) -> Touched | None:
        """The runs that have elements at positions ``first .. first + count - 1``; None if there are none."""
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
        last, count = bound - 1 - self.out_offset, 0  # the last position that counts
        if last < 0:
            return 0
        for extent, stride in zip(self.extents, self.out_strides, strict=True):
            coordinate = min(last // stride, extent - 1)
            last -= coordinate * stride
            count = count * extent + coordinate
        return count + 1


class VisiblePart(NamedTuple):
    """What a described region has of a part."""

    inner: TensorDescription
    start: tuple[int, ...]
    """Its first index in each dimension of the region."""
    extents: tuple[int, ...]
    where: Laid


def laid_of(description: TensorDescription) -> Laid:
    """A described region, which is not empty, written to itself."""
    where = layout_of(description)
    if not where.extents:
        return Laid(where.offset, 0, where.run_length, (), (), ())
    out_strides = tuple(stride * where.run_length for stride in row_major(where.extents))
    return Laid(where.offset, 0, where.run_length, where.extents, where.strides, out_strides)


def visible_parts(description: TensorDescription) -> list[VisiblePart] | None:
    """The parts that a described region has some of, in their order; None if some cannot be made where they belong."""
    plan = plan_of(description)
    assert isinstance(plan, recipes.PartsPlan)
    visible = []
    for given, part in zip(description.law.parts.parts, plan.parts, strict=True):
        if given.WhichOneof("box") == "view":
            return None
        shape = description.spec.shape
        low, high = (given.region.start, given.region.stop) if given.HasField("region") else ([0] * len(shape), shape)
        start = tuple(map(max, low, description.region.start))
        extents = tuple(map(operator.sub, map(min, high, description.region.stop), start))
        if any(extent <= 0 for extent in extents):
            continue
        if not _is_drawn_in_place(part, description):
            return None
        within = tuple(map(operator.sub, start, low))
        out = tuple(map(operator.sub, start, description.region.start))
        where = _laid_part(part, description, within, out, extents)
        visible.append(VisiblePart(part.inner, out, extents, where))
    return visible


def are_all_covered(description: TensorDescription, parts: Sequence[VisiblePart]) -> bool:
    """Whether parts are known to cover a described region: one alone, or all if no two overlap."""
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


def _laid_part(
    part: recipes.PlacedPart,
    description: TensorDescription,
    within: Sequence[int],
    out: Sequence[int],
    extents: Sequence[int],
) -> Laid:
    out_strides = row_major(list(map(operator.sub, description.region.stop, description.region.start)))
    # the elements of a constant are all alike, so that its runs are those of the region
    strides = out_strides if part.inner.law.WhichOneof("law") == "constant" else row_major(part.inner.spec.shape)
    run_length, axes = _merged(zip(extents, strides, out_strides, strict=True))
    merged: Any = zip(*axes, strict=True) if axes else ((), (), ())
    return Laid(_dot(within, strides), _dot(out, out_strides), run_length, *merged)


def _merged(axes: Iterator[tuple[int, int, int]]) -> tuple[int, list[tuple[int, int, int]]]:
    """The length of runs, and the axes beyond them; those that can be counted as one are one.

    Args:
        axes: The extent, the stride and the stride in the region of each, outermost first.
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
