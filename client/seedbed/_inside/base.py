"""The base of the clients of the engine in this process, which fill the caller's memory in place."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import partial
from typing import Generic, TypeVar, cast

from seedbed._ask import literals
from seedbed._ask.regions import region_of
from seedbed._client.sync import Client
from seedbed._inside.engine import Engine
from seedbed._inside.transport import InsideTransport
from seedbed.common import fields
from seedbed.common.deadline import Deadline
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec, Zeros

_Engine = TypeVar("_Engine", bound=Engine)


class InsideClient(Client, Generic[_Engine]):
    """A client of an engine in this process."""

    @property
    def transport(self) -> InsideTransport[_Engine]:
        """The transport, which calls the engine."""
        return cast("InsideTransport[_Engine]", self._transport)

    @property
    def _engine(self) -> _Engine:
        return self.transport.engine

    def _open(self) -> InsideTransport[_Engine]:
        return InsideTransport(self._open_engine(), self.target)

    def _open_engine(self) -> _Engine:
        raise NotImplementedError

    def _describe(
        self, method: str, slices: Sequence[TensorSlice], deadline: Deadline, first: int = 0
    ) -> list[TensorDescription]:
        """Validate and describe slices; literals are described here, since they may exceed the engine's limit."""
        literal_slices = {index: item for index, item in enumerate(slices) if literals.is_literal(item)}
        for index, item in literal_slices.items():
            literals.check(item, f"{fields.of_tensor(index)}." if method == "InitModel" else "")
        stand_ins = [_without_values(item) for item in slices] if literal_slices else slices
        descriptions = self.transport.call(partial(self._engine.describe, stand_ins, method, first), deadline)
        for index, item in literal_slices.items():
            descriptions[index] = literals.describe(item)
        return descriptions


class Spans:
    """A set of address spans that do not overlap."""

    def __init__(self) -> None:
        self._bounds: list[int] = []  # sorted: begin and end of the first span, begin and end of the second, and so on

    def add(self, begin: int, end: int) -> bool:
        """Add a span unless it overlaps another; return whether it was added."""
        if begin >= end:
            return True
        index = bisect.bisect_right(self._bounds, begin)
        if index % 2 or bisect.bisect_left(self._bounds, end) != index:
            return False
        self._bounds[index:index] = begin, end
        return True


def _without_values(tensor_slice: TensorSlice) -> TensorSlice:
    """Replace a literal by zeros of the same shape and dtype, which the engine describes instead."""
    if not literals.is_literal(tensor_slice):
        return tensor_slice
    spec = TensorSpec(shape=tensor_slice.spec.shape, dtype=tensor_slice.spec.dtype, zeros=Zeros())
    return TensorSlice(spec=spec, region=region_of(tensor_slice))
