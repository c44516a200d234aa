"""The chunk pipeline: samples a described region chunk by chunk and frames each chunk as a message.

Chunks are sampled while others are sent: by a second thread where cores are spare (`ReadAhead`), or by a device that
works asynchronously.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription, codec
from seedbed_server import engine
from seedbed_server.service.ahead import ReadAhead
from seedbed_server.service.turns import Turns

_MAX_IDLE_BUFFERS: Final = 16


class ChunkPipeline:
    """Makes the messages of streams, which share its buffers and threads.

    Args:
        backend: The backend that samples.
        chunk_bytes: The maximum payload of a chunk, rounded down to whole elements.
    """

    def __init__(self, backend: engine.Backend, chunk_bytes: int) -> None:
        self._backend = backend
        self._chunk_bytes = chunk_bytes
        # A stream needs a buffer only while it samples, not while its client reads, so a few buffers serve all streams.
        self._idle_buffers: deque[NDArray[np.uint8]] = deque(maxlen=_MAX_IDLE_BUFFERS)
        # More sampling threads than cores gain nothing, and everything else, such as a health check, would queue behind
        # them for the interpreter's lock. GPU work is awaited without that lock, and needs no turns.
        self._turns = Turns(engine.usable_cores())
        self._read_ahead = ReadAhead(backend.threads)  # a worker's threads are its share of the cores

    def messages(
        self,
        description: TensorDescription,
        first_element: int,
        head: bytes,
        later_head: bytes,
        cancelled: Callable[[], bool],
    ) -> Iterator[bytes]:
        """The messages of one region.

        Args:
            description: The region.
            first_element: The position within the region to start from.
            head: The serialised start of the first message.
            later_head: The serialised start of every later message.
            cancelled: Polled often; once it returns true, the stream ends with `engine.Cancelled`.
        """
        end = description.element_count
        if first_element == end:
            yield head
            return
        dtype = engine.numpy_dtype(description.spec.dtype)
        step = self._chunk_bytes // dtype.itemsize
        source = _Source(self._backend.sampler(description), dtype, step, end, cancelled)
        offsets = range(first_element, end, step)
        if self._backend.ahead:
            yield from self._asynchronous(source, offsets, head, later_head)
            return
        turns = self._turns_for(description)

        def make(offset: int) -> bytes:
            stop_if(cancelled)
            with turns:
                chunk = self._begin(source, offset)
                return self._message(head if offset == first_element else later_head, chunk)

        if turns is self._turns:
            yield from self._read_ahead.messages(make, offsets)
        else:  # the first message takes nearly all the time: it computes the whole matrix
            yield from map(make, offsets)

    def _asynchronous(self, source: _Source, offsets: range, head: bytes, later_head: bytes) -> Iterator[bytes]:
        """The messages of a device that samples several chunks ahead while earlier ones are sent."""
        in_progress: deque[_PendingChunk] = deque()
        try:
            for offset in offsets:
                stop_if(source.cancelled)
                in_progress.append(self._begin(source, offset))
                if len(in_progress) > self._backend.ahead:
                    yield self._message(head, in_progress.popleft())
                    head = later_head
            while in_progress:
                stop_if(source.cancelled)
                yield self._message(head, in_progress.popleft())
                head = later_head
        finally:
            self._abandon(in_progress)

    def _turns_for(self, description: TensorDescription) -> contextlib.AbstractContextManager[object]:
        """What to sample within; a matrix or reduction may take minutes, and must not hold a turn that long."""
        return contextlib.nullcontext() if engine.whole_elements(description) else self._turns

    def _begin(self, source: _Source, offset: int) -> _PendingChunk:
        buffer = self._take_buffer()
        payload = buffer[: min(source.step, source.end - offset) * source.dtype.itemsize]
        try:
            return _PendingChunk(
                offset, payload, buffer, source.sampler(offset, payload.view(source.dtype), source.cancelled)
            )
        except BaseException:
            self._idle_buffers.append(buffer)
            raise

    def _message(self, head: bytes, chunk: _PendingChunk) -> bytes:
        try:
            chunk.wait()
            return codec.with_chunk(head, chunk.offset, chunk.payload.data)
        finally:
            self._idle_buffers.append(chunk.buffer)

    def _abandon(self, in_progress: Iterable[_PendingChunk]) -> None:
        """Waits until nothing writes into the buffers any more."""
        for chunk in in_progress:
            with contextlib.suppress(Exception):  # the error that ended the stream is the one to report
                chunk.wait()
            self._idle_buffers.append(chunk.buffer)

    def _take_buffer(self) -> NDArray[np.uint8]:
        try:
            return self._idle_buffers.pop()
        except IndexError:
            return self._backend.buffer(self._chunk_bytes)


class _Source(NamedTuple):
    """What the chunks of a region are sampled from."""

    sampler: engine.Sampler
    dtype: np.dtype[Any]
    step: int
    """The elements of every chunk but the last."""
    end: int
    """The elements of the region."""
    cancelled: Callable[[], bool]


class _PendingChunk(NamedTuple):
    """A chunk that is being sampled."""

    offset: int
    payload: NDArray[np.uint8]
    buffer: NDArray[np.uint8]
    wait: Callable[[], None]


def stop_if(cancelled: Callable[[], bool]) -> None:
    """Raises `engine.Cancelled` if the call has been cancelled."""
    if cancelled():
        raise engine.Cancelled
