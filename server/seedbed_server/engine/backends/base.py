"""What every backend does alike, and the small interface in which they differ."""

from __future__ import annotations

import math
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

from .. import deterministic, dtypes
from ..errors import Cancelled
from ..parameters import NormalParameters, Parameters, SparseMask, parameters_of, sparse_mask
from ..regions import Runs, runs
from ..stream import Purpose, stream_of

Sampler = Callable[[int, NDArray[Any], Callable[[], bool]], None]
"""Takes what `Backend.fill` takes, except the description; ``out`` is not empty."""


def never() -> bool:
    """The default of ``cancelled``."""
    return False


class Stream(NamedTuple):
    """Which Philox words: those of this seed (the key) and this stream (the upper half of the counter)."""

    seed: int
    stream: int


class Backend(ABC):
    """Samples elements of tensors; safe to call from many threads at once.

    Attributes:
        name: ``numpy``, ``numba`` or ``cupy``.
        device: What it samples on, for people to read.
        reason: Why it was chosen.
        threads: How many threads share one call.
    """

    name: ClassVar[str]
    tile: ClassVar[int]
    """The most elements that ``sample`` is given at once: bounds the memory of temporaries."""
    share: ClassVar[dict[str, int]]
    """The fewest elements of each random law that are worth a thread's while: some 0.2 ms of work, several times what
    it takes to hand them over."""

    def __init__(self, threads: int | None = None, reason: str = "asked for") -> None:
        self.threads = threads or usable_cores()
        self.reason = reason
        self.device = f"CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="seedbed-sample") if self.threads > 1 else None
        self._matrices = _MatrixCache()

    @abstractmethod
    def sample(self, parameters: Parameters, stream: Stream, runs: Runs, out: NDArray[Any]) -> None:
        """Fills ``out`` with a random law's values at the flat indices of ``runs``."""

    @abstractmethod
    def mask(self, mask: SparseMask, seed: int, runs: Runs, out: NDArray[Any]) -> None:
        """Sets to 0 the elements of ``out`` that a sparse tensor's mask covers."""

    @abstractmethod
    def orthonormal(self, gaussian: NDArray[np.float64], cancelled: Callable[[], bool]) -> NDArray[np.float64]:
        """Q of the QR of a tall float64 matrix, diag(R) > 0, by the operations of docs/stream-v1.md, in their order."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Does now what the first tensor of each kind would have to wait for, such as compiling."""

    def fill(
        self,
        description: TensorDescription,
        first_element: int,
        out: NDArray[Any],
        cancelled: Callable[[], bool] = never,
    ) -> None:
        """Fills ``out`` with elements of a described region; who fills many pieces of one asks for a `sampler`.

        Args:
            description: What ``describe`` answered.
            first_element: The position within the region, in row-major order, of ``out[0]``.
            out: 1-D, C-contiguous, of the description's dtype; at most the rest of the region.
            cancelled: Asked now and then during long work.

        Raises:
            Cancelled: Once ``cancelled()`` is true.
        """
        if len(out):
            self.sampler(description)(first_element, out, cancelled)

    def sampler(self, description: TensorDescription) -> Sampler:
        """Works out what all pieces of a described region share, and returns the function that fills them."""
        law = description.law.WhichOneof("law")
        if law == "constant":
            return self._constant_sampler(description)
        if law in ("eye", "dirac"):
            return partial(deterministic.fill, description)
        if law == "orthogonal":
            return partial(self._fill_orthogonal, description)
        return self._random_sampler(description)

    def repeat(self, bits: np.unsignedinteger[Any], out: NDArray[np.unsignedinteger[Any]]) -> None:
        """Fills ``out``, a view of elements as integers, with the bits of one element."""
        out.fill(bits)

    def _constant_sampler(self, description: TensorDescription) -> Sampler:
        bits = deterministic.constant(description)

        def fill(_first_element: int, out: NDArray[Any], _cancelled: Callable[[], bool]) -> None:
            if bits:
                self.repeat(bits, out.view(bits.dtype))
            else:
                out.view(np.uint8).fill(0)  # NumPy takes memset for bytes alone

        return fill

    def _random_sampler(self, description: TensorDescription) -> Sampler:
        where = _where(description)
        parameters = parameters_of(description)
        law = str(description.law.WhichOneof("law"))
        mask = sparse_mask(description) if law == "sparse" else None
        stream = Stream(description.spec.seed, description.stream)

        def fill_piece(first_element: int, out: NDArray[Any]) -> None:
            elements = runs(*where, first_element, len(out))
            self.sample(parameters, stream, elements, out)
            if mask:
                self.mask(mask, stream.seed, elements, out)

        return partial(self._in_pieces, fill_piece, self.share[law])

    def _in_pieces(
        self,
        fill_piece: Callable[[int, NDArray[Any]], None],
        share: int,
        first_element: int,
        out: NDArray[Any],
        cancelled: Callable[[], bool],
    ) -> None:
        """Fills the pieces of ``out``, on this thread and those of the pool that have nothing else to do."""
        if len(out) <= min(self.tile, 2 * share - 1):
            fill_piece(first_element, out)
            return

        def fill(piece: slice) -> None:
            if cancelled():
                raise Cancelled
            fill_piece(first_element + piece.start, out[piece])

        first, *others = self._pieces(len(out), share)
        if self._pool is None:
            for piece in (first, *others):
                fill(piece)
            return
        futures = [(self._pool.submit(fill, piece), piece) for piece in others]
        try:
            fill(first)
            for future, piece in reversed(futures):
                if future.cancel():  # the pool is still at work for others
                    fill(piece)
        finally:  # also after an error: the others write into the caller's memory
            errors = [error for future, _ in futures if not future.cancel() and (error := future.exception())]
        if errors:
            raise errors[0]

    def _pieces(self, count: int, share: int) -> Iterator[slice]:
        shares = max(1, min(self.threads, count // share))
        length = min(self.tile, -(-count // shares))
        length = -(-length // 4) * 4  # whole Philox blocks
        for begin in range(0, count, length):
            yield slice(begin, min(begin + length, count))

    def _fill_orthogonal(
        self, description: TensorDescription, first_element: int, out: NDArray[Any], cancelled: Callable[[], bool]
    ) -> None:
        spec = description.spec
        rows = spec.shape[0]
        columns = math.prod(spec.shape[1:])
        stream = Stream(spec.seed, stream_of(spec.name, Purpose.ORTHOGONAL))
        matrix = self._matrices.get(
            (stream, rows, columns), lambda: self._orthogonal(stream, rows, columns, cancelled), cancelled
        )
        starts, lengths = runs(*_where(description), first_element, len(out))
        flat = matrix.reshape(-1)
        gain = description.law.orthogonal.gain
        begin = 0
        for start, length in zip(starts, lengths, strict=True):
            dtypes.store(flat[start : start + length] * gain, out[begin : begin + length])
            begin += length

    def _orthogonal(
        self, stream: Stream, rows: int, columns: int, cancelled: Callable[[], bool]
    ) -> NDArray[np.float64]:
        gaussian = np.empty(rows * columns)
        for begin in range(0, len(gaussian), self.tile):
            part = gaussian[begin : begin + self.tile]
            self.sample(NormalParameters(0.0, 1.0), stream, (np.array([begin]), np.array([len(part)])), part)
        matrix = gaussian.reshape(rows, columns)
        if rows < columns:
            return np.ascontiguousarray(self.orthonormal(np.ascontiguousarray(matrix.T), cancelled).T)
        return np.ascontiguousarray(self.orthonormal(matrix, cancelled))


def _where(description: TensorDescription) -> tuple[list[int], list[int], list[int]]:
    """The global shape, and the region's start and stop; as lists, which are read faster than a message's fields."""
    region = description.region
    return description.spec.shape[:], region.start[:], region.stop[:]


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _MatrixCache:
    """The last few orthogonal matrices, since each chunk of one needs all of it; none is computed twice at once."""

    def __init__(self, most_bytes: int = 1 << 28) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._matrices: OrderedDict[object, NDArray[np.float64]] = OrderedDict()
        self._computing: dict[object, threading.Event] = {}

    def get(
        self, key: object, compute: Callable[[], NDArray[np.float64]], cancelled: Callable[[], bool]
    ) -> NDArray[np.float64]:
        while True:
            with self._lock:
                if key in self._matrices:
                    self._matrices.move_to_end(key)
                    return self._matrices[key]
                if (finished := self._computing.get(key)) is None:
                    self._computing[key] = threading.Event()
            if finished is None:
                return self._compute(key, compute)
            while not finished.wait(0.05):
                if cancelled():
                    raise Cancelled

    def _compute(self, key: object, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        try:
            matrix = compute()
            with self._lock:
                self._matrices[key] = matrix
                while len(self._matrices) > 1 and sum(m.nbytes for m in self._matrices.values()) > self._most_bytes:
                    self._matrices.popitem(last=False)
            return matrix
        finally:
            with self._lock:
                self._computing.pop(key).set()
