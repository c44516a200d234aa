"""What the clients of this process's own engine share: nothing travels, and the caller's memory is filled in place."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import partial
from typing import Generic, TypeVar, cast

from seedbed._ask import literals
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
        """What calls the engine."""
        return cast("InsideTransport[_Engine]", self._transport)

    @property
    def _engine(self) -> _Engine:
        return self.transport.engine

    def _open(self) -> InsideTransport[_Engine]:
        return InsideTransport(self._open_engine(), self.target)

    def _open_engine(self) -> _Engine:
        raise NotImplementedError

    def _described(
        self, method: str, wanted: Sequence[TensorSlice], deadline: Deadline, first: int = 0
    ) -> list[TensorDescription]:
        """What the parts wanted resolve to; literals, which may be larger than a service takes, are described here."""
        here = {index: part for index, part in enumerate(wanted) if literals.is_literal(part)}
        for index, part in here.items():
            literals.check(part, f"{fields.of_tensor(index)}." if method == "InitModel" else "")
        parts = [_without_values(part) for part in wanted] if here else wanted
        descriptions = self.transport.call(partial(self._engine.describe, parts, method, first), deadline)
        for index, part in here.items():
            descriptions[index] = literals.describe(part)
        return descriptions


class Spans:
    """Spans of addresses, of which no two overlap."""

    def __init__(self) -> None:
        self._bounds: list[int] = []  # where one begins, where it ends, where the next begins, and so on

    def add(self, begin: int, end: int) -> bool:
        """Adds one, unless it overlaps; whether it did not."""
        if begin >= end:
            return True
        index = bisect.bisect_right(self._bounds, begin)
        if index % 2 or bisect.bisect_left(self._bounds, end) != index:
            return False
        self._bounds[index:index] = begin, end
        return True


def _without_values(wanted: TensorSlice) -> TensorSlice:
    """A part of the same shape and dtype that the service describes in a literal's place."""
    if not literals.is_literal(wanted):
        return wanted
    spec = TensorSpec(shape=wanted.spec.shape, dtype=wanted.spec.dtype, zeros=Zeros())
    return TensorSlice(spec=spec, region=wanted.region if wanted.HasField("region") else None)
