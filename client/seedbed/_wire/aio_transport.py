"""gRPC for asyncio; the counterpart of `seedbed._wire.transport`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from google.protobuf.message import Message

from seedbed._ask.requests import UnaryCall
from seedbed._wire import channels, credentials, rerouting
from seedbed._wire.transport import (
    StreamCall,
    closed,
    map_error,
    path,
    serialize,
)
from seedbed.common.deadline import Deadline
from seedbed.common.memory import keep_freed_memory
from seedbed.errors import Unavailable

if TYPE_CHECKING:
    import grpc

_Response = TypeVar("_Response", bound=Message)


class AioTransport(Protocol):
    """Moves messages within an event loop."""

    async def unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        """Send a request with a single response."""

    def stream(self, call: StreamCall, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        """The messages of a stream; closing the iterator cancels it."""

    def connections(self) -> Sequence[int]:
        """The connection for each stream of a large tensor; a single item means that one stream is enough."""

    async def close(self) -> None:
        """End all calls."""


class AioGrpcTransport:
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
        self._target = target
        self._max_connections = connections
        self._connections = rerouting.Connections(self._connect)
        self._is_closed = False

    async def unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        import grpc.aio  # noqa: PLC0415 - as in seedbed._wire.transport

        try:
            async with self._connected(0) as connected:
                send = connected.channel.unary_unary(path(call.method), serialize, call.response.FromString)
                timeout = deadline.remaining()
                response: _Response = await send(call.request, timeout=timeout, metadata=self._wire.metadata)
        except grpc.aio.AioRpcError as error:
            raise map_error(error, self._target, deadline) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        return response

    async def stream(self, call: StreamCall, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        route = call.route
        moves_left = route.moves if self._wire.target.is_one_server() else 0
        while True:
            async with self._connected(route.connection) as connected:
                try:
                    attempt = self._attempt(connected.channel, call, deadline, route._replace(moves=moves_left))
                    async with contextlib.aclosing(attempt) as messages:
                        async for message in messages:
                            yield message
                except rerouting.Moved:
                    moves_left -= 1
                    self._connections.replace(route.connection, connected)
                else:
                    return

    async def _attempt(
        self, channel: grpc.aio.Channel, call: StreamCall, deadline: Deadline, route: rerouting.Route
    ) -> AsyncGenerator[bytes, None]:
        """The stream, from the worker at the connection's other end.

        Raises:
            Moved: Send the call again, over a new connection.
        """
        import grpc.aio  # noqa: PLC0415 - as in seedbed._wire.transport

        start = channel.unary_stream(path(call.method), serialize, None)
        metadata = (*self._wire.metadata, *rerouting.metadata(route))
        stream, has_begun = start(call.request, timeout=deadline.remaining(), metadata=metadata), False
        try:
            async for message in stream:
                has_begun = True
                yield message
        except grpc.aio.AioRpcError as error:
            if route.moves and not has_begun and rerouting.is_move(error):
                raise rerouting.Moved from error
            raise map_error(error, self._target, deadline) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        finally:
            stream.cancel()  # does nothing after an ordinary end

    def connections(self) -> Sequence[int]:
        with contextlib.suppress(Unavailable):  # calls wait for a name service
            self._wire = self._wire.resolved()
        return self._wire.target.spread(self._max_connections)

    async def close(self) -> None:
        self._is_closed = True
        for channel in self._connections.close():
            await channel.close(None)

    @contextlib.asynccontextmanager
    async def _connected(self, connection: int) -> AsyncIterator[rerouting.Connection[grpc.aio.Channel]]:
        """A connection, opened on first use, because it belongs to the event loop that runs then."""
        if not self._wire.target.is_resolved:
            self._wire = await asyncio.to_thread(self._wire.resolved)
        connected = self._connections.take(connection)
        if connected is None:
            raise closed(self._target)
        try:
            yield connected
        finally:
            if channel := self._connections.give_back(connected):
                await channel.close(None)

    def _connect(self) -> grpc.aio.Channel:
        return channels.open_aio_channel(self._wire)

    def _raise_if_closed(self, error: asyncio.CancelledError) -> None:
        """Raise Cancelled if `close` ended the call; a task that was cancelled has to end as cancelled."""
        task = asyncio.current_task()
        if self._is_closed and not (task and task.cancelling()):
            raise closed(self._target) from error
