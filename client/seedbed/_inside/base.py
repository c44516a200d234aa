"""What the clients of this process's own engine share: nothing travels, and the caller's memory is filled in place."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from seedbed._ask import literals as _literals
from seedbed._client.sync import Client
from seedbed._receive.retry import Deadline
from seedbed._wire.transport import LocalTransport
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec, Zeros

if TYPE_CHECKING:
    from seedbed_server.service.local import LocalService


class InsideClient(Client):
    """A client that asks no server."""

    @property
    def transport(self) -> LocalTransport:
        """What asks the service."""
        return cast(LocalTransport, self._transport)

    @property
    def _service(self) -> LocalService:
        return self.transport.service

    def _open(self) -> LocalTransport:
        return LocalTransport(self._open_service(), self.target)

    def _open_service(self) -> LocalService:
        """What answers, in this process."""
        raise NotImplementedError

    def _described(
        self, method: str, wanted: Sequence[TensorSlice], deadline: Deadline, first: int = 0
    ) -> list[TensorDescription]:
        """What the parts wanted resolve to; literals, which may be larger than a service takes, are described here."""
        literals = {index: part for index, part in enumerate(wanted) if _literals.is_literal(part)}
        for index, part in literals.items():
            _literals.check(part, f"tensors[{index}]." if method == "InitModel" else "")
        asked = [_without_values(part) for part in wanted] if literals else wanted
        descriptions = self.transport.call(partial(self._service.describe, asked, method, first), deadline)
        for index, part in literals.items():
            descriptions[index] = _literals.describe(part)
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
    if not _literals.is_literal(wanted):
        return wanted
    spec = TensorSpec(shape=wanted.spec.shape, dtype=wanted.spec.dtype, zeros=Zeros())
    return TensorSlice(spec=spec, region=wanted.region if wanted.HasField("region") else None)
