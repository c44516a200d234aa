"""Parts of a tensor that are constant whatever its scheme, such as an embedding's row for padding."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

from . import dtypes
from .regions import Layout, layout

MAX_PATCHES = 1024
"""Each chunk looks at all of them."""


class Patch(NamedTuple):
    """The elements of a described region that a patch covers."""

    bits: np.unsignedinteger[Any]
    """Of the value."""
    where: Layout
    """Of the patch within the region: its flat indices are positions in the region."""
    runs: int

    def touched(self, first: int, count: int) -> range:
        """The runs that have elements among the region's ``first .. first + count - 1``."""
        every = range(self.runs)
        begin = bisect_right(every, first - self.where.run_length, key=self.where.flat_of_run)
        return range(begin, bisect_left(every, first + count, begin, key=self.where.flat_of_run))

    def apply(self, first: int, out: NDArray[Any]) -> None:
        """Overwrites what it covers of ``out``, which holds the region's elements from the first on."""
        elements = out.view(self.bits.dtype)
        touched = self.touched(first, len(out))
        starts = self.where.flat_of_run(np.arange(touched.start, touched.stop, dtype=np.int64)) - first
        for start in starts.tolist():
            elements[max(start, 0) : start + self.where.run_length] = self.bits


def patches_of(description: TensorDescription) -> list[Patch]:
    """The patches that cover some of a described region, which is not empty, in the order in which they apply."""
    start, stop = description.region.start[:], description.region.stop[:]
    extents = [high - low for low, high in zip(start, stop, strict=True)]
    patches = []
    for patch in description.spec.patches:
        low = [max(a, b) - b for a, b in zip(patch.region.start, start, strict=True)]
        high = [min(a, b) - c for a, b, c in zip(patch.region.stop, stop, start, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            where = layout(extents, low, high)
            bits = dtypes.bits_of(patch.val, description.spec.dtype)
            patches.append(Patch(bits, where, math.prod(where.extents)))
    return patches
