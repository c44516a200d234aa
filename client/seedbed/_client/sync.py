"""The client for threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import TypeVar

from google.protobuf.message import Message

from seedbed._ask import arguments, requests
from seedbed._ask.requests import UnaryCall
from seedbed._client.base import BaseClient
from seedbed._receive import arrays
from seedbed._receive import portions as _portions
from seedbed._receive.assembler import Assembler, Piece
from seedbed._show import bars
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed._wire.transport import GrpcTransport, Transport
from seedbed.common.deadline import Deadline
from seedbed.common.threads import Shared, run_together
from seedbed.errors import InvalidRequest, SeedbedError
from seedbed.v1 import GetServerInfoResponse, TensorDescription, TensorSlice, TensorSpec

_VISIT_STREAMS = 4  # with one client process and one server, more gain hardly anything

_Response = TypeVar("_Response", bound=Message)


class Client(BaseClient[Array, Transport]):
    """A client of a service; made by `connect`, closed by ``with`` or `close`.

    Calls are distributed round-robin over the replicas that are ready. If a stream breaks, another replica resumes it.
    `init` and the methods of the schemes divide a tensor of 32 MiB or more into stripes, which come from all replicas
    at once, or over several connections to a single server: one gRPC connection carries only a third of what a server
    samples. All replicas serve the same bits.

    A client may be used on many threads at once. Each method raises `InvalidRequest` if the request is invalid, and
    other errors of `seedbed.errors` if the server cannot be reached or fails. A call waits for an unreachable server,
    for the ``wait`` of `connect`, and for one that is full. A broken stream is resumed where it broke. The call's
    timeout includes all of this; the logger ``seedbed`` reports it.

    A client can be pickled, for the workers of Ray, ``multiprocessing`` or a data loader. The copy connects with the
    same arguments on first use; ``local:`` and ``local:cuda`` mean the process it is in then. Files, including
    SEEDBED_TOKEN_FILE, are read there from the same paths, and SEEDBED_TOKEN has to be set there, too. A client with
    ``token=`` or ``credentials=`` cannot be pickled.
    """

    def _open(self) -> Transport:
        connections = arguments.connections(self._origin.connections)
        return GrpcTransport(self._origin.target, self._origin.security, self._origin.options, connections)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; running calls end with `Cancelled`."""
        if transport := self._opening.close():
            transport.close()

    def init(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Array:
        """Initialise one tensor, or a region of it.

        Args:
            spec: The tensor, such as `seedbed.spec` returns.
            region: The region, as ``np.s_[...]`` slices or a Region message; default all of the tensor. Omitted
                dimensions are complete, as in NumPy.
            out: An array of the region's shape and the spec's dtype to fill, memory-mapped or not; default a new one.
                If the call fails, it may be partly filled.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        Returns:
            The new array, or ``out``.

        >>> import numpy as np, seedbed
        >>> spec = seedbed.spec("uniform", (1000, 1000), name="w")
        >>> with seedbed.connect("local:") as client:
        ...     shard = client.init(spec, region=np.s_[10:20, -5:])
        >>> shard.shape
        (10, 5)
        """
        return self._run(spec, region=region, out=out, progress=progress, timeout=timeout)

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> Generator[tuple[int, Array], None, None]:
        """Initialise one tensor, or a region of it, chunk by chunk, for tensors that do not fit into memory.

        Args:
            spec: The tensor, such as `seedbed.spec` returns.
            region: The region, as ``np.s_[...]`` slices or a Region message; default all of the tensor.
            first_element: The position within the region, in row-major order, at which to begin.
            timeout: Seconds until the last chunk, including the caller's work in between; None waits for ever; default
                the client's.

        Returns:
            An iterator of pairs (position of a chunk's first element, chunk). A chunk is a read-only 1-D array. Chunks
            are consecutive; the server chooses their size. Closing the iterator ends the call.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     sum(len(values) for _, values in client.iter_chunks(seedbed.spec("normal", (1000, 1000))))
        1000000
        """
        assembler = arrays.chunk_call(spec, region, first_element)
        return self._chunks(assembler, self._seconds(timeout))

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Generator[tuple[str, Array], None, None]:
        """Initialise many tensors in one stream.

        Args:
            model: A Model message, or TensorSpec or TensorSlice messages, in the order in which to serve them. Those of
                the same name have to be slices of the same tensor; those without a name are identified by their order.
            out: The array to fill for each tensor: a mapping of all names, or a function of the name, which is called
                when the tensor begins, and may return None for a new array. It is called for each slice of a tensor.
                Default new arrays.
            progress: Called as ``progress(done_bytes, total_bytes)`` of the whole model after each chunk; True draws a
                bar.
            timeout: Seconds until the last tensor, including the caller's work in between; None waits for ever;
                default the client's.

        Returns:
            An iterator of names and complete arrays, in the model's order. Closing the iterator ends the call.

        >>> import seedbed
        >>> specs = [seedbed.spec("normal", (4, 3), name="weight"), seedbed.spec("zeros", (4,), name="bias")]
        >>> with seedbed.connect("local:") as client:
        ...     state = dict(client.init_model(specs))
        >>> state["bias"]
        array([0., 0., 0., 0.], dtype=float32)
        """
        slices = requests.named_slices(model, out)
        report = bars.reporter(progress, requests.label(model, slices))
        return bars.with_bar(report, self._model(slices, out, report, self._seconds(timeout)))

    def _model(
        self, slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, seconds: float | None
    ) -> Generator[tuple[str, Array], None, None]:
        return self._arrays_within(arrays.model_call(slices, out, progress), seconds)

    def visit(
        self,
        model: ModelLike,
        use: Callable[[int, int, Array], object],
        jobs: int | None = None,
        timeout: Timeout = ...,
    ) -> None:
        """Initialise many tensors piece by piece, several at a time, for writing or comparing them on the fly.

        Only the pieces need memory. They come in no particular order, and those of one tensor may come on several
        threads at once.

        Args:
            model: A Model message, or TensorSpec or TensorSlice messages, with any names.
            use: Called as ``use(index, first_element, values)``, on several threads at once, with the tensor's index,
                the position of the first value within the region, in row-major order, and the values, a 1-D array that
                is valid until ``use`` returns. An exception of ``use`` ends the call.
            jobs: The number of pieces at a time: over a socket, the number of streams. Default 4, or the number of
                connections if that is larger; with ``local:``, the number of the backend's threads.
            timeout: Seconds until the last piece, including the calls of ``use``; None waits for ever; default the
                client's.

        >>> import seedbed
        >>> counts = []  # appending is atomic, and adding to a sum is not
        >>> with seedbed.connect("local:") as client:
        ...     model = [seedbed.spec("ones", (1000, 1000)), seedbed.spec("zeros", (7,))]
        ...     client.visit(model, lambda index, first, values: counts.append((index, len(values))))
        >>> sum(count for index, count in counts if index == 0)
        1000000
        """
        deadline, slices = Deadline(self._seconds(timeout)), requests.slices(model)
        connections = self._transport.connections()
        streams = arguments.jobs(jobs, max(_VISIT_STREAMS, len(connections)))
        for portion in _portions.empty_portions(slices):
            self._visit(portion, 0, use, deadline)  # validates all tensors before any is sampled
        portions = Shared(_portions.portions(slices))

        def work(connection: int) -> None:
            for portion in portions:
                self._visit(portion, connection, use, deadline)

        run_together([partial(work, connections[i % len(connections)]) for i in range(streams)], deadline)

    def describe(self, spec: TensorSpec, region: RegionLike | None = None, timeout: Timeout = ...) -> TensorDescription:
        """Resolve a tensor without sampling it: its law, fans, gain, elements and bytes.

        The message's ``repr`` is the output of ``seedbed describe``; its ``str`` is protobuf's text format.

        Args:
            spec: The tensor, such as `seedbed.spec` returns.
            region: The region, as ``np.s_[...]`` slices or a Region message; default all of the tensor.
            timeout: Seconds; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     description = client.describe(seedbed.spec("kaiming_normal", (64, 3, 5, 5), nonlinearity="tanh"))
        >>> description.fan_in, description.gain, round(description.law.normal.std, 4)
        (75, 1.6666666666666667, 0.1925)
        """
        seconds, tensor_slice = self._seconds(timeout), requests.tensor_slice(spec, region)
        if description := requests.describe_literal(tensor_slice):
            return description
        return self._unary(requests.describe(tensor_slice), Deadline(seconds)).description

    def calculate_gain(self, nonlinearity: str, param: float | None = None, timeout: Timeout = ...) -> float:
        """The recommended gain of a nonlinearity, as ``torch.nn.init.calculate_gain``.

        Args:
            nonlinearity: linear, identity, conv1d to conv3d, conv_transpose1d to conv_transpose3d, sigmoid, tanh, relu,
                leaky_relu or selu.
            param: The negative slope of leaky_relu, 0.01 by default; ignored for other nonlinearities.
            timeout: Seconds; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.calculate_gain("leaky_relu", 1.0)
        1.0
        """
        return self._unary(requests.calculate_gain(nonlinearity, param), self._deadline(timeout)).gain

    def server_info(self, timeout: Timeout = ...) -> GetServerInfoResponse:
        """The server's version, algorithm versions, backend, device and limits.

        Args:
            timeout: Seconds; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.server_info().limits.max_dimensions
        64
        """
        return self._unary(requests.server_info(), self._deadline(timeout))

    def _run(
        self,
        spec: TensorSpec,
        *,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Array:
        report, seconds = bars.reporter(progress, requests.label_of(spec)), self._seconds(timeout)
        with bars.closing_bar(report):
            return self._array(spec, region, out, report, seconds)

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> Array:
        call, deadline = arrays.tensor_call(spec, region, out, progress), Deadline(seconds)
        if (large := arrays.large_slice(call)) and len(connections := self._transport.connections()) > 1:
            return self._striped(large, connections, out, progress, deadline)
        [(_, array)] = self._arrays(call, deadline)
        return array

    def _striped(
        self,
        tensor_slice: TensorSlice,
        connections: Sequence[int],
        out: Array | None,
        progress: Progress | None,
        deadline: Deadline,
    ) -> Array:
        """Receive a large tensor in stripes, over several connections at once."""
        description = self._unary(requests.describe(tensor_slice), deadline).description
        array, calls = arrays.striped_calls(description, tensor_slice, out, progress, connections)
        run_together([partial(list, self._arrays(call, deadline)) for call in calls], deadline)
        return array

    def _arrays(self, call: arrays.ArrayCall, deadline: Deadline) -> Generator[tuple[str, Array], None, None]:
        with contextlib.closing(self._pieces(call.assembler, deadline)) as pieces:
            for piece in pieces:
                if completed := call.accept(piece):
                    yield completed

    def _visit(
        self,
        portion: _portions.Portion,
        connection: int,
        use: Callable[[int, int, Array], object],
        deadline: Deadline,
    ) -> None:
        with contextlib.closing(self._pieces(portion.assembler(connection), deadline)) as pieces:
            try:
                for piece in pieces:
                    if piece.values.size:
                        use(portion.tensor + piece.tensor_index, portion.first_element + piece.offset, piece.values)
            except InvalidRequest as error:
                raise portion.renumber(error) from error

    def _arrays_within(self, call: arrays.ArrayCall, seconds: float | None) -> Generator[tuple[str, Array], None, None]:
        yield from self._arrays(call, Deadline(seconds))

    def _chunks(self, assembler: Assembler, seconds: float | None) -> Generator[tuple[int, Array], None, None]:
        with contextlib.closing(self._pieces(assembler, Deadline(seconds))) as pieces:
            for piece in pieces:
                if piece.values.size:
                    yield piece.offset, piece.values

    def _pieces(self, assembler: Assembler, deadline: Deadline) -> Generator[Piece, None, None]:
        """Yield the pieces of a call, from as many streams as it needs."""
        attempts = self._attempts(assembler, deadline)
        while (call := attempts.next_stream()) is not None:
            try:
                with contextlib.closing(self._transport.stream(call, deadline)) as messages:
                    for message in messages:
                        yield from assembler.pieces(message)
                assembler.finish()
            except SeedbedError as error:
                time.sleep(attempts.delay(error))
        yield from assembler.literals()

    def _unary(self, call: UnaryCall[_Response], deadline: Deadline) -> _Response:
        retry = self._retry(deadline)
        while True:
            try:
                return self._transport.unary(call, deadline)
            except SeedbedError as error:
                time.sleep(retry.delay(error))
