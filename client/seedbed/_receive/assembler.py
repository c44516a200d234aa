"""Streams into pieces: parsed without copying, verified, and resumable. This module does no input or output.

An `Assembler` takes the messages of one stream after another, until every element has arrived once. Payloads stay views
of the messages, so that they are copied only once, into the caller's array. Literals are not requested, because the
call already holds them; their pieces are inserted in order.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import crc32c
import numpy as np

from seedbed import dtypes
from seedbed._ask import literals as _literals
from seedbed._ask import regions
from seedbed._types import Array
from seedbed._wire import rerouting
from seedbed._wire.transport import StreamCall
from seedbed.common import fields
from seedbed.errors import Corrupted, InvalidRequest
from seedbed.v1 import (
    DATA_TYPE_FLOAT32,
    InitModelRequest,
    InitModelResponse,
    InitTensorRequest,
    InitTensorResponse,
    ResumePoint,
    TensorDescription,
    TensorSlice,
    TensorSpec,
    codec,
)

_MAX_REQUEST_BYTES = (4 << 20) - 64  # a server's limit, less the ResumePoint
_SLICE_OVERHEAD = 12  # its tag and length in the request, and the version of the stream, which is pinned later


class Piece(NamedTuple):
    """Verified elements."""

    tensor_index: int
    """The index of their slice within the call."""
    offset: int
    """The position of the first element within the region."""
    values: Array
    """1-D, read-only, a view of the message; empty if no elements are left."""
    is_last: bool
    """Whether they complete the slice."""


class Assembler:
    """The state of a call: which elements have arrived.

    Args:
        slices: The slices of tensors to receive.
        first_element: The position within the first region at which to begin.
        connection: The client's connection for its streams.

    Raises:
        InvalidRequest: A literal is invalid.
    """

    method: str
    _response: codec.Response

    def __init__(self, slices: Sequence[TensorSlice], first_element: int = 0, connection: int = 0) -> None:
        self.connection = connection
        self._slices = slices
        self._is_literal = [*map(_literals.is_literal, slices), False]  # read twice for each message, so kept
        self._remote = [index for index in range(len(slices)) if not self._is_literal[index]]
        self._window = range(len(self._remote))  # of _remote: those in the last request
        self._next = 0  # of _remote: the first that is not complete
        self._index = 0  # of _slices: the first that is not complete
        self._position = first_element
        self._description: TensorDescription | None = None
        self.arrived = 0
        """The number of elements and slices that have arrived; grows with all progress."""
        self._ticket = os.urandom(8).hex()

    def stream_call(self) -> StreamCall:
        """The next stream: for what is missing, or as much of it as one request can hold."""
        self._description = None  # a new stream describes its first tensor again
        route = rerouting.Route(self.connection, rerouting.moves(self._slices[i] for i in self._remote), self._ticket)
        return StreamCall(self.method, self.request(), route)

    def request(self) -> InitTensorRequest | InitModelRequest:
        """The next request: for what is missing, or as much of it as one request can hold."""
        raise NotImplementedError

    def renumber(self, error: InvalidRequest) -> InvalidRequest:
        """Replace the field's path within the request by its path within the call."""
        return error

    @property
    def asks(self) -> bool:
        """Whether a server has to send what is missing. It also validates a call without tensors."""
        return self._next < len(self._remote) or not self._slices

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return self._index == len(self._slices)

    def pieces(self, message: bytes) -> Iterator[Piece]:
        """Accept the stream's next message; yield its piece, with the literals before and after. See `feed`."""
        yield from self.literals()
        yield self.feed(message)
        yield from self.literals()

    def literals(self) -> Iterator[Piece]:
        """Yield the literals that come next."""
        while self._is_literal[self._index]:
            values = _literals.values(self._slices[self._index])[self._position :]
            piece = Piece(self._index, self._position, values, is_last=True)
            self._count(piece)
            yield piece

    def feed(self, message: bytes) -> Piece:
        """Accept the stream's next message.

        Raises:
            Corrupted: No correct server would send it now. The state is unchanged.
        """
        try:
            parsed = codec.parse(message, self._response)
        except ValueError as error:
            raise Corrupted(f"a message is malformed ({error})") from error
        description = self._description_of(parsed)
        piece = self._piece(parsed.chunk, description)
        self._advance(piece, description)
        return piece

    def finish(self) -> None:
        """Accept the end of the stream.

        Raises:
            Corrupted: Something that was requested is missing.
        """
        if self._next != self._window.stop:
            raise Corrupted(f"the stream ended early, at element {self._position} of {self._label()}")

    def _description_of(self, message: codec.StreamMessage) -> TensorDescription:
        if self._next == self._window.stop:
            raise Corrupted("more tensors arrived than were requested")
        if (number := self._window.start + message.tensor_index) != self._next:
            raise Corrupted(f"tensor {number} arrived instead of tensor {self._next}")
        if (message.description is None) == (self._description is None):
            problem = "no description preceded" if self._description is None else "a second description came with"
            raise Corrupted(f"{problem} the elements of {self._label()}")
        if message.description is None:
            assert self._description is not None  # for mypy: not both are None
            return self._description
        check_description(message.description, self._slices[self._index])
        return message.description

    def _piece(self, chunk: codec.ReceivedChunk | None, description: TensorDescription) -> Piece:
        count, position = description.element_count, self._position
        dtype = dtypes.numpy_dtype(description.spec.dtype)
        if chunk is None:
            if position != count:
                raise Corrupted(f"a message without elements arrived at element {position} of {self._label()}")
            return Piece(self._index, position, np.empty(0, dtype), is_last=True)
        if chunk.element_offset != position:
            raise Corrupted(f"element {chunk.element_offset} arrived instead of {position} in {self._label()}")
        count_here, odd_bytes = divmod(len(chunk.payload), dtype.itemsize)
        if odd_bytes or count_here > count - position or (count_here == 0 and position != count):
            raise Corrupted(f"{len(chunk.payload)} bytes arrived at element {position} of {count} of {self._label()}")
        if crc32c.crc32c(chunk.payload) != chunk.crc32c:
            raise Corrupted(f"the checksum is wrong at element {position} of {self._label()}")
        values = np.frombuffer(chunk.payload, dtype) if count_here else np.empty(0, dtype)
        return Piece(self._index, position, values, is_last=position + count_here == count)

    def _advance(self, piece: Piece, description: TensorDescription) -> None:
        self._pin(description.spec.algorithm_version)
        self._description = description
        self._next += piece.is_last
        self._count(piece)

    def _count(self, piece: Piece) -> None:
        self._position += piece.values.size
        self.arrived += piece.values.size
        if piece.is_last:
            self._index += 1
            self._position = 0
            self.arrived += 1
            self._description = None

    def _pin(self, version: int) -> None:
        """Fix the version of the stream, so that a newer server resumes the call with the same one."""
        if self._slices[self._index].spec.algorithm_version:
            return
        for tensor_slice in self._slices[self._index :]:
            tensor_slice.spec.algorithm_version = tensor_slice.spec.algorithm_version or version

    def _label(self) -> str:
        return f"tensor {self._slices[self._index].spec.name!r}"


