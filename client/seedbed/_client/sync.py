"""The synchronous client."""

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

_VISITING_STREAMS = 4  # one client process of one server gains by more, but hardly beyond that

_Response = TypeVar("_Response", bound=Message)


class Client(BaseClient[Array, Transport]):
    """A client of a service; made by `connect`, closed by ``with`` or `close`.

    Of several replicas, those that answer and say that they serve take turns: each call is another's, and so is the
    rest of a stream that broke. `init` and the methods of the schemes ask all of them at once, each for a part, if a
    tensor has 32 MiB or more. All give the same bits. One server is asked over several connections then: gRPC passes a
    third of what a server makes over one.

    It may be used from many threads at once. Each method raises `InvalidRequest` if it is asked for what cannot be
    served, and the other errors of `seedbed.errors` if the server cannot be reached or fails. A call waits for a server
    that cannot be reached, as long as `connect` was told, and for one that is full; a stream that breaks is resumed
    where it broke. All of that is within the call's timeout, and told to the logger ``seedbed``.

    It can be pickled, for the workers of Ray, ``multiprocessing`` or a data loader: what arrives connects with the same
    arguments when it is first used there, ``local:`` and ``local:cuda`` within the process where it arrives. Files,
    SEEDBED_TOKEN_FILE's too, are read there from the same paths, and SEEDBED_TOKEN has to be set there: a client with
    ``token=`` or ``credentials=`` refuses.
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
        """Closes the connections; calls still running end with `Cancelled`."""
        if transport := self._opening.closed():
            transport.close()

    def init(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Array:
        """Makes one tensor, or a region of it.

        Args:
            spec: The tensor, such as `seedbed.spec` makes.
            region: The part wanted, as ``np.s_[...]`` slices or a Region message; default all of it. Dimensions that
                are left out are wanted whole, as in NumPy.
            out: An array of the region's shape and the spec's dtype to fill, memory-mapped or not; default a new one.
                If the call fails, a part of it may have been filled.
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
        """Makes one tensor, or a region of it, chunk by chunk: for tensors that no memory holds.

        Args:
            spec: The tensor, such as `seedbed.spec` makes.
            region: The part wanted, as ``np.s_[...]`` slices or a Region message; default all of it.
            first_element: The position within the region, in elements of its row-major order, to begin at.
            timeout: Seconds until the last chunk, with all that is done between; None waits for ever; default the
                client's.

        Returns:
            An iterator of the position of a chunk's first element and its elements, a read-only 1-D array. Chunks
            follow each other without a gap; the server decides on their size. Closing the iterator ends the call.

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
        """Makes many tensors in one stream.

        Args:
            model: A Model message, or TensorSpec or TensorSlice messages, in the order wanted. Several of one name have
                to be parts of one tensor, and come under its name; those without a name are told by their order.
            out: The array that each tensor goes into: a mapping of all names, or a function of the name, which is asked
                when the tensor begins and gives None for a new array. Default new arrays. Of several parts of one
                name, a function is asked for each.
            progress: Called as ``progress(done_bytes, total_bytes)`` of the whole model after each chunk; True draws a
                bar.
            timeout: Seconds until the last tensor, with all that is done between; None waits for ever; default the
                client's.

        Returns:
            An iterator of names and complete arrays, in the order asked for. Closing the iterator ends the call.

        >>> import seedbed
        >>> specs = [seedbed.spec("normal", (4, 3), name="weight"), seedbed.spec("zeros", (4,), name="bias")]
        >>> with seedbed.connect("local:") as client:
        ...     state = dict(client.init_model(specs))
        >>> state["bias"]
        array([0., 0., 0., 0.], dtype=float32)
        """
        wanted = requests.named(model, out)
        report = bars.reporter(progress, requests.label(model, wanted))
        return bars.of_arrays(report, self._model(wanted, out, report, self._seconds(timeout)))

    def _model(
        self, wanted: Sequence[TensorSlice], out: Outputs | None, report: Progress | None, seconds: float | None
    ) -> Generator[tuple[str, Array], None, None]:
        return self._arrays_within(arrays.model_call(wanted, out, report), seconds)

    def visit(
        self,
        model: ModelLike,
        use: Callable[[int, int, Array], object],
        jobs: int | None = None,
        timeout: Timeout = ...,
    ) -> None:
        """Makes many tensors piece by piece, several pieces at a time: for what is written or compared on the way.

        No memory is needed but the pieces'. They come in no particular order, and those of one tensor from several
        threads at a time.

        Args:
            model: A Model message, or TensorSpec or TensorSlice messages, of any names.
            use: Called as ``use(index, first_element, values)``, on several threads at a time: which of the tensors,
                the position of the first value within its region, in row-major order, and the values, a 1-D array that
                holds them until it returns. What it raises ends the call.
            jobs: How many pieces at a time; over a socket, so many streams. Default 4 streams, or as many as
                there are connections; with ``local:`` as many as the backend has threads.
            timeout: Seconds until the last piece, with all that is done between; None waits for ever; default the
                client's.

        >>> import seedbed
        >>> counts = []  # and no sum: adding is no single step, and these are threads
        >>> with seedbed.connect("local:") as client:
        ...     model = [seedbed.spec("ones", (1000, 1000)), seedbed.spec("zeros", (7,))]
        ...     client.visit(model, lambda index, first, values: counts.append((index, len(values))))
        >>> sum(count for index, count in counts if index == 0)
        1000000
        """
        deadline, wanted = Deadline(self._seconds(timeout)), requests.slices(model)
        connections = self._transport.connections()
        streams = arguments.jobs(jobs, max(_VISITING_STREAMS, len(connections)))
        for nothing in _portions.nothing_of(wanted):
            self._visit(nothing, 0, use, deadline)  # all are judged before any is made
        portions = Shared(_portions.portions(wanted))

        def work(connection: int) -> None:
            for portion in portions:
                self._visit(portion, connection, use, deadline)

        run_together([partial(work, connections[i % len(connections)]) for i in range(streams)], deadline)

    def describe(self, spec: TensorSpec, region: RegionLike | None = None, timeout: Timeout = ...) -> TensorDescription:
        """Tells what a tensor resolves to, without sampling: its law, fans, gain, elements and bytes.

        The message shows itself as ``seedbed describe`` prints it; ``str`` of it is protobuf's text.

        Args:
            spec: The tensor, such as `seedbed.spec` makes.
            region: The part wanted, as ``np.s_[...]`` slices or a Region message; default all of it.
            timeout: Seconds; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     description = client.describe(seedbed.spec("kaiming_normal", (64, 3, 5, 5), nonlinearity="tanh"))
        >>> description.fan_in, description.gain, round(description.law.normal.std, 4)
        (75, 1.6666666666666667, 0.1925)
        """
        seconds, wanted = self._seconds(timeout), requests.tensor_slice(spec, region)
        if literal := requests.described_here(wanted):
            return literal
        return self._unary(requests.describe(wanted), Deadline(seconds)).description

    def calculate_gain(self, nonlinearity: str, param: float | None = None, timeout: Timeout = ...) -> float:
        """The recommended gain of a nonlinearity, as ``torch.nn.init.calculate_gain``.

        Args:
            nonlinearity: linear, identity, conv1d to conv3d, conv_transpose1d to conv_transpose3d, sigmoid, tanh, relu,
                leaky_relu or selu.
            param: The negative slope of leaky_relu, 0.01 by default; not read for another nonlinearity.
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
        with bars.drawn(report):
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
        if (wanted := arrays.large_part(call)) and len(connections := self._transport.connections()) > 1:
            return self._striped(wanted, connections, out, progress, deadline)
        [(_, array)] = self._arrays(call, deadline)
        return array

    def _striped(
        self,
        wanted: TensorSlice,
        connections: Sequence[int],
        out: Array | None,
        progress: Progress | None,
        deadline: Deadline,
    ) -> Array:
        """A large tensor over several connections at once."""
        description = self._unary(requests.describe(wanted), deadline).description
        array, calls = arrays.striped_calls(description, wanted, out, progress, connections)
        run_together([partial(list, self._arrays(call, deadline)) for call in calls], deadline)
        return array

    def _arrays(self, call: arrays.ArrayCall, deadline: Deadline) -> Generator[tuple[str, Array], None, None]:
        with contextlib.closing(self._pieces(call.assembler, deadline)) as pieces:
            for piece in pieces:
                if finished := call.accept(piece):
                    yield finished

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
                raise portion.renamed(error) from error

    def _arrays_within(self, call: arrays.ArrayCall, seconds: float | None) -> Generator[tuple[str, Array], None, None]:
        yield from self._arrays(call, Deadline(seconds))

    def _chunks(self, assembler: Assembler, seconds: float | None) -> Generator[tuple[int, Array], None, None]:
        with contextlib.closing(self._pieces(assembler, Deadline(seconds))) as pieces:
            for piece in pieces:
                if piece.values.size:
                    yield piece.offset, piece.values

    def _pieces(self, assembler: Assembler, deadline: Deadline) -> Generator[Piece, None, None]:
        """All that the assembler waits for, over as many streams as it takes."""
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
