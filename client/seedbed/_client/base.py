"""The base of all clients: the target, timeouts, retries and pickling."""

from __future__ import annotations

from types import EllipsisType
from typing import Generic, Self, TypeVar

from seedbed._ask import arguments
from seedbed._ask.schemes import Schemes
from seedbed._receive.assembler import Assembler
from seedbed._receive.attempts import Attempts
from seedbed._receive.retry import Retry
from seedbed._types import Timeout
from seedbed._wire.origin import Closable, Opening, Origin
from seedbed.common.deadline import Deadline

R = TypeVar("R")
Transport = TypeVar("Transport", bound=Closable)


class BaseClient(Schemes[R], Generic[R, Transport]):
    """A client, whose transport opens on first use.

    Args:
        origin: The arguments of `connect`.
    """

    def __init__(self, origin: Origin) -> None:
        self.target = origin.target
        self.timeout = origin.timeout
        self.wait = origin.wait
        self._origin = origin
        self._opening: Opening[Transport] = Opening(origin.target, self._open)

    def __reduce__(self) -> tuple[type[Self], tuple[Origin]]:
        return type(self), (self._origin.for_pickle(self.timeout, self.wait),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.target}, timeout={self.timeout}>"

    @property
    def _transport(self) -> Transport:
        return self._opening.get()

    def _open(self) -> Transport:
        raise NotImplementedError

    def _deadline(self, timeout: Timeout) -> Deadline:
        return Deadline(self._seconds(timeout))

    def _seconds(self, timeout: Timeout) -> float | None:
        return self.timeout if isinstance(timeout, EllipsisType) else arguments.seconds(timeout)

    def _attempts(self, assembler: Assembler, deadline: Deadline) -> Attempts:
        return Attempts(assembler, deadline, self.target, self.wait)

    def _retry(self, deadline: Deadline) -> Retry:
        return Retry(deadline, self.target, self.wait)
