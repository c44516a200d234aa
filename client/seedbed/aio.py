"""The same client with coroutines.

>>> import asyncio, seedbed
>>> async def main():
...     async with seedbed.aio.connect("local:") as client:
...         one, other = await asyncio.gather(
...             client.normal((100, 100), seed=7, name="one"), client.normal((100, 100), seed=7, name="other")
...         )
...         async for name, array in client.init_model([seedbed.spec("zeros", (2,), name="bias")]):
...             print(name, array)
>>> asyncio.run(main())
bias [0. 0.]
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from functools import partial
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.protobuf.message import Message

from seedbed._ask import arguments, requests
from seedbed._ask.schemes import Schemes
from seedbed._receive.assembler import Assembler, Piece
from seedbed._receive.retry import Deadline, Retry
from seedbed._show import bars
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed._wire import targets
from seedbed._wire.aio_transport import AioTransport, open_transport
from seedbed._wire.origin import Opening, Origin, origin
from seedbed.errors import InvalidRequest, SeedbedError
from seedbed.v1 import (
    CalculateGainResponse,
    DescribeTensorResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    TensorDescription,
    TensorSlice,
    TensorSpec,
)

if TYPE_CHECKING:
    import grpc

    from seedbed.common.pem import PathLike

__all__ = ["AsyncClient", "connect"]

_Response = TypeVar("_Response", bound=Message)


def connect(
    target: str,
    *,
    timeout: float | None = 600.0,
    wait: float | None = None,
    connections: int | None = None,
    tls: bool | None = None,
    ca: PathLike | None = None,
    cert: PathLike | None = None,
    key: PathLike | None = None,
    token: str | None = None,
    server_name: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncClient:
    """A client of one server, which is first asked when the client is first used.

    Args:
        target: ``host:port``; ``unix:/path``; or ``local:``, which serves within this process, in threads. See
            `seedbed.connect`, which alone has ``local:cuda``: its calls return before the GPU is done.
        timeout: Seconds that a call may take, all waiting included; None waits for ever. Each call can have its own.
        wait: Seconds of these that a call waits for a server that cannot be reached, or one that broke off a stream;
            0 gives up after three attempts within half a second. Default SEEDBED_WAIT, else 300. A server that is full
            is waited for until the timeout.
        connections: The most connections to open for one large tensor; as for `seedbed.connect`.
        tls: Whether to encrypt; this and the five that follow are as for `seedbed.connect`.
        ca: A PEM file of the authorities that a server's certificate may come from.
        cert: A PEM file with the certificate to show to a server that asks for one.
        key: A PEM file with its key.
        token: What `seedbed token` printed, for a server that wants one.
        server_name: The name that a server's certificate has to be for.
        credentials: gRPC's own, in place of tls, ca, cert, key, token and their variables.
        options: Channel arguments of gRPC, in place of Seedbed's own.

    Raises:
        InvalidRequest: If the target is no address, ``local:`` cannot be had, the timeout is not above 0, the wait is
            below 0, there cannot be so many connections, a file cannot be used, or a token would travel in the clear.

    >>> import asyncio, seedbed
    >>> async def main():
    ...     async with seedbed.aio.connect("local:") as client:
    ...         return await client.kaiming_normal((256, 128), nonlinearity="relu", seed=7, name="layers.0.weight")
    >>> asyncio.run(main()).shape
    (256, 128)
    """
    client = _client_of(
        origin(target, timeout, wait, connections, tls, ca, cert, key, token, server_name, credentials, options)
    )
    client._opening.get()
    return client


def _client_of(origin: Origin) -> AsyncClient:
    """The client of a target, which opens when it is first used."""
    if origin.target == targets.LOCAL:
        from seedbed._inside.aio import AsyncLocalClient  # noqa: PLC0415 - it imports this module

        return AsyncLocalClient(origin)
    return AsyncClient(origin)


class AsyncClient(Schemes[Coroutine[Any, Any, Array]]):
    """A client of one server for one event loop; made by `connect`, closed by ``async with`` or `close`.

    Its methods are those of `seedbed.Client`, as coroutines and asynchronous iterators, with the same arguments,
    results and errors. It can be pickled as that one can, and belongs to the event loop that first uses it.
    """

    def __init__(self, origin: Origin) -> None:
        self.target = origin.target
        self.timeout = origin.timeout
        self.wait = origin.wait
        self._origin = origin
        self._opening = Opening(origin.target, self._open)

    @property
    def _transport(self) -> AioTransport:
        return self._opening.get()

    def _open(self) -> AioTransport:
        origin, most = self._origin, arguments.connections(self._origin.connections)
        return open_transport(origin.target, origin.security, origin.options, most)

    def __reduce__(self) -> tuple[Callable[[Origin], AsyncClient], tuple[Origin]]:
        return _client_of, (self._origin.sent(self.timeout, self.wait),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.target}, timeout={self.timeout}>"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls still running end with `Cancelled`."""
        if transport := self._opening.closed():
            await transport.close()

    def init(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Coroutine[Any, Any, Array]:
        """Makes one tensor, or a region of it; see `seedbed.Client.init`."""
        return self._run(spec, region=region, out=out, progress=progress, timeout=timeout)

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[int, Array], None]:
        """Makes one tensor, or a region of it, chunk by chunk; see `seedbed.Client.iter_chunks`."""
        assembler = requests.chunk_call(spec, region, first_element)
        return self._chunks(assembler, self._seconds(timeout))

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[str, Array], None]:
        """Makes many tensors in one stream; see `seedbed.Client.init_model`."""
        wanted = requests.named(model, out)
        report = bars.reporter(progress, requests.label(model, wanted))
        return bars.of_arrays_to_come(report, self._model(wanted, out, report, self._seconds(timeout)))

    async def describe(
        self, spec: TensorSpec, region: RegionLike | None = None, timeout: Timeout = ...
    ) -> TensorDescription:
        """Tells what a tensor resolves to, without sampling; see `seedbed.Client.describe`."""
        seconds, wanted = self._seconds(timeout), requests.tensor_slice(spec, region)
        if literal := requests.described_here(wanted):
            return literal
        request = requests.describe_part(wanted)
        return (await self._answer("DescribeTensor", request, DescribeTensorResponse, Deadline(seconds))).description

    async def calculate_gain(self, nonlinearity: str, param: float | None = None, timeout: Timeout = ...) -> float:
        """The recommended gain of a nonlinearity; see `seedbed.Client.calculate_gain`."""
        request = requests.gain_request(nonlinearity, param)
        return (await self._ask("CalculateGain", request, CalculateGainResponse, timeout)).gain

    async def server_info(self, timeout: Timeout = ...) -> GetServerInfoResponse:
        """The server's version, algorithm versions, backend, device and limits; see `seedbed.Client.server_info`."""
        return await self._ask("GetServerInfo", GetServerInfoRequest(), GetServerInfoResponse, timeout)

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
        return bars.of_array_to_come(report, self._array(spec, region, out, report, self._seconds(timeout)))

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> Callable[[], Coroutine[Any, Any, Array]]:
        """What makes one tensor, once its arguments are checked."""
        return partial(self._made, requests.tensor_call(spec, region, out, progress), out, progress, seconds)

    async def _made(
        self, call: requests.ArrayCall, out: Array | None, progress: Progress | None, seconds: float | None
    ) -> Array:
        deadline = Deadline(seconds)
        if wanted := requests.large_part(call):
            connections = await asyncio.to_thread(self._transport.connections)  # it may have to ask the name service
            if len(connections) > 1:
                return await self._striped(wanted, connections, out, progress, deadline)
        [(_, array)] = [finished async for finished in self._arrays(call, deadline)]
        return array

    async def _striped(
        self,
        wanted: TensorSlice,
        connections: Sequence[int],
        out: Array | None,
        progress: Progress | None,
        deadline: Deadline,
    ) -> Array:
        """A large tensor over several connections at once."""
        request = requests.describe_part(wanted)
        description = (await self._answer("DescribeTensor", request, DescribeTensorResponse, deadline)).description
        array, calls = requests.striped_calls(description, wanted, out, progress, connections)
        stripes = [asyncio.create_task(self._finished(call, deadline)) for call in calls]
        try:
            await asyncio.gather(*stripes)
        finally:
            for stripe in stripes:
                stripe.cancel()  # those that an error of another left behind
            await asyncio.gather(*stripes, return_exceptions=True)
        return array

    async def _finished(self, call: requests.ArrayCall, deadline: Deadline) -> None:
        async for _ in self._arrays(call, deadline):
            pass

    def _model(
        self, wanted: Sequence[TensorSlice], out: Outputs | None, report: Progress | None, seconds: float | None
    ) -> AsyncGenerator[tuple[str, Array], None]:
        return self._arrays_within(requests.model_call(wanted, out, report), seconds)

    async def _arrays_within(
        self, call: requests.ArrayCall, seconds: float | None
    ) -> AsyncGenerator[tuple[str, Array], None]:
        async with contextlib.aclosing(self._arrays(call, Deadline(seconds))) as arrays:
            async for finished in arrays:
                yield finished

    async def _arrays(self, call: requests.ArrayCall, deadline: Deadline) -> AsyncGenerator[tuple[str, Array], None]:
        async with contextlib.aclosing(self._pieces(call.assembler, deadline)) as pieces:
            async for piece in pieces:
                if finished := call.accept(piece):
                    yield finished

    async def _chunks(self, assembler: Assembler, seconds: float | None) -> AsyncGenerator[tuple[int, Array], None]:
        async with contextlib.aclosing(self._pieces(assembler, Deadline(seconds))) as pieces:
            async for piece in pieces:
                if piece.values.size:
                    yield piece.offset, piece.values

    async def _pieces(self, assembler: Assembler, deadline: Deadline) -> AsyncGenerator[Piece, None]:
        """All that the assembler waits for, over as many streams as it takes."""
        retry = Retry(deadline, self.target, self.wait)
        while True:
            try:
                async with contextlib.aclosing(self._attempt(assembler, deadline)) as pieces:
                    async for piece in pieces:
                        yield piece
            except SeedbedError as error:
                if assembler.is_complete:
                    return  # only the stream's end was lost
                await asyncio.sleep(retry.delay(error, assembler.arrived))
            else:
                if assembler.is_complete:
                    return

    async def _attempt(self, assembler: Assembler, deadline: Deadline) -> AsyncGenerator[Piece, None]:
        assembler.begin()
        if not assembler.asks:
            for piece in assembler.literals():
                yield piece
            return
        stream = self._transport.stream(assembler.method, assembler.request(), deadline, assembler.route())
        async with contextlib.aclosing(stream) as messages:
            try:
                async for message in messages:
                    for piece in assembler.pieces(message):
                        yield piece
            except InvalidRequest as error:
                raise assembler.renamed(error) from error
        assembler.finish()

    async def _ask(self, method: str, request: Message, response: type[_Response], timeout: Timeout) -> _Response:
        return await self._answer(method, request, response, Deadline(self._seconds(timeout)))

    async def _answer(self, method: str, request: Message, response: type[_Response], deadline: Deadline) -> _Response:
        retry = Retry(deadline, self.target, self.wait)
        while True:
            try:
                answer = cast(_Response, await self._transport.unary(method, request, deadline))
            except SeedbedError as error:
                await asyncio.sleep(retry.delay(error))
            else:
                return answer

    def _seconds(self, timeout: Timeout) -> float | None:
        return self.timeout if isinstance(timeout, EllipsisType) else arguments.seconds(timeout)
