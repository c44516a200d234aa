"""The deterministic laws: constant, eye and dirac."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import DataType, Law, TensorDescription

from . import dtypes
from .regions import Runs
from .views import counted


def constant(law: Law, dtype: DataType) -> np.unsignedinteger[Any]:
    """The bits of each element of a constant tensor."""
    return dtypes.bits_of(law.constant.val, dtype)


def one(description: TensorDescription) -> np.unsignedinteger[Any]:
    """The bits of a 1."""
    return dtypes.bits_of(1.0, description.spec.dtype)


class Ones(NamedTuple):
    """The ones of an eye or dirac tensor: row ``r`` has one at column ``r % period``, if that column exists."""

    rows: int
    row_stride: int
    period: int
    columns: int
    column_stride: int
    centre: int

    @classmethod
    def of(cls, description: TensorDescription) -> Ones:
        """The ones of a described tensor."""
        rows, columns, *kernel = description.spec.shape
        groups = description.law.dirac.groups if description.law.WhichOneof("law") == "dirac" else 1
        centre = 0
        for size in kernel:
            centre = centre * size + size // 2
        column_stride = math.prod(kernel)
        return cls(rows, columns * column_stride, rows // groups, columns, column_stride, centre)

    def positions(self, elements: Runs) -> NDArray[np.int64]:
        """The positions of the ones, counted through the elements of the runs."""
        starts, lengths = elements
        first, last = starts // self.row_stride, (starts + lengths - 1) // self.row_stride + 1
        run, row = counted(first, last)
        column = row % self.period
        before = np.cumsum(lengths) - lengths
        within = row * self.row_stride + column * self.column_stride + self.centre - starts[run]
        is_there = (column < self.columns) & (within >= 0) & (within < lengths[run])
        positions: NDArray[np.int64] = (before[run] + within)[is_there]
        return positions


class Diagonal(NamedTuple):
    """The ones of a region of an eye or dirac tensor: at most one in each row (index of the first dimension).

    Row ``r`` has a one in column ``r % period`` if that is below ``columns`` and in the region, at position
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
        """The range of rows that contain elements ``first .. first + count - 1`` of the region."""
        return (
            self.start_row + first // self.row_stride,
            self.start_row + (first + count - 1) // self.row_stride + 1,
        )


def diagonal(description: TensorDescription) -> Diagonal | None:
    """The ones of an eye or dirac tensor in a region that is not empty; None if the region has none."""
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
