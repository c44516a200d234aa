"""A large tensor in stripes, each of which another connection, or another replica, may send."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

from seedbed._ask import regions
from seedbed._types import Progress
from seedbed.v1 import Region, TensorSlice

_LEAST_BYTES = 16 << 20
"""Of a stripe: what is worth a stream of its own."""


class Stripe(NamedTuple):
    """A part of a tensor, which is consecutive in the part wanted."""

    wanted: TensorSlice
    where: tuple[slice, ...]
    """Its place in the array of the part wanted."""


def is_large(wanted: TensorSlice) -> bool:
    """Whether the part wanted is worth more than one stripe."""
    return regions.byte_count(wanted) >= 2 * _LEAST_BYTES


def split(wanted: TensorSlice, most: int) -> list[Stripe]:
    """Divides the part wanted evenly along the first dimension that has more than one index.

    Args:
        wanted: The part, of a sound shape.
        most: How many stripes there may be.

    Returns:
        At least one stripe; fewer than ``most`` if they would be small.

    >>> from seedbed.v1 import TensorSpec
    >>> for stripe in split(TensorSlice(spec=TensorSpec(shape=[10, 1 << 22])), 3):
    ...     print(stripe.where)
    (slice(0, 3, None),)
    (slice(3, 6, None),)
    (slice(6, 10, None),)
    """
    extents = regions.extents(wanted)
    axis = next((axis for axis, extent in enumerate(extents) if extent > 1), None)
    if axis is None:
        return [Stripe(wanted, ())]
    count = max(1, min(most, extents[axis], regions.byte_count(wanted) // _LEAST_BYTES))
    cuts = [extents[axis] * index // count for index in range(count + 1)]
    return [_stripe(wanted, axis, low, high) for low, high in itertools.pairwise(cuts)]


def _stripe(wanted: TensorSlice, axis: int, low: int, high: int) -> Stripe:
    start, stop = regions.bounds(wanted)
    region = Region(start=start, stop=stop)
    region.start[axis], region.stop[axis] = start[axis] + low, start[axis] + high
    return Stripe(TensorSlice(spec=wanted.spec, region=region), (slice(None),) * axis + (slice(low, high),))


def summed(progress: Progress, total: int) -> Callable[[], Progress]:
    """Gives each stripe a progress of its own, which reports the sum of all.

    Args:
        progress: Called as ``progress(done_bytes, total_bytes)``, by one thread at a time.
        total: The bytes of all stripes.
    """
    lock = threading.Lock()
    done: dict[int, int] = {}

    def of_stripe() -> Progress:
        index = len(done)
        done[index] = 0

        def report(done_bytes: int, _: int) -> None:
            with lock:
                done[index] = done_bytes
                progress(sum(done.values()), total)

        return report

    return of_stripe
