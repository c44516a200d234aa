"""A hyper-rectangle of a row-major tensor, as runs of consecutive flat indices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Runs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The first global flat index of each run, and each run's length, in elements."""


def runs(shape: Sequence[int], start: Sequence[int], stop: Sequence[int], first: int, count: int) -> Runs:
    """The runs that hold elements ``first .. first + count - 1`` of a region, in the region's row-major order.

    Args:
        shape: The global shape.
        start: The region's first index in each dimension.
        stop: One past the region's last index in each dimension.
        first: A position within the region, in elements.
        count: How many elements; at least 1, and within the region.

    >>> runs((4, 5), (1, 2), (3, 4), 1, 3)
    (array([ 8, 12]), array([1, 2]))
    """
    inner, axis = _contiguous_tail(shape, start, stop)
    if axis <= 0:  # all of it, or some of its first dimension
        begin = start[0] * inner if axis == 0 else 0
        return np.array([begin + first]), np.array([count])
    run_length = (stop[axis] - start[axis]) * inner
    first_run, skipped = divmod(first, run_length)
    last_run, last_kept = divmod(first + count - 1, run_length)

    starts = np.full(last_run - first_run + 1, start[axis] * inner, np.int64)
    remaining = np.arange(first_run, last_run + 1, dtype=np.int64)
    for dim in reversed(range(axis)):
        extent = stop[dim] - start[dim]
        remaining, coordinate = np.divmod(remaining, extent)
        starts += (start[dim] + coordinate) * math.prod(shape[dim + 1 :])

    lengths = np.full(len(starts), run_length, np.int64)
    lengths[-1] = last_kept + 1
    starts[0] += skipped
    lengths[0] -= skipped
    return starts, lengths


def _contiguous_tail(shape: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> tuple[int, int]:
    """How many elements the last dimensions that the region covers whole hold, and the dimension before them."""
    inner, axis = 1, len(shape) - 1
    while axis >= 0 and start[axis] == 0 and stop[axis] == shape[axis]:
        inner *= shape[axis]
        axis -= 1
    return inner, axis
