"""One RPC as operators see it: its request, size, duration and outcome."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from seedbed.v1 import (
    DataType,
    DescribeTensorRequest,
    InitModelRequest,
    InitTensorRequest,
    TensorSlice,
)
from seedbed_server.service.logs import Value
from seedbed_server.service.servicer import STREAMS

_MAX_NAME_LENGTH: Final = 80

TensorRequest = InitTensorRequest | DescribeTensorRequest | TensorSlice


class Call:
    """An RPC in progress.

    Args:
        method: The RPC, such as ``InitTensor``.
        peer: The client's address as gRPC formats it, or "" if it will not be logged.
        client: The client's name, from its token or certificate, or "" if it is unknown or will not be logged.
        count_bytes: Called with the size of each message as it is sent, because a stream may take long.

    Attributes:
        request: The request, once it has been parsed.
        byte_count: The size of all messages sent so far.
        status: The outcome, as the name of a ``google.rpc.Code``.
        error: The error message sent to the client.
    """

    def __init__(self, method: str, peer: str, client: str, count_bytes: Callable[[float], None] | None) -> None:
        self.method = method
        self.request: Message | None = None
        self.byte_count = 0
        self.status = "CANCELLED"  # stays if the client disconnects: gRPC then closes the stream without an error
        self.error = ""
        self._peer = peer
        self._client = client
        self._count_bytes = count_bytes
        self._start = time.perf_counter()

    def sent(self, message: bytes) -> bytes:
        """Counts a message and returns it."""
        self.byte_count += len(message)
        if self._count_bytes is not None:
            self._count_bytes(len(message))
        return message

    def failed(self, status: status_pb2.Status) -> None:
        """Records the error that is sent to the client."""
        self.status, self.error = code_pb2.Code.Name(status.code), status.message

    def seconds(self) -> float:
        """The time since the call began."""
        return time.perf_counter() - self._start

    def fields(self) -> dict[str, Value]:
        """The fields of the call's log line."""
        fields: dict[str, Value] = {"rpc": self.method, "status": self.status}
        fields["peer"] = self._peer
        if self._client:
            fields["client"] = self._client
        tensors = _tensors(self.request)
        if tensors:
            fields["tensors"] = len(tensors)
        if len(tensors) == 1 and self.byte_count:
            fields |= _tensor_fields(tensors[0])
        fields |= {"bytes": self.byte_count, "seconds": round(self.seconds(), 6)}
        return fields | ({"error": self.error} if self.error else {})

    def elements(self) -> dict[str, int]:
        """The number of elements requested per scheme; empty until the request has been validated."""
        if self.method not in STREAMS or not self.byte_count:
            return {}
        elements: Counter[str] = Counter()
        first_tensor, first_element = _resume_point(self.request)
        tensors = _tensors(self.request)
        for index in range(first_tensor, len(tensors)):
            elements[tensors[index].spec.WhichOneof("scheme")] += _element_count(tensors[index]) - first_element
            first_element = 0
        return elements


def _tensors(request: Message | None) -> Sequence[TensorRequest]:
    if isinstance(request, InitModelRequest):
        return request.tensors
    return (request,) if isinstance(request, InitTensorRequest | DescribeTensorRequest) else ()


def _tensor_fields(tensor: TensorRequest) -> dict[str, Value]:
    """The log fields of a tensor. Its name is included only if it is short and printable."""
    spec = tensor.spec
    dtype = DataType.Name(spec.dtype or DataType.DATA_TYPE_FLOAT32)
    fields: dict[str, Value] = {
        "scheme": str(spec.WhichOneof("scheme")),
        "dtype": dtype.removeprefix("DATA_TYPE_").lower(),
        "elements": _element_count(tensor),
    }
    is_legible = spec.name.isprintable() and 0 < len(spec.name) <= _MAX_NAME_LENGTH
    return fields | ({"name": spec.name} if is_legible else {})


def _element_count(tensor: TensorRequest) -> int:
    """The elements of a valid request; an invalid one may have too many dimensions to multiply."""
    if not tensor.HasField("region"):
        return math.prod(tensor.spec.shape)
    region = tensor.region
    return math.prod(stop - start for start, stop in zip(region.start, region.stop, strict=True))


def _resume_point(request: Message | None) -> tuple[int, int]:
    """The index of the first tensor of a response, and of its first element."""
    if isinstance(request, InitModelRequest):
        return request.resume.tensor_index, request.resume.first_element
    return 0, request.first_element if isinstance(request, InitTensorRequest) else 0
