"""The laws without chance: constant, eye and dirac. All backends share them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

from . import dtypes


def constant(description: TensorDescription) -> np.unsignedinteger[Any]:
    """The bits of a constant tensor's elements."""
    dtype = dtypes.numpy_dtype(description.spec.dtype)
    # By way of float32, which 16-bit types are rounded from (docs/stream-v1.md, «Types»).
    base = np.float64 if dtype == np.float64 else np.float32
    bits: np.unsignedinteger[Any] = base(description.law.constant.val).astype(dtype).view(f"u{dtype.itemsize}")
    return bits


def fill(description: TensorDescription, first_element: int, out: NDArray[Any], _cancelled: Callable[[], bool]) -> None:
    """Fills ``out`` with elements ``first_element ...`` of the region of an eye or dirac tensor."""
    out.view(np.uint8).fill(0)
    out[_ones(description, first_element, len(out))] = 1


def _ones(description: TensorDescription, first: int, count: int) -> NDArray[np.int64]:
    """The positions of the ones among ``count`` elements of the region.

    Eye and dirac have at most one 1 in each row (index of the first dimension), so that the rows tell them all.
    """
    start, stop = description.region.start, description.region.stop
    extents = [high - low for low, high in zip(start, stop, strict=True)]
    row_length = math.prod(extents[1:])
    rows = start[0] + np.arange(first // row_length, (first + count - 1) // row_length + 1, dtype=np.int64)
    column, centre = _column_of_one(description, rows)

    position: NDArray[np.int64] = rows - start[0]
    inside = np.full(len(rows), True)
    for axis, index in enumerate([column, *centre], start=1):
        inside &= (index >= start[axis]) & (index < stop[axis])
        position = position * extents[axis] + (index - start[axis])
    position = position - first
    inside &= (position >= 0) & (position < count)
    ones: NDArray[np.int64] = position[inside]
    return ones


def _column_of_one(
    description: TensorDescription, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The index of each row's 1 in the second dimension (-1: none), and in those after it."""
    shape = description.spec.shape
    if description.law.WhichOneof("law") == "eye":
        return np.where(rows < shape[1], rows, -1), []
    channels = shape[0] // description.law.dirac.groups
    channel = rows % channels
    return np.where(channel < shape[1], channel, -1), [np.full(len(rows), size // 2) for size in shape[2:]]
