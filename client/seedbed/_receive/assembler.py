"""What a stream delivers: parsed without copying, verified, and resumable. No input or output happens here.

An `Assembler` takes the messages of one stream after another, until all elements have arrived once each. The payloads
stay views of the messages, to be copied once, into the caller's array. Literals are not asked for: they are in what was
wanted, and come in their turn.
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

_MAX_REQUEST_BYTES = (4 << 20) - 64  # what servers take, without the point to resume at
_PART_OVERHEAD = 12  # a tensor's tag and length in the request, and the version of the stream, which is pinned later


class Piece(NamedTuple):
    """Elements that have arrived and were verified."""

    tensor_index: int
    """Which of the tensors asked for they belong to."""
    offset: int
    """The position of the first within the region, in elements."""
    values: Array
    """1-D, read-only, a view of the message; without elements if the tensor has none (more)."""
    is_last: bool
    """Whether the tensor is complete with them."""


class Assembler:
    """The state of a call: which elements have arrived.

    Args:
        wanted: What was asked for.
        first_element: The position within the first tensor's region at which the caller wants to begin.
        connection: Which of the client's connections its streams are to go over.

    Raises:
        InvalidRequest: If one is a literal that there cannot be.
    """

    method: str
    _response: codec.Response

    def __init__(self, wanted: Sequence[TensorSlice], first_element: int = 0, connection: int = 0) -> None:
        self.connection = connection
        self._wanted = wanted
        self._is_literal = [*map(_literals.is_literal, wanted), False]  # looked at twice for each message
        self._asked = [index for index in range(len(wanted)) if not self._is_literal[index]]
        self._window = range(len(self._asked))  # the tensors that the last request asked for, among those
        self._place = 0  # among those, of the first that is not complete
        self._index = 0
        self._position = first_element
        self._description: TensorDescription | None = None
        self.arrived = 0
        """Elements and tensors that have arrived; it grows whenever something does."""
        self._ticket = os.urandom(8).hex()

    def stream_call(self) -> StreamCall:
        """The stream that brings what is missing, or as much of it as one request can hold."""
        self._description = None  # a new stream describes its first tensor again
        route = rerouting.Route(self.connection, rerouting.moves(self._wanted[i] for i in self._asked), self._ticket)
        return StreamCall(self.method, self.request(), route)

    def request(self) -> InitTensorRequest | InitModelRequest:
        """The next request: for what is missing, or as much of it as a request can hold."""
        raise NotImplementedError

    def renamed(self, error: InvalidRequest) -> InvalidRequest:
        """The error that a request got, with the field as it is in all that is wanted."""
        return error

    @property
    def asks(self) -> bool:
        """Whether a server has to be asked for what is missing; without tensors one is, as for all others."""
        return self._place < len(self._asked) or not self._wanted

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return self._index == len(self._wanted)

    def pieces(self, message: bytes) -> Iterator[Piece]:
        """Takes the stream's next message, with the literals before and after; see `feed`."""
        yield from self.literals()
        yield self.feed(message)
        yield from self.literals()

    def literals(self) -> Iterator[Piece]:
        """The literals that are due now."""
        while self._is_literal[self._index]:
            values = _literals.values(self._wanted[self._index])[self._position :]
            piece = Piece(self._index, self._position, values, is_last=True)
            self._count(piece)
            yield piece

    def feed(self, message: bytes) -> Piece:
        """Takes the stream's next message.

        Raises:
            Corrupted: If it is not what a correct server would send now; it is as if it had not come.
        """
        try:
            parsed = codec.parse(message, self._response)
        except ValueError as error:
            raise Corrupted(f"a message cannot be read ({error})") from error
        description = self._described(parsed)
        piece = self._piece(parsed.chunk, description)
        self._advance(piece, description)
        return piece

    def finish(self) -> None:
        """The stream has ended without an error.

        Raises:
            Corrupted: If something is missing of what was asked for.
        """
        if self._place != self._window.stop:
            raise Corrupted(f"the stream ended early, at element {self._position} of {self._label()}")

    def _described(self, message: codec.StreamMessage) -> TensorDescription:
        if self._place == self._window.stop:
            raise Corrupted("more tensors came than were asked for")
        if (place := self._window.start + message.tensor_index) != self._place:
            raise Corrupted(f"tensor {place} came where tensor {self._place} was due")
        if (message.description is None) == (self._description is None):
            what = "no description came before" if self._description is None else "a second description came with"
            raise Corrupted(f"{what} the elements of {self._label()}")
        if message.description is None:
            assert self._description is not None  # for mypy: not both are None
            return self._description
        check_description(message.description, self._wanted[self._index])
        return message.description

    def _piece(self, chunk: codec.ReceivedChunk | None, description: TensorDescription) -> Piece:
        count, position = description.element_count, self._position
        dtype = dtypes.numpy_dtype(description.spec.dtype)
        if chunk is None:
            if position != count:
                raise Corrupted(f"a message without elements came at element {position} of {self._label()}")
            return Piece(self._index, position, np.empty(0, dtype), is_last=True)
        if chunk.element_offset != position:
            raise Corrupted(f"element {chunk.element_offset} came where {position} was due in {self._label()}")
        arriving, odd_bytes = divmod(len(chunk.payload), dtype.itemsize)
        if odd_bytes or arriving > count - position or (arriving == 0 and position != count):
            raise Corrupted(f"{len(chunk.payload)} bytes came at element {position} of {count} of {self._label()}")
        if crc32c.crc32c(chunk.payload) != chunk.crc32c:
            raise Corrupted(f"the checksum is wrong at element {position} of {self._label()}")
        values = np.frombuffer(chunk.payload, dtype) if arriving else np.empty(0, dtype)
        return Piece(self._index, position, values, is_last=position + arriving == count)

    def _advance(self, piece: Piece, description: TensorDescription) -> None:
        self._pin(description.spec.algorithm_version)
        self._description = description
        self._place += piece.is_last
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
        """Whoever resumes this call, perhaps a newer server, shall go on with the same version of the stream."""
        if self._wanted[self._index].spec.algorithm_version:
            return
        for wanted in self._wanted[self._index :]:
            wanted.spec.algorithm_version = wanted.spec.algorithm_version or version

    def _label(self) -> str:
        return f"tensor {self._wanted[self._index].spec.name!r}"


