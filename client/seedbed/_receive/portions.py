"""Many tensors in portions, each of which a stream of its own brings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from seedbed._ask import regions
from seedbed._receive import stripes
from seedbed._receive.assembler import ModelAssembler
from seedbed.common import fields
from seedbed.errors import InvalidRequest
from seedbed.v1 import Region, TensorSlice

_BYTES = 64 << 20
"""Of a portion: worth a stream, and little enough that streams end at about the same time."""

_TENSORS = 1_000
"""The most of a portion: a request has to stay smaller than what a server takes."""


class Portion(NamedTuple):
    """Tensors that follow each other, or a stripe of one."""

    tensor: int
    """Which of all tensors is the first."""
    parts: list[TensorSlice]
    first_element: int = 0
    """Of a stripe: the position, within the part that was wanted, of its first element."""

    def assembler(self, connection: int) -> ModelAssembler:
        """What follows its stream, over one of a transport's connections."""
        return ModelAssembler(self.parts, connection)

    def renamed(self, error: InvalidRequest) -> InvalidRequest:
        """An error about one of its tensors as one about all tensors."""
        return fields.renumbered(error, lambda index: self.tensor + index)


def portions(wanted: Sequence[TensorSlice]) -> Iterator[Portion]:
    """Divides tensors, of sound shapes, into portions of about as many bytes."""
    first, group, size = 0, list[TensorSlice](), 0
    for index, part in enumerate(wanted):
        byte_count = regions.byte_count(part)
        if group and (size + byte_count > _BYTES or len(group) == _TENSORS):
            yield Portion(first, group)
            group, size = [], 0
        if byte_count > _BYTES:
            yield from _stripes_of(index, part, byte_count)
            continue
        if not group:
            first = index
        group.append(part)
        size += byte_count
    if group:
        yield Portion(first, group)


def nothing_of(wanted: Sequence[TensorSlice]) -> Iterator[Portion]:
    """Empty regions of the same tensors: who asks for them has all judged, and gets no elements.

    A region that was given is left out, and judged when it is asked for.
    """
    for first in range(0, len(wanted), _TENSORS):
        parts = wanted[first : first + _TENSORS]
        yield Portion(first, [TensorSlice(spec=part.spec, region=_empty(len(part.spec.shape))) for part in parts])


def _empty(rank: int) -> Region:
    return Region(start=[0] * rank, stop=[0] * rank)


def _stripes_of(index: int, part: TensorSlice, byte_count: int) -> Iterator[Portion]:
    first_element = 0
    for stripe in stripes.split(part, -(-byte_count // _BYTES)):
        yield Portion(index, [stripe.wanted], first_element)
        first_element += math.prod(regions.extents(stripe.wanted))
