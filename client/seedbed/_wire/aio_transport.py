"""How requests travel under asyncio; the counterpart of `seedbed._wire.transport`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.message import Message

from seedbed._receive.retry import Deadline
from seedbed._wire import credentials as _credentials
from seedbed._wire import rerouting
from seedbed._wire.targets import is_cuda
from seedbed._wire.transport import (
    RESPONSES,
    LocalTransport,
    closed,
    keep_freed_memory,
    of_rpc,
    path,
    serialize,
)
from seedbed.errors import InvalidRequest

if TYPE_CHECKING:
    import grpc


class AioTransport(Protocol):
    """Moves messages within an event loop."""

    async def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        """Asks a question that has one answer."""

    def stream(
        self, method: str, request: Message, deadline: Deadline, route: rerouting.Route
    ) -> AsyncGenerator[bytes, None]:
        """Asks for a stream by a route; closing the iterator cancels it."""

    def connections(self) -> Sequence[int]:
        """Which connection each stream of a large tensor is best asked for over; one item means that one is enough."""

    async def close(self) -> None:
        """Ends all calls."""


def open_transport(
    target: str, security: _credentials.Security, options: Sequence[tuple[str, Any]], connections: int = 1
) -> AioTransport:
    """The transport to a target.

    Raises:
        InvalidRequest: If the target is none or ``local:cuda``, or what is asked of security is not possible.
    """
    if is_cuda(target):
        remedy = f'use seedbed.connect("{target}"), whose calls return before the GPU is done'
        raise InvalidRequest("target", f'"{target}" has no coroutines; {remedy}')
    keep_freed_memory()
    return AioGrpcTransport(target, security, options, connections)


class AioGrpcTransport:
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
        self._target = target
        self._most = connections
        self._connections = rerouting.Connections(self._connect)
        self._is_closed = False

    async def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        import grpc.aio  # noqa: PLC0415 - as in seedbed._wire.transport

        try:
            async with self._connected(0) as connected:
                ask = connected.channel.unary_unary(path(method), serialize, RESPONSES[method].FromString)
                response: Message = await ask(request, timeout=deadline.remaining(), metadata=self._wire.metadata)
        except grpc.aio.AioRpcError as error:
            raise of_rpc(error, self._target, deadline) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        return response

    async def stream(
        self, method: str, request: Message, deadline: Deadline, route: rerouting.Route
    ) -> AsyncGenerator[bytes, None]:
        left = route.moves if self._wire.target.is_one_server() else 0
        while True:
            async with self._connected(route.connection) as connected:
                try:
                    attempt = self._attempt(connected.channel, method, request, deadline, route._replace(moves=left))
                    async with contextlib.aclosing(attempt) as messages:
                        async for message in messages:
                            yield message
                except rerouting.Moved:
                    left -= 1
                    self._connections.replace(route.connection, connected)
                else:
                    return

    async def _attempt(
        self, channel: grpc.aio.Channel, method: str, request: Message, deadline: Deadline, route: rerouting.Route
    ) -> AsyncGenerator[bytes, None]:
        """The stream from whichever worker the connection leads to.

        Raises:
            Moved: It is to be asked for anew.
        """
        import grpc.aio  # noqa: PLC0415 - as in seedbed._wire.transport

        start = channel.unary_stream(path(method), serialize, None)
        metadata = (*self._wire.metadata, *rerouting.metadata(route))
        call, has_begun = start(request, timeout=deadline.remaining(), metadata=metadata), False
        try:
            async for message in call:
                has_begun = True
                yield message
        except grpc.aio.AioRpcError as error:
            if route.moves and not has_begun and rerouting.is_told(error):
                raise rerouting.Moved from error
            raise of_rpc(error, self._target, deadline) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        finally:
            call.cancel()  # after an ordinary end, this does nothing

    def connections(self) -> Sequence[int]:
        return self._wire.target.spread(self._most)

    async def close(self) -> None:
        self._is_closed = True
        for channel in self._connections.close():
            await channel.close(None)

    @contextlib.asynccontextmanager
    async def _connected(self, connection: int) -> AsyncIterator[rerouting.Connection[grpc.aio.Channel]]:
        """A connection, made when it is first used: it belongs to the loop that runs then."""
        connected = self._connections.take(connection)
        if connected is None:
            raise closed(self._target)
        try:
            yield connected
        finally:
            if channel := self._connections.give_back(connected):
                await channel.close(None)

    def _connect(self) -> grpc.aio.Channel:
        import grpc.aio  # noqa: PLC0415 - as in seedbed._wire.transport

        (address, options), credentials = self._wire.target, self._wire.credentials
        return (
            grpc.aio.insecure_channel(address, options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )

    def _raise_if_closed(self, error: asyncio.CancelledError) -> None:
        """Tells a call that `close` ended from a task that somebody cancelled, which has to end as cancelled."""
        task = asyncio.current_task()
        if self._is_closed and not (task and task.cancelling()):
            raise closed(self._target) from error


class AioLocalTransport:
    """A service in this process; it computes in threads, so that the loop goes on.

    Args:
        transport: What answers.
    """

    def __init__(self, transport: LocalTransport) -> None:
        self._transport = transport

    async def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        return await asyncio.to_thread(self._transport.unary, method, request, deadline)

    def stream(
        self, method: str, request: Message, deadline: Deadline, route: rerouting.Route
    ) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError  # nothing travels within a process

    def connections(self) -> Sequence[int]:
        return (0,)

    async def close(self) -> None:
        self._transport.close()