class TensorAssembler(Assembler):
    """A call of InitTensor."""

    method = "InitTensor"
    _response = InitTensorResponse

    def __init__(self, wanted: TensorSlice, first_element: int = 0, connection: int = 0) -> None:
        super().__init__([wanted], first_element, connection)
        if not self._asked:
            _literals.check(wanted)
            _literals.check_first(wanted, first_element)

    def request(self) -> InitTensorRequest:
        wanted = self._wanted[0]
        region = wanted.region if wanted.HasField("region") else None
        return InitTensorRequest(spec=wanted.spec, region=region, first_element=self._position)


class ModelAssembler(Assembler):
    """A call of InitModel, or several if one request cannot hold all tensors.

    A server validates a request before it samples. So the later requests are first made as if they were to be resumed
    at their ends: then nothing is sent.
    """

    method = "InitModel"
    _response = InitModelResponse

    def __init__(self, wanted: Sequence[TensorSlice], connection: int = 0) -> None:
        super().__init__(wanted, connection=connection)
        for index, part in enumerate(wanted):
            if _literals.is_literal(part):
                _literals.check(part, f"{fields.of_tensor(index)}.")
        self._windows = _windows([wanted[index] for index in self._asked])
        self._unchecked = self._windows[1:]

    def request(self) -> InitModelRequest:
        if self._unchecked:
            window = self._window = self._unchecked[0]
            resume: ResumePoint | None = ResumePoint(tensor_index=len(window))
        else:
            window = self._window = next(window for window in self._windows if self._place in window or not window)
            index = self._place - window.start
            begun = index or self._position
            resume = ResumePoint(tensor_index=index, first_element=self._position) if begun else None
        asked = [self._wanted[index] for index in self._asked[window.start : window.stop]]
        return InitModelRequest(tensors=asked, resume=resume)

    def finish(self) -> None:
        if self._unchecked:
            self._unchecked = self._unchecked[1:]
        else:
            super().finish()

    def renamed(self, error: InvalidRequest) -> InvalidRequest:
        return fields.renumbered(error, lambda index: self._asked[self._window.start + index])


def _windows(wanted: Sequence[TensorSlice]) -> list[range]:
    """Consecutive tensors whose requests are within a server's limit."""
    windows, begin, size = [], 0, 0
    for index, part in enumerate(wanted):
        part_size = part.ByteSize() + _PART_OVERHEAD
        if index > begin and size + part_size > _MAX_REQUEST_BYTES:
            windows.append(range(begin, index))
            begin, size = index, 0
        size += part_size
    return [*windows, range(begin, len(wanted))]


def check_description(description: TensorDescription, wanted: TensorSlice) -> None:
    """Refuses the description of anything but what was asked for.

    Raises:
        Corrupted: It is of something else.
    """
    spec = wanted.spec
    if not (spec.dtype and spec.algorithm_version):
        spec = TensorSpec()
        spec.CopyFrom(wanted.spec)
        spec.dtype = spec.dtype or DATA_TYPE_FLOAT32
        spec.algorithm_version = spec.algorithm_version or description.spec.algorithm_version
    start, stop = regions.bounds(wanted)
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
        raise Corrupted(f"the description that came for tensor {spec.name!r} is not of what was asked for")