class TensorAssembler(Assembler):
    """A call of InitTensor."""

    method = "InitTensor"
    _response = InitTensorResponse

    def __init__(self, tensor_slice: TensorSlice, first_element: int = 0, connection: int = 0) -> None:
        super().__init__([tensor_slice], first_element, connection)
        if not self._remote:
            _literals.check(tensor_slice)
            _literals.check_first(tensor_slice, first_element)

    def request(self) -> InitTensorRequest:
        [tensor_slice] = self._slices
        region = regions.region_of(tensor_slice)
        return InitTensorRequest(spec=tensor_slice.spec, region=region, first_element=self._position)


class ModelAssembler(Assembler):
    """A call of InitModel, or several if one request cannot hold all tensors.

    A server validates a request before it samples. So later requests are first sent with a resume point at their ends,
    to which the server sends no elements: all tensors are validated before any is sampled.
    """

    method = "InitModel"
    _response = InitModelResponse

    def __init__(self, slices: Sequence[TensorSlice], connection: int = 0) -> None:
        super().__init__(slices, connection=connection)
        for index, tensor_slice in enumerate(slices):
            if _literals.is_literal(tensor_slice):
                _literals.check(tensor_slice, f"{fields.of_tensor(index)}.")
        self._windows = _windows([slices[index] for index in self._remote])
        self._unvalidated = self._windows[1:]

    def request(self) -> InitModelRequest:
        if self._unvalidated:
            window = self._window = self._unvalidated[0]
            resume: ResumePoint | None = ResumePoint(tensor_index=len(window))
        else:
            window = self._window = next(window for window in self._windows if self._next in window or not window)
            index = self._next - window.start
            has_begun = index or self._position
            resume = ResumePoint(tensor_index=index, first_element=self._position) if has_begun else None
        tensors = [self._slices[index] for index in self._remote[window.start : window.stop]]
        return InitModelRequest(tensors=tensors, resume=resume)

    def finish(self) -> None:
        if self._unvalidated:
            self._unvalidated = self._unvalidated[1:]
        else:
            super().finish()

    def renumber(self, error: InvalidRequest) -> InvalidRequest:
        return fields.renumber(error, lambda index: self._remote[self._window.start + index])


def _windows(slices: Sequence[TensorSlice]) -> list[range]:
    """Ranges of slices whose requests are within the server's limit."""
    windows, begin, size = [], 0, 0
    for index, tensor_slice in enumerate(slices):
        slice_size = tensor_slice.ByteSize() + _SLICE_OVERHEAD
        if index > begin and size + slice_size > _MAX_REQUEST_BYTES:
            windows.append(range(begin, index))
            begin, size = index, 0
        size += slice_size
    return [*windows, range(begin, len(slices))]


def check_description(description: TensorDescription, tensor_slice: TensorSlice) -> None:
    """Check that a description is of this slice.

    Raises:
        Corrupted: It describes something else.
    """
    spec = tensor_slice.spec
    if not (spec.dtype and spec.algorithm_version):
        spec = TensorSpec()
        spec.CopyFrom(tensor_slice.spec)
        spec.dtype = spec.dtype or DATA_TYPE_FLOAT32
        spec.algorithm_version = spec.algorithm_version or description.spec.algorithm_version
    start, stop = regions.bounds(tensor_slice)
    count = math.prod(map(operator.sub, stop, start))
    agrees = (
        description.spec == spec
        and spec.algorithm_version > 0
        and description.region.start == start
        and description.region.stop == stop
        and description.element_count == count
        and description.byte_count == count * dtypes.numpy_dtype(spec.dtype).itemsize
    )
    if not agrees:
        raise Corrupted(f"the description of tensor {spec.name!r} does not match the request")
