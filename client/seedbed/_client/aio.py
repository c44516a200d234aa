"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from google.protobuf.message import Message

from seedbed._ask import arguments, requests
from seedbed._ask.requests import UnaryCall
from seedbed._client.base import BaseClient
from seedbed._receive import arrays
from seedbed._receive.assembler import Assembler, Piece
from seedbed._show import bars
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed._wire.aio_transport import AioGrpcTransport, AioTransport
from seedbed.common.deadline import Deadline
from seedbed.errors import SeedbedError
from seedbed.v1 import GetServerInfoResponse, TensorDescription, TensorSlice, TensorSpec

_Response = TypeVar("_Response", bound=Message)


class AsyncClient(BaseClient[Coroutine[Any, Any, Array], AioTransport]):
    """A client of one server for one event loop; made by `connect`, closed by ``async with`` or `close`.

    Its methods are those of `seedbed.Client`, as coroutines and asynchronous iterators, with the same arguments,
    results and errors. It can be pickled like that client, and belongs to the event loop that first uses it.
    """

    def _open(self) -> AioTransport:
        connections = arguments.connections(self._origin.connections)
        return AioGrpcTransport(self._origin.target, self._origin.security, self._origin.options, connections)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; running calls end with `Cancelled`."""
        if transport := self._opening.close():
            await transport.close()

    def init(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Coroutine[Any, Any, Array]:
        """Initialise one tensor, or a region of it; see `seedbed.Client.init`."""
        return self._run(spec, region=region, out=out, progress=progress, timeout=timeout)

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[int, Array], None]:
        """Initialise one tensor, or a region of it, chunk by chunk; see `seedbed.Client.iter_chunks`."""
        assembler = arrays.chunk_call(spec, region, first_element)
        return self._chunks(assembler, self._seconds(timeout))

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[str, Array], None]:
        """Initialise many tensors in one stream; see `seedbed.Client.init_model`."""
        slices = requests.named_slices(model, out)
        report = bars.reporter(progress, requests.label(model, slices))
        return bars.with_bar_async(report, self._model(slices, out, report, self._seconds(timeout)))

    async def describe(
        self, spec: TensorSpec, region: RegionLike | None = None, timeout: Timeout = ...
    ) -> TensorDescription:
        """Resolve a tensor without sampling it; see `seedbed.Client.describe`."""
        seconds, tensor_slice = self._seconds(timeout), requests.tensor_slice(spec, region)
        if description := requests.describe_literal(tensor_slice):
            return description
        return (await self._unary(requests.describe(tensor_slice), Deadline(seconds))).description

    async def calculate_gain(self, nonlinearity: str, param: float | None = None, timeout: Timeout = ...) -> float:
        """The recommended gain of a nonlinearity; see `seedbed.Client.calculate_gain`."""
        return (await self._unary(requests.calculate_gain(nonlinearity, param), self._deadline(timeout))).gain

    async def server_info(self, timeout: Timeout = ...) -> GetServerInfoResponse:
        """The server's version, algorithm versions, backend, device and limits; see `seedbed.Client.server_info`."""
        return await self._unary(requests.server_info(), self._deadline(timeout))

    def _run(
        self,
        spec: TensorSpec,
        *,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Coroutine[Any, Any, Array]:
        report = bars.reporter(progress, requests.label_of(spec))
        return bars.await_with_bar(report, self._array(spec, region, out, report, self._seconds(timeout)))

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> Callable[[], Coroutine[Any, Any, Array]]:
        """Validate the arguments; return the coroutine function that makes the tensor."""
        return partial(self._fill, arrays.tensor_call(spec, region, out, progress), out, progress, seconds)

    async def _fill(
        self, call: arrays.ArrayCall, out: Array | None, progress: Progress | None, seconds: float | None
    ) -> Array:
        deadline = Deadline(seconds)
        if large := arrays.large_slice(call):
            connections = await asyncio.to_thread(self._transport.connections)  # it may resolve a name
            if len(connections) > 1:
                return await self._striped(large, connections, out, progress, deadline)
        [(_, array)] = [completed async for completed in self._arrays(call, deadline)]
        return array

    async def _striped(
        self,
        tensor_slice: TensorSlice,
        connections: Sequence[int],
        out: Array | None,
        progress: Progress | None,
        deadline: Deadline,
    ) -> Array:
        """Receive a large tensor in stripes, over several connections at once."""
        description = (await self._unary(requests.describe(tensor_slice), deadline)).description
        array, calls = arrays.striped_calls(description, tensor_slice, out, progress, connections)
        tasks = [asyncio.create_task(self._consume(call, deadline)) for call in calls]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # after a failure, the others still run
            await asyncio.gather(*tasks, return_exceptions=True)
        return array

    async def _consume(self, call: arrays.ArrayCall, deadline: Deadline) -> None:
        async for _ in self._arrays(call, deadline):
            pass

    def _model(
        self, slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, seconds: float | None
    ) -> AsyncGenerator[tuple[str, Array], None]:
        return self._arrays_within(arrays.model_call(slices, out, progress), seconds)

    async def _arrays_within(
        self, call: arrays.ArrayCall, seconds: float | None
    ) -> AsyncGenerator[tuple[str, Array], None]:
        async with contextlib.aclosing(self._arrays(call, Deadline(seconds))) as arrays:
            async for completed in arrays:
                yield completed

    async def _arrays(self, call: arrays.ArrayCall, deadline: Deadline) -> AsyncGenerator[tuple[str, Array], None]:
        async with contextlib.aclosing(self._pieces(call.assembler, deadline)) as pieces:
            async for piece in pieces:
                if completed := call.accept(piece):
                    yield completed

    async def _chunks(self, assembler: Assembler, seconds: float | None) -> AsyncGenerator[tuple[int, Array], None]:
        async with contextlib.aclosing(self._pieces(assembler, Deadline(seconds))) as pieces:
            async for piece in pieces:
                if piece.values.size:
                    yield piece.offset, piece.values

    async def _pieces(self, assembler: Assembler, deadline: Deadline) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of a call, from as many streams as it needs."""
        attempts = self._attempts(assembler, deadline)
        while (call := attempts.next_stream()) is not None:
            try:
                async with contextlib.aclosing(self._transport.stream(call, deadline)) as messages:
                    async for message in messages:
                        for piece in assembler.pieces(message):
                            yield piece
                assembler.finish()
            except SeedbedError as error:
                await asyncio.sleep(attempts.delay(error))
        for piece in assembler.literals():
            yield piece

    async def _unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        retry = self._retry(deadline)
        while True:
            try:
                return await self._transport.unary(call, deadline)
            except SeedbedError as error:
                await asyncio.sleep(retry.delay(error))
