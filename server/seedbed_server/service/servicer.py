"""The RPCs of the contract as plain methods: messages in, messages or serialised messages out. Independent of gRPC."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf.message import Message

from seedbed._version import __version__
from seedbed.common import fields
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
from seedbed_server.service.chunks import ChunkPipeline, stop_if
from seedbed_server.service.settings import Settings

SERVICE_NAME: Final = "seedbed.v1.InitService"
MAX_LITERAL_BYTES: Final = 1_000_000  # a description repeats the literals, and must fit into a message with a chunk

_MAX_CACHED_DESCRIPTIONS: Final = 4096  # of about 150 bytes each: less than the one message that a stream holds anyway


class InitServicer:
    """Serves tensors from one backend.

    Args:
        backend: The backend that samples; see `seedbed_server.engine.open_backend`.
        settings: The chunk size and the limits of requests; the other settings are ignored. Default ``Settings()``.

    Attributes:
        limits: The limits that it reports. A server adds the limits of its connections and streams.

    >>> import numpy as np
    >>> from seedbed.v1 import Ones, TensorSpec
    >>> servicer = InitServicer(engine.open_backend("numpy"))
    >>> request = InitTensorRequest(spec=TensorSpec(shape=[2, 3], ones=Ones()))
    >>> [message] = servicer.init_tensor(request, cancelled=lambda: False)
    >>> np.frombuffer(InitTensorResponse.FromString(message).chunk.payload, np.float32)
    array([1., 1., 1., 1., 1., 1.], dtype=float32)
    """

    def __init__(self, backend: engine.Backend, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.limits = Limits(
            max_dimensions=engine.MAX_DIMENSIONS,
            max_literal_bytes=MAX_LITERAL_BYTES,
            max_orthogonal_elements=settings.max_orthogonal_elements,
            max_request_bytes=settings.max_request_bytes,
            chunk_bytes=settings.chunk_bytes,
            max_response_bytes=settings.max_response_bytes,
            max_tensors=settings.max_tensors,
        )
        self._backend = backend
        self._chunks = ChunkPipeline(backend, settings.chunk_bytes)

    def init_tensor(self, request: InitTensorRequest, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """Streams one tensor, or a region of it, as serialised ``InitTensorResponse`` messages.

        Args:
            request: The tensor, the region, and the element to start from.
            cancelled: Polled often; once it returns true, the stream ends with `engine.Cancelled`.

        Raises:
            engine.InvalidSpec: The request is invalid. Raised by the call itself, not by the iterator.
        """
        description = self.describe(request)
        first_element = within(request.first_element, description.element_count, "first_element", "the region")
        self._check_bytes("region", _bytes_from(description, first_element), "smaller regions, one after the other")
        head = InitTensorResponse(description=description).SerializeToString()
        return self._chunks.messages(description, first_element, head, b"", cancelled)

    def init_model(self, request: InitModelRequest, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """Streams many tensors as serialised ``InitModelResponse`` messages.

        Args:
            request: The tensors, their regions, and the point to resume from.
            cancelled: Polled often; once it returns true, the stream ends with `engine.Cancelled`.

        Raises:
            engine.InvalidSpec: A tensor is invalid, or the resume point does not exist. Raised by the call itself, not
                by the iterator.
        """
        resume = request.resume
        within(resume.tensor_index, len(request.tensors), "resume.tensor_index", "the model", "tensors")
        self._check_tensors(len(request.tensors))
        descriptions: deque[bytes] = deque()
        elements_at_resume = byte_count = 0
        for index, tensor in enumerate(request.tensors):
            stop_if(cancelled)
            description = self.describe(tensor, f"{fields.of_tensor(index)}.")
            if index == resume.tensor_index:
                elements_at_resume = description.element_count
                byte_count = _bytes_from(description, resume.first_element)
            elif index > resume.tensor_index:
                byte_count += description.byte_count
            if index >= resume.tensor_index and len(descriptions) < _MAX_CACHED_DESCRIPTIONS:
                descriptions.append(description.SerializeToString())
        within(resume.first_element, elements_at_resume, "resume.first_element", "the tensor to resume")
        self._check_bytes("tensors", byte_count, "fewer tensors at a time, or regions of them")
        return self._model_messages(request, descriptions, cancelled)

    def describe(
        self, request: InitTensorRequest | DescribeTensorRequest | TensorSlice, prefix: str = ""
    ) -> TensorDescription:
        """Validates a request for a tensor, checks it against this server's limits, and resolves it.

        Args:
            request: The request.
            prefix: The prefix of field paths in errors, such as ``tensors[3].``.

        Raises:
            engine.InvalidSpec: The request is invalid.
        """
        description = describe(request, prefix)
        limit = self.limits.max_orthogonal_elements
        if (elements := engine.whole_elements(description)) > limit:
            over = f"has {elements} elements, over this server's limit of {limit} for an orthogonal matrix"
            raise engine.InvalidSpec(
                f"{prefix}spec.shape",
                f"{over} (max_orthogonal_elements; 8 elements of a reduction count as 1); use a smaller matrix",
            )
        limit = self.limits.max_literal_bytes
        if (byte_count := engine.literal_bytes(description.spec)) > limit:
            over = f"has literals of {byte_count} bytes, over this server's limit of {limit} (max_literal_bytes)"
            raise engine.InvalidSpec(f"{prefix}spec", f"{over}; draw it, or fill the literal part yourself")
        return description

    def describe_tensor(self, request: DescribeTensorRequest) -> DescribeTensorResponse:
        """Resolves a tensor without sampling it.

        Raises:
            engine.InvalidSpec: The request is invalid.
        """
        return DescribeTensorResponse(description=self.describe(request))

    def calculate_gain(self, request: CalculateGainRequest) -> CalculateGainResponse:
        """Computes the recommended gain of a nonlinearity.

        Raises:
            engine.InvalidSpec: The nonlinearity is unknown, or the parameter is not finite.
        """
        param = request.param if request.HasField("param") else None
        return CalculateGainResponse(gain=engine.calculate_gain(request.nonlinearity, param))

    def get_server_info(self, _request: GetServerInfoRequest) -> GetServerInfoResponse:
        """Returns the version, the backend and the limits."""
        return GetServerInfoResponse(
            version=__version__,
            algorithm_versions=engine.ALGORITHM_VERSIONS,
            backend=self._backend.name,
            backend_reason=self._backend.reason,
            device=self._backend.device,
            threads=self._backend.threads,
            limits=self.limits,
        )

    def _check_bytes(self, field: str, byte_count: int, remedy: str) -> None:
        limit = self.limits.max_response_bytes
        if limit and byte_count > limit:
            over = f"is {byte_count} bytes, over the limit of {limit} for one response (max_response_bytes)"
            raise engine.InvalidSpec(field, f"{over}; request {remedy}")

    def _check_tensors(self, count: int) -> None:
        limit = self.limits.max_tensors
        if limit and count > limit:
            over = f"are {count}, over the limit of {limit} for one model (max_tensors)"
            raise engine.InvalidSpec("tensors", f"{over}; request fewer at a time")

    def _model_messages(
        self, request: InitModelRequest, descriptions: deque[bytes], cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        first_element = request.resume.first_element
        for index in range(request.resume.tensor_index, len(request.tensors)):
            # 100,000 descriptions are too many to hold while a client reads; those beyond the cache are made again.
            serialized = (
                descriptions.popleft() if descriptions else describe(request.tensors[index]).SerializeToString()
            )
            description = TensorDescription.FromString(serialized)
            later_head = InitModelResponse(tensor_index=index).SerializeToString()
            head = later_head + codec.field(InitModelResponse.DESCRIPTION_FIELD_NUMBER, serialized)
            try:
                yield from self._chunks.messages(description, first_element, head, later_head, cancelled)
            except engine.InvalidSpec as error:  # an expression whose values turned out not to be finite
                raise engine.InvalidSpec(f"{fields.of_tensor(index)}.{error.field}", error.description) from error
            first_element = 0


Unary = tuple[type[Message], Callable[[InitServicer, Any], Message]]
"""The request type and the method of a unary RPC."""

Streaming = tuple[type[Message], Callable[[InitServicer, Any, Callable[[], bool]], Iterator[bytes]]]
"""The request type and the method of an RPC with a response stream."""

UNARY: Final[dict[str, Unary]] = {
    "DescribeTensor": (DescribeTensorRequest, InitServicer.describe_tensor),
    "CalculateGain": (CalculateGainRequest, InitServicer.calculate_gain),
    "GetServerInfo": (GetServerInfoRequest, InitServicer.get_server_info),
}
STREAMS: Final[dict[str, Streaming]] = {
    "InitTensor": (InitTensorRequest, InitServicer.init_tensor),
    "InitModel": (InitModelRequest, InitServicer.init_model),
}


def describe(request: InitTensorRequest | DescribeTensorRequest | TensorSlice, prefix: str = "") -> TensorDescription:
    """Validates a request for a tensor and resolves it.

    Args:
        request: The request.
        prefix: The prefix of field paths in errors, such as ``tensors[3].``.

    Raises:
        engine.InvalidSpec: The request is invalid.
    """
    if not request.HasField("spec"):
        raise engine.InvalidSpec(f"{prefix}spec", "is missing; set the tensor's shape and one scheme")
    region = request.region if request.HasField("region") else None
    return engine.describe(request.spec, region, prefix)


def within(position: int, end: int, field: str, whole: str, unit: str = "elements") -> int:
    """Checks and returns a resume point. The end itself is valid: nothing is left to send.

    Raises:
        engine.InvalidSpec: The position is out of range.
    """
    if not 0 <= position <= end:
        raise engine.InvalidSpec(field, f"is {position}, but {whole} has {end} {unit}; give one of 0..{end}")
    return position


def _bytes_from(description: TensorDescription, first_element: int) -> int:
    return (description.element_count - first_element) * engine.numpy_dtype(description.spec.dtype).itemsize
