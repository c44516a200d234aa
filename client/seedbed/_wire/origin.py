"""What a client is made of: with it, the same client is made in another process."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from seedbed._ask import arguments
from seedbed._wire import credentials as _credentials
from seedbed._wire import targets, transport

if TYPE_CHECKING:
    import grpc

    from seedbed.common.pem import PathLike


@dataclasses.dataclass(frozen=True, repr=False)  # as Security, which may hold a token
class Origin:
    """The arguments of `seedbed.connect`, checked, with what the environment said in place of those not given.

    The number of connections is for each process to tell, by its cores.
    """

    target: str
    timeout: float | None
    wait: float
    connections: int | None
    security: _credentials.Security
    options: tuple[tuple[str, Any], ...]

    def sent(self, timeout: float | None, wait: float) -> Origin:
        """What may travel to another process.

        Args:
            timeout: The client's, which may have been changed.
            wait: The client's.

        Raises:
            InvalidRequest: Secrets would travel.
        """
        _credentials.check_by_reference(self.security)
        return dataclasses.replace(self, timeout=timeout, wait=wait)


def origin(
    target: str,
    timeout: float | None,
    wait: float | None,
    connections: int | None,
    tls: bool | None,
    ca: PathLike | None,
    cert: PathLike | None,
    key: PathLike | None,
    token: str | None,
    server_name: str | None,
    credentials: grpc.ChannelCredentials | None,
    options: Sequence[tuple[str, Any]],
) -> Origin:
    """Checks the arguments of `seedbed.connect`.

    Raises:
        InvalidRequest: One of them cannot be, or they contradict each other.
    """
    seconds, patience = arguments.seconds(timeout), arguments.patience(wait)
    arguments.connections(connections)
    security = _credentials.Security()
    if target != targets.LOCAL and not targets.is_cuda(target):
        given = _credentials.Security(credentials, tls, ca, cert, key, token, server_name)
        security = _credentials.with_environment(given)
    return Origin(target, seconds, patience, connections, security, tuple(options))


class _Closable(Protocol):
    def close(self) -> object:
        """Ends all calls."""


Transport = TypeVar("Transport", bound=_Closable)


class Opening(Generic[Transport]):
    """A transport, opened when it is first used, by one of the threads that use it.

    Args:
        target: What errors call it.
        open_it: Opens it.
    """

    def __init__(self, target: str, open_it: Callable[[], Transport]) -> None:
        self._target = target
        self._open_it = open_it
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._is_closed = False

    def get(self) -> Transport:
        """The transport.

        Raises:
            Cancelled: It was closed before it was opened.
            InvalidRequest: It cannot be opened.
        """
        if self._transport is not None:
            return self._transport
        with self._lock:
            if self._is_closed:
                raise transport.closed(self._target)
            if self._transport is None:
                self._transport = self._open_it()
            return self._transport

    def closed(self) -> Transport | None:
        """Opens it no more.

        Returns:
            The transport, if it was opened; it is to be closed.
        """
        with self._lock:
            self._is_closed = True
            return self._transport
