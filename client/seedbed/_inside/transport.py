"""The transport of the engine in this process, with the errors and deadlines of calls over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import partial
from typing import Generic, TypeVar, cast

from google.protobuf.message import Message

from seedbed import errors
from seedbed._ask.requests import UnaryCall
from seedbed._inside.engine import Engine
from seedbed._wire.transport import StreamCall, closed
from seedbed.common.deadline import Deadline
from seedbed.common.status import ServiceError
from seedbed.errors import SeedbedError

_T = TypeVar("_T")
_Response = TypeVar("_Response", bound=Message)
_Engine = TypeVar("_Engine", bound=Engine)


class InsideTransport(Generic[_Engine]):
    """Calls the engine.

    Args:
        engine: The engine.
        target: The target, for errors.
    """

    def __init__(self, engine: _Engine, target: str) -> None:
        self.engine = engine
        self._target = target
        self._is_closed = False

    def unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        return cast(_Response, self.call(partial(self.engine.unary, call.method, call.request), deadline))

    def call(self, function: Callable[[], _T], deadline: Deadline) -> _T:
        """Call any function of the engine, and map its errors."""
        if self._is_closed:
            raise closed(self._target)
        try:
            return function()
        except ServiceError as error:
            raise self._map_error(error, deadline) from error

    def stream(self, call: StreamCall, deadline: Deadline) -> Generator[bytes, None, None]:
        raise NotImplementedError  # within a process, arrays are filled in place

    def ending(self, deadline: Deadline) -> Callable[[], bool]:
        """The function that says whether to stop work: the deadline has passed, or the client is closed."""
        return lambda: self._is_closed or deadline.has_passed()

    def connections(self) -> Sequence[int]:
        return (0,)

    def close(self) -> None:
        self._is_closed = True

    def _map_error(self, error: ServiceError, deadline: Deadline) -> SeedbedError:
        if self._is_closed:
            return closed(self._target)
        if deadline.has_passed():
            return deadline.exceeded(self._target)
        return errors.from_status(error.status, self._target)


class AioInsideTransport:
    """The transport for asyncio, which calls the engine on threads.

    Args:
        transport: The synchronous transport.
    """

    def __init__(self, transport: InsideTransport[Engine]) -> None:
        self._transport = transport

    async def unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        return await asyncio.to_thread(self._transport.unary, call, deadline)

    def stream(self, call: StreamCall, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError  # within a process, arrays are filled in place

    def connections(self) -> Sequence[int]:
        return (0,)

    async def close(self) -> None:
        self._transport.close()
