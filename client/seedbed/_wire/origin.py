"""The origin of a client: the arguments from which another process can make the same client."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from seedbed._ask import arguments
from seedbed._wire import targets
from seedbed._wire.credentials import Security, check_by_reference, with_environment
from seedbed._wire.transport import closed


@dataclasses.dataclass(frozen=True, repr=False)  # no repr, since Security may hold a token
class Origin:
    """The validated arguments of `seedbed.connect`, with the environment's settings for omitted ones.

    The default number of connections is left open, because it depends on each process's cores.
    """

    target: str
    timeout: float | None
    wait: float
    connections: int | None
    security: Security
    options: tuple[tuple[str, Any], ...]

    def for_pickle(self, timeout: float | None, wait: float) -> Origin:
        """A copy to pickle, without secrets.

        Args:
            timeout: The client's current timeout.
            wait: The client's current wait.

        Raises:
            InvalidRequest: The copy would contain secrets.
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
    """Validate the arguments of `seedbed.connect`.

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
        """End all calls."""


_Transport = TypeVar("_Transport", bound=Closable)


class Opening(Generic[_Transport]):
    """A transport that opens on first use, on whichever thread that is.

    Args:
        target: The server's address, for errors.
        open_transport: The function that opens the transport.
    """

    def __init__(self, target: str, open_transport: Callable[[], _Transport]) -> None:
        self._target = target
        self._open_transport = open_transport
        self._lock = threading.Lock()
        self._transport: _Transport | None = None
        self._is_closed = False

    def get(self) -> _Transport:
        """The transport, opened on the first call.

        Raises:
            Cancelled: `close` was called before.
            InvalidRequest: The transport cannot be opened.
        """
        if self._transport is not None:
            return self._transport
        with self._lock:
            if self._is_closed:
                raise closed(self._target)
            if self._transport is None:
                self._transport = self._open_transport()
            return self._transport

    def close(self) -> _Transport | None:
        """Prevent the transport from being opened; return it for the caller to close if it is open."""
        with self._lock:
            self._is_closed = True
            return self._transport
