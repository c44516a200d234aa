"""Stripes of a large tensor, which different connections or replicas send."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

from seedbed._ask import regions
from seedbed._types import Progress
from seedbed.v1 import Region, TensorSlice

_MIN_BYTES = 16 << 20
"""The least that is worth a stream."""


class Stripe(NamedTuple):
    """A share of a slice, consecutive in its row-major order."""

    tensor_slice: TensorSlice
    place: tuple[slice, ...]
    """Its place in the array of the whole slice, as an index."""


def is_large(tensor_slice: TensorSlice) -> bool:
    """Whether a slice is worth more than one stripe."""
    return regions.byte_count(tensor_slice) >= 2 * _MIN_BYTES


def split(tensor_slice: TensorSlice, max_stripes: int) -> list[Stripe]:
    """Divide a slice evenly along the first dimension that has more than one index.

    Args:
        tensor_slice: The slice, whose region is valid.
        max_stripes: The maximum number of stripes.

    Returns:
        At least one stripe; fewer than ``max_stripes`` if they would be small.

    >>> from seedbed.v1 import TensorSpec
    >>> for stripe in split(TensorSlice(spec=TensorSpec(shape=[10, 1 << 22])), 3):
    ...     print(stripe.place)
    (slice(0, 3, None),)
    (slice(3, 6, None),)
    (slice(6, 10, None),)
    """
    extents = regions.extents(tensor_slice)
    axis = next((axis for axis, extent in enumerate(extents) if extent > 1), None)
    if axis is None:
        return [Stripe(tensor_slice, ())]
    count = max(1, min(max_stripes, extents[axis], regions.byte_count(tensor_slice) // _MIN_BYTES))
    cuts = [extents[axis] * index // count for index in range(count + 1)]
    return [_stripe(tensor_slice, axis, low, high) for low, high in itertools.pairwise(cuts)]


def _stripe(tensor_slice: TensorSlice, axis: int, low: int, high: int) -> Stripe:
    start, stop = regions.bounds(tensor_slice)
    region = Region(start=start, stop=stop)
    region.start[axis], region.stop[axis] = start[axis] + low, start[axis] + high
    return Stripe(TensorSlice(spec=tensor_slice.spec, region=region), (slice(None),) * axis + (slice(low, high),))


def summed(progress: Progress, total: int) -> Callable[[], Progress]:
    """Make a progress function for each stripe that reports the sum of all.

    Args:
        progress: Called as ``progress(done_bytes, total_bytes)``, on one thread at a time.
        total: The bytes of all stripes.
    """
    lock = threading.Lock()
    done: dict[int, int] = {}

    def make() -> Progress:
        index = len(done)
        done[index] = 0

        def report(done_bytes: int, _: int) -> None:
            with lock:
                done[index] = done_bytes
                progress(sum(done.values()), total)

        return report

    return make
