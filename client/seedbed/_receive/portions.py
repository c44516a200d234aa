"""Portions of a model for `visit`, one stream each."""

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

_MAX_BYTES = 64 << 20
"""Enough to be worth a stream, and little enough that all streams end at about the same time."""

_MAX_TENSORS = 1_000
"""Keeps a portion's request within the server's limit."""


class Portion(NamedTuple):
    """Consecutive slices of a model, or a stripe of one."""

    tensor: int
    """The index of the first slice within the model."""
    slices: list[TensorSlice]
    first_element: int = 0
    """The position of a stripe's first element within its slice."""

    def assembler(self, connection: int) -> ModelAssembler:
        """The assembler of its stream over this connection."""
        return ModelAssembler(self.slices, connection)

    def renumber(self, error: InvalidRequest) -> InvalidRequest:
        """Replace the tensor's index within the portion by its index within the model."""
        return fields.renumber(error, lambda index: self.tensor + index)


def portions(slices: Sequence[TensorSlice]) -> Iterator[Portion]:
    """Divide slices, whose regions are valid, into portions of about the same size."""
    first, group, size = 0, list[TensorSlice](), 0
    for index, tensor_slice in enumerate(slices):
        byte_count = regions.byte_count(tensor_slice)
        if group and (size + byte_count > _MAX_BYTES or len(group) == _MAX_TENSORS):
            yield Portion(first, group)
            group, size = [], 0
        if byte_count > _MAX_BYTES:
            yield from _striped(index, tensor_slice, byte_count)
            continue
        if not group:
            first = index
        group.append(tensor_slice)
        size += byte_count
    if group:
        yield Portion(first, group)


def empty_portions(slices: Sequence[TensorSlice]) -> Iterator[Portion]:
    """Empty regions of the same tensors, with which a server validates all specs without sending elements.

    It validates the slices' own regions later, when it serves them.
    """
    for first in range(0, len(slices), _MAX_TENSORS):
        specs = [tensor_slice.spec for tensor_slice in slices[first : first + _MAX_TENSORS]]
        yield Portion(first, [TensorSlice(spec=spec, region=_empty(len(spec.shape))) for spec in specs])


def _empty(rank: int) -> Region:
    return Region(start=[0] * rank, stop=[0] * rank)


def _striped(index: int, tensor_slice: TensorSlice, byte_count: int) -> Iterator[Portion]:
    first_element = 0
    for stripe in stripes.split(tensor_slice, -(-byte_count // _MAX_BYTES)):
        yield Portion(index, [stripe.tensor_slice], first_element)
        first_element += math.prod(regions.extents(stripe.tensor_slice))
