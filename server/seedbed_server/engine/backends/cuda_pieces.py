"""A tensor's way to a host: large pieces on the card and on the bus, of which messages are cut."""

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
"""What is copied to a host at once: a bus reaches its rate with several MiB only."""

_AHEAD: Final = 2
"""Pieces of a stream: one is sampled and copied, while messages are cut of the other."""

_MOST_PIECES: Final = 32
"""Pieces that all streams have together; a stream that gets none has its messages copied one by one."""

_IDLE_PIECES: Final = 8

Write = Callable[[int, int, int, Any], None]
"""Begins to write ``first``, ``count``, to an address, on a stream."""


class Pieces:
    """Memory for pieces, shared by all streams.

    Args:
        device: The GPU.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._idle: deque[Memory] = deque()
        self._free = threading.Semaphore(_MOST_PIECES)

    def take(self) -> Memory | None:
        """Memory for one piece; None if others have all there is, or if there is none."""
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
        """Takes memory back once the GPU has done with it, which of a stream that ended early it may not have."""
        memory.stream.synchronize()
        if len(self._idle) < _IDLE_PIECES:
            self._idle.append(memory)
        self._free.release()


class Memory:
    """A piece's memory on the GPU and on the host, and the stream that it is sampled and copied on."""

    def __init__(self, device: CudaDevice) -> None:
        self.stream = device.stream()
        self.device = device.allocate(PIECE_BYTES)
        self.host = device.pinned(PIECE_BYTES)


class Stream:
    """Messages of one tensor, of which those that follow each other are cut of large pieces; a `Sampler`.

    Args:
        device: The GPU.
        pieces: Where pieces have their memory.
        write: What writes the tensor to the device's memory.
        element_count: How many elements it has.
        one_by_one: What makes a message by itself.
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
        """The piece that holds a message, if it follows the last one: the first of a tensor shall not wait for more."""
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
        """Begins pieces of whole messages, as many as a stream may have."""
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
    """Consecutive elements of a tensor; its memory is free again once nobody waits for a message of it."""

    def __init__(self, pieces: Pieces, memory: Memory, begin: int, end: int) -> None:
        self._memory = memory
        self.begin, self.end = begin, end
        weakref.finalize(self, pieces.give_back, memory)

    def begin_sampling(self, device: CudaDevice, write: Write, itemsize: int) -> None:
        count = self.end - self.begin
        write(self.begin, count, self._memory.device.ptr, self._memory.stream)
        device.copy_to_host(self._memory.host[: count * itemsize], self._memory.device.ptr, self._memory.stream)

    def copy(self, first: int, out: NDArray[Any]) -> None:
        """Waits for the piece, and copies a message out of it."""
        self._memory.stream.synchronize()
        begin = (first - self.begin) * out.itemsize
        out.view(np.uint8)[:] = self._memory.host[begin : begin + out.nbytes]
