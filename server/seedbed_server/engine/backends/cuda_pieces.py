"""Read-ahead from the GPU: large pieces are sampled and copied to the host, and small requests served from them."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .base import IsCancelled, Sampler, Wait
from .cuda_device import CudaDevice

PIECE_BYTES: Final = 8 << 20
"""The size of a piece: the bus needs copies of several MiB to reach its full rate."""

_AHEAD: Final = 2
"""Pieces of one tensor: one is sampled and copied while requests are served from the other."""

_MOST_PIECES: Final = 32
"""The most pieces of all tensors together; without a piece, each request is copied by itself."""

_IDLE_PIECES: Final = 8

Write = Callable[[int, int, int, Any], None]
"""Starts to write elements; the arguments are ``first``, ``count``, an address and a CUDA stream."""


class Pieces:
    """A pool of memory for pieces.

    Args:
        device: The GPU.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._idle: deque[Memory] = deque()
        self._free = threading.Semaphore(_MOST_PIECES)

    def take(self) -> Memory | None:
        """Memory for one piece; None if the pool is exhausted, or the device out of memory."""
        if not self._free.acquire(blocking=False):
            return None
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return Memory(self._device)
        except MemoryError:
            self._free.release()
            return None
        except BaseException:
            self._free.release()
            raise

    def give_back(self, memory: Memory) -> None:
        """Returns memory to the pool, once the GPU has finished: it may still write to the piece of an aborted call."""
        memory.cuda_stream.synchronize()
        if len(self._idle) < _IDLE_PIECES:
            self._idle.append(memory)
        self._free.release()


class Memory:
    """A piece's memory on the GPU and on the host, and the CUDA stream for sampling and copying."""

    def __init__(self, device: CudaDevice) -> None:
        self.cuda_stream = device.new_stream()
        self.device = device.allocate(PIECE_BYTES)
        self.host = device.pinned(PIECE_BYTES)


class PieceSampler:
    """A `Sampler` that serves consecutive requests for one tensor from large pieces.

    Args:
        device: The GPU.
        pieces: The pool of memory.
        write: Writes the tensor to device memory.
        element_count: The number of elements of the region.
        one_by_one: The sampler for requests that are not consecutive.
    """

    def __init__(
        self, device: CudaDevice, pieces: Pieces, write: Write, element_count: int, one_by_one: Sampler
    ) -> None:
        self._device, self._pieces, self._write = device, pieces, write
        self._element_count, self._one_by_one = element_count, one_by_one
        self._lock = threading.Lock()
        self._expected: int | None = None
        self._under_way: deque[_Piece] = deque()
        self._alive: weakref.WeakSet[_Piece] = weakref.WeakSet()

    def __call__(self, first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> Wait:
        if out.nbytes <= PIECE_BYTES // 2:
            with self._lock:
                piece = self._piece_with(first_element, out)
            if piece is not None:
                return partial(piece.copy, first_element, out)
        return self._one_by_one(first_element, out, cancelled)

    def _piece_with(self, first: int, out: NDArray[Any]) -> _Piece | None:
        """The piece of a request, if that follows the previous one; the first one must not wait for a whole piece."""
        follows, self._expected = first == self._expected, first + len(out)
        if follows:
            self._begin_pieces(first, out)
        if not follows or not self._under_way or self._expected > self._under_way[0].end:
            self._under_way.clear()
            return None
        piece = self._under_way[0]
        if self._expected == piece.end:
            self._under_way.popleft()
        return piece

    def _begin_pieces(self, first: int, out: NDArray[Any]) -> None:
        """Starts as many pieces as one tensor may have, each of a whole number of requests."""
        step = PIECE_BYTES // out.nbytes * len(out)
        begin = self._under_way[-1].end if self._under_way else first
        while begin < self._element_count and len(self._alive) < _AHEAD:
            memory = self._pieces.take()
            if memory is None:
                return
            piece = _Piece(self._pieces, memory, begin, min(begin + step, self._element_count))
            with self._device.use():
                piece.begin_sampling(self._device, self._write, out.itemsize)
            self._under_way.append(piece)
            self._alive.add(piece)
            begin = piece.end


class _Piece:
    """Consecutive elements of a tensor; its memory returns to the pool when no request refers to it."""

    def __init__(self, pieces: Pieces, memory: Memory, begin: int, end: int) -> None:
        self._memory = memory
        self.begin, self.end = begin, end
        weakref.finalize(self, pieces.give_back, memory)

    def begin_sampling(self, device: CudaDevice, write: Write, itemsize: int) -> None:
        count = self.end - self.begin
        write(self.begin, count, self._memory.device.ptr, self._memory.cuda_stream)
        device.copy_to_host(self._memory.host[: count * itemsize], self._memory.device.ptr, self._memory.cuda_stream)

    def copy(self, first: int, out: NDArray[Any]) -> None:
        """Waits for the piece, and copies a request's elements from it."""
        self._memory.cuda_stream.synchronize()
        begin = (first - self.begin) * out.itemsize
        out.view(np.uint8)[:] = self._memory.host[begin : begin + out.nbytes]
