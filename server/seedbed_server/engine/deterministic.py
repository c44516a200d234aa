"""The laws without chance: constant, eye and dirac."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

from . import dtypes


def constant(description: TensorDescription) -> np.unsignedinteger[Any]:
    """The bits of a constant tensor's elements."""
    return dtypes.bits_of(description.law.constant.val, description.spec.dtype)


def one(description: TensorDescription) -> np.unsignedinteger[Any]:
    """The bits of a 1."""
    return dtypes.bits_of(1.0, description.spec.dtype)


class Diagonal(NamedTuple):
    """Where a region of an eye or dirac tensor has its ones: at most one in each row (index of the first dimension).

    Row ``r`` has its one in column ``r % period``, if that is one of the ``columns`` and in the region, at position
    ``(r - start_row) * row_stride + (column - start_column) * column_stride + centre`` of the region.
    """

    start_row: int
    period: int
    columns: int
    start_column: int
    stop_column: int
    row_stride: int
    column_stride: int
    centre: int

    def rows(self, first: int, count: int) -> tuple[int, int]:
        """The rows, from and to, that the region's elements ``first .. first + count - 1`` belong to."""
        return (
            self.start_row + first // self.row_stride,
            self.start_row + (first + count - 1) // self.row_stride + 1,
        )

    def positions(self, first: int, count: int) -> NDArray[np.int64]:
        """The positions of the ones among the region's elements ``first .. first + count - 1``, from the first on."""
        row = np.arange(*self.rows(first, count), dtype=np.int64)
        column = row % self.period
        inside = (column < self.columns) & (column >= self.start_column) & (column < self.stop_column)
        position = (row - self.start_row) * self.row_stride + (column - self.start_column) * self.column_stride
        position += self.centre - first
        inside &= (position >= 0) & (position < count)
        ones: NDArray[np.int64] = position[inside]
        return ones


def diagonal(description: TensorDescription) -> Diagonal | None:
    """Where the ones of an eye or dirac tensor are in a region that is not empty; None if there are none."""
    shape, start, stop = (
        list(field) for field in (description.spec.shape, description.region.start, description.region.stop)
    )
    extents = [high - low for low, high in zip(start, stop, strict=True)]
    centre = 0
    for size, low, extent in zip(shape[2:], start[2:], extents[2:], strict=True):
        index = size // 2 - low
        if not 0 <= index < extent:
            return None
        centre = centre * extent + index
    groups = description.law.dirac.groups if description.law.WhichOneof("law") == "dirac" else 1
    return Diagonal(
        start_row=start[0],
        period=shape[0] // groups,
        columns=shape[1],
        start_column=start[1],
        stop_column=stop[1],
        row_stride=math.prod(extents[1:]),
        column_stride=math.prod(extents[2:]),
        centre=centre,
    )
