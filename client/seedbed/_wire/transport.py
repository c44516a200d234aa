"""gRPC for threads: sends messages, and maps failures to `seedbed.errors`. It neither retries nor parses streams."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message

from seedbed import errors
from seedbed._ask.requests import UnaryCall
from seedbed._wire import channels, credentials, rerouting
from seedbed.common.deadline import Deadline
from seedbed.common.memory import keep_freed_memory
from seedbed.errors import Cancelled, SeedbedError, Unavailable

if TYPE_CHECKING:
    import grpc

_Response = TypeVar("_Response", bound=Message)


class StreamCall(NamedTuple):
    """A request whose response is a stream."""

    method: str
    request: Message
    route: rerouting.Route


class Transport(Protocol):
    """Sends messages synchronously; safe for use on many threads."""

    def unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        """Send a request with a single response."""

    def stream(self, call: StreamCall, deadline: Deadline) -> Generator[bytes, None]:
        """The messages of a stream; closing the iterator cancels it."""

    def connections(self) -> Sequence[int]:
        """The connection for each stream of a large tensor; a single item means that one stream is enough."""

    def close(self) -> None:
        """End all calls."""


class GrpcTransport:
    """The connections to a server.

    Args:
        target: The server's address.
        security: TLS and the token.
        options: Channel arguments of gRPC, which override ours.
        connections: The maximum number of connections.
    """

    def __init__(
        self, target: str, security: credentials.Security, options: Sequence[tuple[str, Any]], connections: int = 1
    ) -> None:
        keep_freed_memory()
        self._wire = credentials.wire(target, security, options)
        import grpc  # noqa: PLC0415 - `import seedbed` stays fast, and "local:" does not need it

        self._failures = (grpc.RpcError, ValueError)  # a closed channel raises the latter
        self._target = target
        self._is_closed = False
        self._max_connections = connections
        self._connections = rerouting.Connections(self._connect)
        with contextlib.suppress(Unavailable), self._connected(0):  # calls wait for a name service
            pass  # raises at once if the options are invalid

    def connections(self) -> Sequence[int]:
        return self._wire.target.spread(self._max_connections)

    def unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        try:
            with self._connected(0) as connected:
                send = connected.channel.unary_unary(path(call.method), serialize, call.response.FromString)
                response: _Response = send(call.request, timeout=deadline.remaining(), metadata=self._wire.metadata)
        except self._failures as error:
            raise self._map_error(error, deadline) from error
        return response

    def stream(self, call: StreamCall, deadline: Deadline) -> Generator[bytes, None, None]:
        route = call.route
        moves_left = route.moves if self._wire.target.is_one_server() else 0
        while True:
            with self._connected(route.connection) as connected:
                try:
                    yield from self._attempt(connected.channel, call, deadline, route._replace(moves=moves_left))
                except rerouting.Moved:
                    moves_left -= 1
                    self._connections.replace(route.connection, connected)
                else:
                    return

    def _attempt(
        self, channel: grpc.Channel, call: StreamCall, deadline: Deadline, route: rerouting.Route
    ) -> Generator[bytes, None, None]:
        """The stream, from the worker at the connection's other end.

        Raises:
            Moved: Send the call again, over a new connection.
        """
        stream, has_begun = None, False
        try:
            start = channel.unary_stream(path(call.method), serialize, None)
            metadata = (*self._wire.metadata, *rerouting.metadata(route))
            stream = start(call.request, timeout=deadline.remaining(), metadata=metadata)
            with deadline.ending(stream.cancel):
                for message in stream:
                    has_begun = True
                    yield message
        except self._failures as error:
            if route.moves and not has_begun and not isinstance(error, ValueError) and rerouting.is_move(error):
                raise rerouting.Moved from error
            raise self._map_error(error, deadline) from error
        finally:
            if stream is not None:
                stream.cancel()  # type: ignore[no-untyped-call]  # does nothing after an ordinary end

    def close(self) -> None:
        self._is_closed = True
        for channel in self._connections.close():
            channel.close()

    @contextlib.contextmanager
    def _connected(self, connection: int) -> Iterator[rerouting.Connection[grpc.Channel]]:
        connected = self._connections.take(connection)
        if connected is None:
            raise closed(self._target)
        try:
            yield connected
        finally:
            if channel := self._connections.give_back(connected):
                channel.close()

    def _connect(self) -> grpc.Channel:
        self._wire = self._wire.resolved()
        return channels.open_channel(self._wire)

    def _map_error(self, error: grpc.RpcError | ValueError, deadline: Deadline) -> Exception:
        if self._is_closed:
            return closed(self._target)
        if isinstance(error, ValueError):
            raise error
        return map_error(error, self._target, deadline)


def serialize(request: Message) -> bytes:
    """Serialise a request."""
    return request.SerializeToString()


def path(method: str) -> str:
    """The path of an RPC."""
    return f"/seedbed.v1.InitService/{method}"


def closed(target: str) -> Cancelled:
    """The error of a call on a client that was closed before or during the call."""
    return Cancelled(f"this client of {target} is closed; connect again")


def map_error(error: grpc.RpcError, target: str, deadline: Deadline) -> SeedbedError:
    """Map the error of a gRPC call, with the timeout in the message if it has passed."""
    mapped = errors.from_rpc(error, target)
    return deadline.exceeded(target) if isinstance(mapped, errors.DeadlineExceeded) else mapped
