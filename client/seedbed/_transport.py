"""How requests travel: over gRPC (``host:port``, ``unix:``), or to a service in this process (``local:``).

Transports move messages and turn failures into `seedbed.errors`; they neither retry nor look into a stream's messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from google.protobuf.message import Message

from seedbed import _credentials, _moving, errors
from seedbed._retry import Deadline
from seedbed._targets import LOCAL
from seedbed.errors import Cancelled, InvalidRequest, SeedbedError
from seedbed.v1 import CalculateGainResponse, DescribeTensorResponse, GetServerInfoResponse

if TYPE_CHECKING:
    import grpc

    from seedbed_server.service.errors import ServiceError
    from seedbed_server.service.local import CudaService, LocalService

_T = TypeVar("_T")

RESPONSES: dict[str, type[Message]] = {
    "DescribeTensor": DescribeTensorResponse,
    "CalculateGain": CalculateGainResponse,
    "GetServerInfo": GetServerInfoResponse,
}

_MESSAGE_BYTES = 3 << 20
_ROOM_FOR_MORE = 5 << 20


class Transport(Protocol):
    """Moves messages synchronously; safe to use from many threads."""

    def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        """Asks a question that has one answer."""

    def stream(self, method: str, request: Message, deadline: Deadline, route: _moving.Route) -> Generator[bytes, None]:
        """Asks for a stream by a route; closing the iterator cancels it."""

    def connections(self) -> Sequence[int]:
        """Which connection each stream of a large tensor is best asked for over; one item means that one is enough."""

    def close(self) -> None:
        """Ends all calls."""


def open_transport(
    target: str, security: _credentials.Security, options: Sequence[tuple[str, Any]], connections: int = 1
) -> Transport:
    """The transport to a target.

    Raises:
        InvalidRequest: If the target is none, ``local:`` cannot be had, or what is asked of security is not possible.
    """
    keep_freed_memory()
    return GrpcTransport(target, security, options, connections)


def keep_freed_memory(byte_count: int = _MESSAGE_BYTES) -> None:
    """Spares new pages for each message or chunk of up to so many bytes, at most 20 MiB.

    glibc gives a freed block of such a size back to the kernel, which then has to clear pages for the next one,
    until a larger block was freed once: see M_MMAP_THRESHOLD in mallopt(3). Nearly half of the time of receiving went
    there.
    """
    np.empty(byte_count + _ROOM_FOR_MORE, np.uint8)


class GrpcTransport:
    """The connections to a server.

    Args:
        target: Its address.
        security: Whether over TLS, and with which token.
        options: Channel arguments of gRPC, which take the place of ours.
        connections: The most to open.
    """

    def __init__(
        self, target: str, security: _credentials.Security, options: Sequence[tuple[str, Any]], connections: int = 1
    ) -> None:
        self._wire = _credentials.wire(target, security, options)
        import grpc  # noqa: PLC0415 - `import seedbed` stays fast, and "local:" does without

        self._failures = (grpc.RpcError, ValueError)  # the latter from a channel that was closed
        self._target = target
        self._is_closed = False
        self._most = connections
        self._connections = _moving.Connections(self._connect)
        with self._connected(0):
            pass  # what is wrong with the options is to be told now

    def connections(self) -> Sequence[int]:
        return self._wire.target.spread(self._most)

    def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        try:
            with self._connected(0) as connected:
                ask = connected.channel.unary_unary(path(method), serialize, RESPONSES[method].FromString)
                response: Message = ask(request, timeout=deadline.remaining(), metadata=self._wire.metadata)
        except self._failures as error:
            raise self._mapped(error, deadline) from error
        return response

    def stream(
        self, method: str, request: Message, deadline: Deadline, route: _moving.Route
    ) -> Generator[bytes, None, None]:
        left = route.moves if self._wire.target.is_one_server() else 0
        while True:
            with self._connected(route.connection) as connected:
                try:
                    yield from self._attempt(connected.channel, method, request, deadline, route._replace(moves=left))
                except _moving.Moved:
                    left -= 1
                    self._connections.replace(route.connection, connected)
                else:
                    return

    def _attempt(
        self, channel: grpc.Channel, method: str, request: Message, deadline: Deadline, route: _moving.Route
    ) -> Generator[bytes, None, None]:
        """The stream from whichever worker the connection leads to.

        Raises:
            Moved: It is to be asked for anew.
        """
        call, has_begun = None, False
        try:
            start = channel.unary_stream(path(method), serialize, None)
            metadata = (*self._wire.metadata, *_moving.metadata(route))
            call = start(request, timeout=deadline.remaining(), metadata=metadata)
            with deadline.ending(call.cancel):
                for message in call:
                    has_begun = True
                    yield message
        except self._failures as error:
            if route.moves and not has_begun and not isinstance(error, ValueError) and _moving.is_told(error):
                raise _moving.Moved from error
            raise self._mapped(error, deadline) from error
        finally:
            if call is not None:
                call.cancel()  # type: ignore[no-untyped-call]  # after an ordinary end, this does nothing

    def close(self) -> None:
        self._is_closed = True
        for channel in self._connections.close():
            channel.close()

    @contextlib.contextmanager
    def _connected(self, connection: int) -> Iterator[_moving.Connection[grpc.Channel]]:
        connected = self._connections.take(connection)
        if connected is None:
            raise closed(self._target)
        try:
            yield connected
        finally:
            if channel := self._connections.give_back(connected):
                channel.close()

    def _connect(self) -> grpc.Channel:
        import grpc  # noqa: PLC0415 - as above

        (address, options), credentials = self._wire.target, self._wire.credentials
        return (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )

    def _mapped(self, error: grpc.RpcError | ValueError, deadline: Deadline) -> Exception:
        if self._is_closed:
            return closed(self._target)
        if isinstance(error, ValueError):
            raise error
        return of_rpc(error, self._target, deadline)


class LocalTransport:
    """A service in this process.

    Args:
        service: What answers.
        target: What errors call it.
    """

    def __init__(self, service: LocalService, target: str = LOCAL) -> None:
        from seedbed_server.service.errors import ServiceError  # noqa: PLC0415 - as for open_service

        self._failure = ServiceError
        self.service = service
        self._target = target
        self._is_closed = False

    def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        return self.call(partial(self.service.unary, method, request), deadline)

    def call(self, ask: Callable[[], _T], deadline: Deadline) -> _T:
        """Asks the service, by any of its methods that answer once."""
        self._check_open()
        try:
            return ask()
        except self._failure as error:
            raise self._mapped(error, deadline) from error

    def stream(
        self, method: str, request: Message, deadline: Deadline, route: _moving.Route
    ) -> Generator[bytes, None, None]:
        raise NotImplementedError  # nothing travels within a process

    def ending(self, deadline: Deadline) -> Callable[[], bool]:
        """What tells long work whether to end: when time is up, or the client is closed."""
        return lambda: self._is_closed or deadline.has_passed()

    def connections(self) -> Sequence[int]:
        return (0,)

    def close(self) -> None:
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed(self._target)

    def _mapped(self, error: ServiceError, deadline: Deadline) -> SeedbedError:
        if self._is_closed:
            return closed(self._target)
        if deadline.has_passed():
            return deadline.exceeded(self._target)
        return errors.from_status(error.status, self._target)


def open_service() -> LocalService:
    """The service in this process, with the backend that SEEDBED_BACKEND and SEEDBED_THREADS choose.

    Raises:
        InvalidRequest: If the server's packages are not installed, or the backend cannot be used here.
    """
    with _refusals(LOCAL, "pip install 'seedbed[server]'"):
        from seedbed_server.service.local import LocalService  # noqa: PLC0415 - the thin client does without

        return LocalService()


def open_cuda_service(target: str) -> CudaService:
    """The service in this process that writes to the memory of a GPU.

    Args:
        target: One for which `seedbed._targets.is_cuda` is true.

    Raises:
        InvalidRequest: If packages are not installed, or the GPU cannot be used.
    """
    number = target.removeprefix("local:cuda").removeprefix(":")
    with _refusals(target, "pip install 'seedbed[gpu]' (CUDA 13) or 'seedbed[gpu-cuda12]'"):
        from seedbed_server.service.local import CudaService  # noqa: PLC0415 - as for open_service

        return CudaService(int(number) if number else None)


@contextlib.contextmanager
def _refusals(target: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InvalidRequest("target", f'"{target}" needs the server in this process: {remedy} ({error})') from error
    except ValueError as error:
        raise InvalidRequest("target", f'"{target}" cannot be had: {error}') from error


def serialize(request: Message) -> bytes:
    """The encoding of a request."""
    return request.SerializeToString()


def path(method: str) -> str:
    """The path of an RPC."""
    return f"/seedbed.v1.InitService/{method}"


def closed(target: str) -> Cancelled:
    """The error of a call on a client that was closed before or while it ran."""
    return Cancelled(f"this client of {target} is closed; connect again")


def of_rpc(error: grpc.RpcError, target: str, deadline: Deadline) -> SeedbedError:
    """The error that a failed call means, with the timeout if that was why."""
    mapped = errors.from_rpc(error, target)
    return deadline.exceeded(target) if isinstance(mapped, errors.DeadlineExceeded) else mapped
