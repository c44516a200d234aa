"""The RPCs of the contract as plain methods: messages in, messages or framed bytes out. Nothing here knows gRPC."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from seedbed import __version__
from seedbed.v1 import (
    CalculateGainRequest,
    CalculateGainResponse,
    DescribeTensorRequest,
    DescribeTensorResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    InitModelRequest,
    InitModelResponse,
    InitTensorRequest,
    InitTensorResponse,
    Limits,
    TensorDescription,
    TensorSlice,
    codec,
)
from seedbed_server import engine
from seedbed_server.service.ahead import ReadAhead
from seedbed_server.service.turns import Turns

DEFAULT_CHUNK_BYTES: Final = 1 << 20
MIN_CHUNK_BYTES: Final = 8  # one element of the widest dtype
MAX_CHUNK_BYTES: Final = 3 << 20  # with its header it fits into the 4 MiB that gRPC clients accept by default
MIN_REQUEST_BYTES: Final = 4 << 10
MAX_REQUEST_BYTES: Final = 4 << 20
MAX_LITERAL_BYTES: Final = 1_000_000  # a description repeats them, and comes with a chunk

_IDLE_BUFFERS: Final = 16
_KEPT_DESCRIPTIONS: Final = 4096  # of about 150 bytes each: less than the message that a stream holds anyway


class InitServicer:
    """Serves tensors from one backend.

    Args:
        backend: What samples; see `seedbed_server.engine.open_backend`.
        chunk_bytes: The most bytes of a chunk's payload, which is cut to whole elements. Default 1 MiB.
        max_request_bytes: The most bytes of a request, which whoever receives it keeps to. Default 4 MiB.
        max_response_bytes: The most bytes of elements that one answer may have. Default 0: no limit.
        max_tensors: The most tensors of one model. Default 0: as many as fit into a request.
        max_orthogonal_elements: The most elements of an orthogonal matrix. Default, and at most, 2^26.

    Attributes:
        limits: What it refuses to exceed; a server adds its own.

    Raises:
        ValueError: ``chunk_bytes`` is outside ``MIN_CHUNK_BYTES .. MAX_CHUNK_BYTES``, or a limit is out of range.

    >>> from seedbed.v1 import Ones, TensorSpec
    >>> servicer = InitServicer(engine.open_backend("numpy"))
    >>> request = InitTensorRequest(spec=TensorSpec(shape=[2, 3], ones=Ones()))
    >>> [message] = servicer.init_tensor(request, cancelled=lambda: False)
    >>> np.frombuffer(InitTensorResponse.FromString(message).chunk.payload, np.float32)
    array([1., 1., 1., 1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        backend: engine.Backend,
        *,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_response_bytes: int = 0,
        max_tensors: int = 0,
        max_orthogonal_elements: int = engine.MAX_ORTHOGONAL_ELEMENTS,
    ) -> None:
        _check_between("chunk_bytes", chunk_bytes, MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
        _check_between("max_request_bytes", max_request_bytes, MIN_REQUEST_BYTES, 2**31 - 1)
        _check_between("max_orthogonal_elements", max_orthogonal_elements, 0, engine.MAX_ORTHOGONAL_ELEMENTS)
        check_limit("max_response_bytes", max_response_bytes, 2**63 - 1)
        check_limit("max_tensors", max_tensors, 2**63 - 1)
        self.backend = backend
        self.chunk_bytes = chunk_bytes
        self.limits = Limits(
            max_dimensions=engine.MAX_DIMENSIONS,
            max_orthogonal_elements=max_orthogonal_elements,
            max_request_bytes=max_request_bytes,
            chunk_bytes=chunk_bytes,
            max_response_bytes=max_response_bytes,
            max_tensors=max_tensors,
            max_literal_bytes=MAX_LITERAL_BYTES,
        )
        # A stream needs a buffer only while it samples, not while its client reads; so streams share a few.
        self._idle_buffers: deque[NDArray[np.uint8]] = deque(maxlen=_IDLE_BUFFERS)
        # Hundreds of threads that sample at once bring no more than one for each core, and all else, such as a health
        # check, would wait for Python's lock behind them. What a GPU does is awaited without that lock, hence no turns.
        self._turns = Turns(engine.usable_cores())
        self._read_ahead = ReadAhead(backend.threads)  # of several workers, each has its share of the cores

    def init_tensor(self, request: InitTensorRequest, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """Streams one tensor, or a region of it, as framed ``InitTensorResponse`` messages.

        Args:
            request: The tensor, the region, and where to begin.
            cancelled: Asked often; once it is true, the stream ends with `engine.Cancelled`.

        Raises:
            engine.InvalidSpec: The request cannot be served; raised by this call, not by the iterator.
        """
        description = self.describe(request)
        first_element = within(request.first_element, description.element_count, "first_element", "the region")
        self._check_bytes("region", _bytes_from(description, first_element), "one smaller region after the other")
        head = InitTensorResponse(description=description).SerializeToString()
        return self._messages(description, first_element, head, b"", cancelled)

    def init_model(self, request: InitModelRequest, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """Streams many tensors as framed ``InitModelResponse`` messages.

        Args:
            request: The tensors, their regions, and where to begin.
            cancelled: Asked often; once it is true, the stream ends with `engine.Cancelled`.

        Raises:
            engine.InvalidSpec: One of the tensors cannot be served, or the resume point does not exist; raised by this
                call, not by the iterator.
        """
        resume = request.resume
        within(resume.tensor_index, len(request.tensors), "resume.tensor_index", "the model", "tensors")
        self._check_tensors(len(request.tensors))
        kept: deque[bytes] = deque()
        elements_at_resume = byte_count = 0
        for index, tensor in enumerate(request.tensors):
            _stop_if(cancelled)
            description = self.describe(tensor, f"tensors[{index}].")
            if index == resume.tensor_index:
                elements_at_resume = description.element_count
                byte_count = _bytes_from(description, resume.first_element)
            elif index > resume.tensor_index:
                byte_count += description.byte_count
            if index >= resume.tensor_index and len(kept) < _KEPT_DESCRIPTIONS:
                kept.append(description.SerializeToString())
        within(resume.first_element, elements_at_resume, "resume.first_element", "the tensor resumed")
        self._check_bytes("tensors", byte_count, "fewer tensors at a time, or regions of them")
        return self._model_messages(request, kept, cancelled)

    def describe(
        self, request: InitTensorRequest | DescribeTensorRequest | TensorSlice, prefix: str = ""
    ) -> TensorDescription:
        """Validates a request for a tensor, within this server's limits, and tells what it resolves to.

        Args:
            request: The request.
            prefix: What the field paths of errors begin with, such as ``tensors[3].``.

        Raises:
            engine.InvalidSpec: It cannot be served.
        """
        description = describe(request, prefix)
        limit = self.limits.max_orthogonal_elements
        if (elements := engine.whole_elements(description)) > limit:
            over = f"has {elements} elements, over this server's limit of {limit} for orthogonal (8 reduced are as one)"
            raise engine.InvalidSpec(f"{prefix}spec.shape", f"{over} (max_orthogonal_elements); use a smaller matrix")
        limit = self.limits.max_literal_bytes
        if (byte_count := engine.literal_bytes(description.spec)) > limit:
            over = f"has literals of {byte_count} bytes, over this server's limit of {limit} (max_literal_bytes)"
            raise engine.InvalidSpec(f"{prefix}spec", f"{over}; draw it, or fill the literal part yourself")
        return description

    def describe_tensor(self, request: DescribeTensorRequest) -> DescribeTensorResponse:
        """Tells what a tensor resolves to.

        Raises:
            engine.InvalidSpec: The request cannot be served.
        """
        return DescribeTensorResponse(description=self.describe(request))

    def calculate_gain(self, request: CalculateGainRequest) -> CalculateGainResponse:
        """Computes the recommended gain of a nonlinearity.

        Raises:
            engine.InvalidSpec: There is no such nonlinearity, or the parameter is not finite.
        """
        param = request.param if request.HasField("param") else None
        return CalculateGainResponse(gain=engine.calculate_gain(request.nonlinearity, param))

    def get_server_info(self, _request: GetServerInfoRequest) -> GetServerInfoResponse:
        """Tells the version, the backend and the limits."""
        return GetServerInfoResponse(
            version=__version__,
            algorithm_versions=engine.ALGORITHM_VERSIONS,
            backend=self.backend.name,
            backend_reason=self.backend.reason,
            device=self.backend.device,
            threads=self.backend.threads,
            limits=self.limits,
        )

    def _check_bytes(self, field: str, byte_count: int, remedy: str) -> None:
        limit = self.limits.max_response_bytes
        if limit and byte_count > limit:
            over = f"is {byte_count} bytes, over the limit of {limit} for one answer (max_response_bytes)"
            raise engine.InvalidSpec(field, f"{over}; ask for {remedy}")

    def _check_tensors(self, count: int) -> None:
        limit = self.limits.max_tensors
        if limit and count > limit:
            over = f"are {count}, over the limit of {limit} for one model (max_tensors)"
            raise engine.InvalidSpec("tensors", f"{over}; ask for fewer at a time")

    def _model_messages(
        self, request: InitModelRequest, kept: deque[bytes], cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        first_element = request.resume.first_element
        for index in range(request.resume.tensor_index, len(request.tensors)):
            # The descriptions of 100,000 tensors are too many to keep while a client reads; the last are made again.
            serialized = kept.popleft() if kept else describe(request.tensors[index]).SerializeToString()
            description = TensorDescription.FromString(serialized)
            later_head = InitModelResponse(tensor_index=index).SerializeToString()
            head = later_head + codec.field(InitModelResponse.DESCRIPTION_FIELD_NUMBER, serialized)
            try:
                yield from self._messages(description, first_element, head, later_head, cancelled)
            except engine.InvalidSpec as error:  # an expression whose values turned out not to be finite
                raise engine.InvalidSpec(f"tensors[{index}].{error.field}", error.description) from error
            first_element = 0

    def _messages(
        self,
        description: TensorDescription,
        first_element: int,
        head: bytes,
        later_head: bytes,
        cancelled: Callable[[], bool],
    ) -> Iterator[bytes]:
        """The messages of one tensor: the first begins with ``head``, the later ones with ``later_head``."""
        end = description.element_count
        if first_element == end:
            yield head
            return
        dtype = engine.numpy_dtype(description.spec.dtype)
        step = self.chunk_bytes // dtype.itemsize
        source = _Source(self.backend.sampler(description), dtype, step, end, cancelled)
        offsets = range(first_element, end, step)
        if self.backend.ahead:
            yield from self._begun_ahead(source, offsets, head, later_head)
            return
        turns = self._turns_for(description)

        def make(offset: int) -> bytes:
            _stop_if(cancelled)
            with turns:
                piece = self._begin(source, offset)
                return self._message(head if offset == first_element else later_head, piece)

        if turns is self._turns:
            yield from self._read_ahead.messages(make, offsets)
        else:  # all the time goes into the first message
            yield from map(make, offsets)

    def _begun_ahead(self, source: _Source, offsets: range, head: bytes, later_head: bytes) -> Iterator[bytes]:
        """The messages from a device that goes on by itself."""
        under_way: deque[_Piece] = deque()
        try:
            for offset in offsets:
                _stop_if(source.cancelled)
                under_way.append(self._begin(source, offset))
                if len(under_way) > self.backend.ahead:
                    yield self._message(head, under_way.popleft())
                    head = later_head
            while under_way:
                _stop_if(source.cancelled)
                yield self._message(head, under_way.popleft())
                head = later_head
        finally:
            self._abandon(under_way)

    def _turns_for(self, description: TensorDescription) -> contextlib.AbstractContextManager[object]:
        """What to sample within; a matrix or a reduction that takes minutes must not keep a turn from others."""
        return contextlib.nullcontext() if engine.whole_elements(description) else self._turns

    def _begin(self, source: _Source, offset: int) -> _Piece:
        buffer = self._take_buffer()
        payload = buffer[: min(source.step, source.end - offset) * source.dtype.itemsize]
        try:
            return _Piece(offset, payload, buffer, source.sampler(offset, payload.view(source.dtype), source.cancelled))
        except BaseException:
            self._idle_buffers.append(buffer)
            raise

    def _message(self, head: bytes, piece: _Piece) -> bytes:
        try:
            piece.wait()
            return codec.with_chunk(head, piece.offset, piece.payload.data)
        finally:
            self._idle_buffers.append(piece.buffer)

    def _abandon(self, under_way: Iterable[_Piece]) -> None:
        """Waits for whoever still writes into the buffers."""
        for piece in under_way:
            with contextlib.suppress(Exception):  # the one that ended the stream is told
                piece.wait()
            self._idle_buffers.append(piece.buffer)

    def _take_buffer(self) -> NDArray[np.uint8]:
        try:
            return self._idle_buffers.pop()
        except IndexError:
            return self.backend.buffer(self.chunk_bytes)


class _Source(NamedTuple):
    """What the chunks of a tensor are made from."""

    sampler: engine.Sampler
    dtype: np.dtype[Any]
    step: int
    """The elements of a chunk that is not the last."""
    end: int
    """The elements of the region."""
    cancelled: Callable[[], bool]


class _Piece(NamedTuple):
    """A chunk that is being sampled."""

    offset: int
    payload: NDArray[np.uint8]
    buffer: NDArray[np.uint8]
    wait: Callable[[], None]


Unary = tuple[type[Message], Callable[[InitServicer, Any], Message]]
"""The request type and the method of an RPC that answers once."""

Streaming = tuple[type[Message], Callable[[InitServicer, Any, Callable[[], bool]], Iterator[bytes]]]
"""The request type and the method of an RPC that answers with a stream."""

UNARY: Final[dict[str, Unary]] = {
    "DescribeTensor": (DescribeTensorRequest, InitServicer.describe_tensor),
    "CalculateGain": (CalculateGainRequest, InitServicer.calculate_gain),
    "GetServerInfo": (GetServerInfoRequest, InitServicer.get_server_info),
}
STREAMS: Final[dict[str, Streaming]] = {
    "InitTensor": (InitTensorRequest, InitServicer.init_tensor),
    "InitModel": (InitModelRequest, InitServicer.init_model),
}


def _check_between(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: {value} is not between {least} and {most}")


def check_limit(name: str, value: float, most: float = 2**31 - 1) -> None:
    """Checks a limit of which 0 means that there is none.

    Args:
        name: What it is called.
        value: The limit.
        most: The largest that makes sense.

    Raises:
        ValueError: It is negative, not a number, or larger than ``most``.
    """
    if not 0 <= value <= most:
        raise ValueError(f"{name}: {value} is not between 0 and {most}; give 0 for no limit")


def describe(request: InitTensorRequest | DescribeTensorRequest | TensorSlice, prefix: str = "") -> TensorDescription:
    """Validates a request for a tensor and tells what it resolves to.

    Args:
        request: The request.
        prefix: What the field paths of errors begin with, such as ``tensors[3].``.

    Raises:
        engine.InvalidSpec: It cannot be served.
    """
    if not request.HasField("spec"):
        raise engine.InvalidSpec(f"{prefix}spec", "is missing; set the tensor's shape and one scheme")
    region = request.region if request.HasField("region") else None
    return engine.describe(request.spec, region, prefix)


def within(position: int, end: int, field: str, whole: str, unit: str = "elements") -> int:
    """Checks a point at which to resume; the end itself is one, at which nothing is left.

    Raises:
        engine.InvalidSpec: It is not within the whole.
    """
    if not 0 <= position <= end:
        raise engine.InvalidSpec(field, f"is {position}, but {whole} has {end} {unit}; give one of 0..{end}")
    return position


def _bytes_from(description: TensorDescription, first_element: int) -> int:
    return (description.element_count - first_element) * engine.numpy_dtype(description.spec.dtype).itemsize


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise engine.Cancelled
