"""What a client is made of: with it, the same client is made in another process."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from seedbed._ask import arguments
from seedbed._wire import targets
from seedbed._wire.credentials import Security, check_by_reference, with_environment
from seedbed._wire.transport import closed


@dataclasses.dataclass(frozen=True, repr=False)  # as Security, which may hold a token
class Origin:
    """The arguments of `seedbed.connect`, checked, with what the environment said in place of those not given.

    The number of connections is for each process to tell, by its cores.
    """

    target: str
    timeout: float | None
    wait: float
    connections: int | None
    security: Security
    options: tuple[tuple[str, Any], ...]

    def sent(self, timeout: float | None, wait: float) -> Origin:
        """What may travel to another process.

        Args:
            timeout: The client's, which may have been changed.
            wait: The client's.

        Raises:
            InvalidRequest: Secrets would travel.
        """
        check_by_reference(self.security)
        return dataclasses.replace(self, timeout=timeout, wait=wait)


def origin(
    target: str,
    timeout: float | None,
    wait: float | None,
    connections: int | None,
    security: Security,
    options: Sequence[tuple[str, Any]],
) -> Origin:
    """Checks the arguments of `seedbed.connect`.

    Raises:
        InvalidRequest: An argument is invalid, or arguments contradict each other.
    """
    seconds, patience = arguments.seconds(timeout), arguments.patience(wait)
    arguments.connections(connections)
    is_inside = target == targets.LOCAL or targets.is_cuda(target)
    security = Security() if is_inside else with_environment(security)
    return Origin(target, seconds, patience, connections, security, tuple(options))


class Closable(Protocol):
    """A transport."""

    def close(self) -> object:
        """Ends all calls."""


_Transport = TypeVar("_Transport", bound=Closable)


class Opening(Generic[_Transport]):
    """A transport, opened when it is first used, by one of the threads that use it.

    Args:
        target: What errors call it.
        open_it: Opens it.
    """

    def __init__(self, target: str, open_it: Callable[[], _Transport]) -> None:
        self._target = target
        self._open_it = open_it
        self._lock = threading.Lock()
        self._transport: _Transport | None = None
        self._is_closed = False

    def get(self) -> _Transport:
        """The transport.

        Raises:
            Cancelled: It was closed before it was opened.
            InvalidRequest: It cannot be opened.
        """
        if self._transport is not None:
            return self._transport
        with self._lock:
            if self._is_closed:
                raise closed(self._target)
            if self._transport is None:
                self._transport = self._open_it()
            return self._transport

    def closed(self) -> _Transport | None:
        """Opens it no more.

        Returns:
            The transport, if it was opened; it is to be closed.
        """
        with self._lock:
            self._is_closed = True
            return self._transport
