"""How requests travel under asyncio; the counterpart of `seedbed._transport`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.message import Message

from seedbed import _credentials
from seedbed._retry import Deadline
from seedbed._targets import is_cuda
from seedbed._transport import (
    RESPONSES,
    TICKET,
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
        self, method: str, request: Message, deadline: Deadline, *, ticket: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """Asks for a stream; closing the iterator cancels it. By the ticket, a full server knows who asks again."""

    def replicas(self) -> int:
        """How many servers take turns to answer."""

    async def close(self) -> None:
        """Ends all calls."""


def open_transport(target: str, security: _credentials.Security, options: Sequence[tuple[str, Any]]) -> AioTransport:
    """The transport to a target.

    Raises:
        InvalidRequest: If the target is none or ``local:cuda``, or what is asked of security is not possible.
    """
    if is_cuda(target):
        remedy = f'use seedbed.connect("{target}"), whose calls return before the GPU is done'
        raise InvalidRequest("target", f'"{target}" has no coroutines; {remedy}')
    keep_freed_memory()
    return AioGrpcTransport(target, security, options)


class AioGrpcTransport:
    """A connection to a server.

    Args:
        target: Its address.
        security: Whether over TLS, and with which token.
        options: Channel arguments of gRPC, which take the place of ours.
    """

    def __init__(self, target: str, security: _credentials.Security, options: Sequence[tuple[str, Any]]) -> None:
        self._wire = _credentials.wire(target, security, options)
        self._target = target
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False

    async def unary(self, method: str, request: Message, deadline: Deadline) -> Message:
        import grpc.aio  # noqa: PLC0415 - as in seedbed._transport

        ask = self._open().unary_unary(path(method), serialize, RESPONSES[method].FromString)
        try:
            response: Message = await ask(request, timeout=deadline.remaining(), metadata=self._wire.metadata)
        except grpc.aio.AioRpcError as error:
            raise of_rpc(error, self._target, deadline) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        return response

    async def stream(
        self, method: str, request: Message, deadline: Deadline, *, ticket: str = ""
    ) -> AsyncGenerator[bytes, None]:
        import grpc.aio  # noqa: PLC0415 - as in seedbed._transport

        start = self._open().unary_stream(path(method), serialize, None)
        metadata = (*self._wire.metadata, (TICKET, ticket))
        call = start(request, timeout=deadline.remaining(), metadata=metadata)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise of_rpc(error, self._target, deadline) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        finally:
            call.cancel()  # after an ordinary end, this does nothing

    def replicas(self) -> int:
        return self._wire.target.replicas()

    async def close(self) -> None:
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        """The channel, made when it is first used: it belongs to the loop that runs then."""
        if self._is_closed:
            raise closed(self._target)
        if self._channel is None:
            import grpc.aio  # noqa: PLC0415 - as in seedbed._transport

            (address, options), credentials = self._wire.target, self._wire.credentials
            self._channel = (
                grpc.aio.insecure_channel(address, options)
                if credentials is None
                else grpc.aio.secure_channel(address, credentials, options)
            )
        return self._channel

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
        self, method: str, request: Message, deadline: Deadline, *, ticket: str = ""
    ) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError  # nothing travels within a process

    def replicas(self) -> int:
        return 1

    async def close(self) -> None:
        self._transport.close()
