"""What the CPU backends do alike: pieces, threads, and the laws that are not drawn element by element."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

from .. import deterministic, dtypes
from ..errors import Cancelled
from ..parameters import NormalParameters, Parameters, SparseMask, parameters_of, sparse_mask
from ..patches import Patch, patches_of
from ..regions import Runs, layout_of, runs
from ..stream import Purpose, stream_of
from .base import Backend, IsCancelled, Sampler, Stream, Wait, done, usable_cores

_Filler = Callable[[int, NDArray[Any], IsCancelled], None]


class CpuBackend(Backend):
    """A backend that computes in the calling thread, and in threads of its own.

    Args:
        threads: How many threads share one call. Default one for each core that this process may use.
        reason: Why it was chosen.
    """

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
    def orthonormal(self, gaussian: NDArray[np.float64], cancelled: IsCancelled) -> NDArray[np.float64]:
        """Q of the QR of a tall float64 matrix, diag(R) > 0, by the operations of docs/stream-v1.md, in their order."""

    def sampler(self, description: TensorDescription) -> Sampler:
        patches = patches_of(description) if description.spec.patches else []
        return partial(_at_once, self._filler(description), patches)

    def _filler(self, description: TensorDescription) -> _Filler:
        law = description.law.WhichOneof("law")
        if law == "constant":
            return self._constant_filler(description)
        if law in ("eye", "dirac"):
            return _ones_filler(description)
        if law == "orthogonal":
            return partial(self._fill_orthogonal, description)
        return self._random_filler(description)

    def repeat(self, bits: np.unsignedinteger[Any], out: NDArray[np.unsignedinteger[Any]]) -> None:
        """Fills ``out``, a view of elements as integers, with the bits of one element."""
        out.fill(bits)

    def _constant_filler(self, description: TensorDescription) -> _Filler:
        bits = deterministic.constant(description)

        def fill(_first_element: int, out: NDArray[Any], _cancelled: IsCancelled) -> None:
            if bits:
                self.repeat(bits, out.view(bits.dtype))
            else:
                out.view(np.uint8).fill(0)  # NumPy takes memset for bytes alone

        return fill

    def _random_filler(self, description: TensorDescription) -> _Filler:
        where = layout_of(description)
        parameters = parameters_of(description)
        law = str(description.law.WhichOneof("law"))
        mask = sparse_mask(description) if law == "sparse" else None
        stream = Stream(description.spec.seed, description.stream)

        def fill_piece(first_element: int, out: NDArray[Any]) -> None:
            elements = runs(where, first_element, len(out))
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
        cancelled: IsCancelled,
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
        self, description: TensorDescription, first_element: int, out: NDArray[Any], cancelled: IsCancelled
    ) -> None:
        spec = description.spec
        rows = spec.shape[0]
        columns = math.prod(spec.shape[1:])
        stream = Stream(spec.seed, stream_of(spec.name, Purpose.ORTHOGONAL))
        matrix = self._matrices.get(
            (stream, rows, columns), lambda: self._orthogonal(stream, rows, columns, cancelled), cancelled
        )
        starts, lengths = runs(layout_of(description), first_element, len(out))
        flat = matrix.reshape(-1)
        gain = description.law.orthogonal.gain
        begin = 0
        for start, length in zip(starts, lengths, strict=True):
            dtypes.store(flat[start : start + length] * gain, out[begin : begin + length])
            begin += length

    def _orthogonal(self, stream: Stream, rows: int, columns: int, cancelled: IsCancelled) -> NDArray[np.float64]:
        gaussian = np.empty(rows * columns)
        for begin in range(0, len(gaussian), self.tile):
            part = gaussian[begin : begin + self.tile]
            self.sample(NormalParameters(0.0, 1.0), stream, (np.array([begin]), np.array([len(part)])), part)
        matrix = gaussian.reshape(rows, columns)
        if rows < columns:
            return np.ascontiguousarray(self.orthonormal(np.ascontiguousarray(matrix.T), cancelled).T)
        return np.ascontiguousarray(self.orthonormal(matrix, cancelled))


def _ones_filler(description: TensorDescription) -> _Filler:
    diagonal = deterministic.diagonal(description)

    def fill(first_element: int, out: NDArray[Any], _cancelled: IsCancelled) -> None:
        out.view(np.uint8).fill(0)
        if diagonal:
            out[diagonal.positions(first_element, len(out))] = 1

    return fill


def _at_once(
    fill: _Filler, patches: list[Patch], first_element: int, out: NDArray[Any], cancelled: IsCancelled
) -> Wait:
    fill(first_element, out, cancelled)
    for patch in patches:
        patch.apply(first_element, out)
    return done


class _MatrixCache:
    """The last few orthogonal matrices, since each chunk of one needs all of it; none is computed twice at once."""

    def __init__(self, most_bytes: int = 1 << 28) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._matrices: OrderedDict[object, NDArray[np.float64]] = OrderedDict()
        self._bytes = 0
        self._computing: dict[object, threading.Event] = {}

    def get(
        self, key: object, compute: Callable[[], NDArray[np.float64]], cancelled: IsCancelled
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
                self._bytes += _kept_bytes(matrix)
                while len(self._matrices) > 1 and self._bytes > self._most_bytes:
                    self._bytes -= _kept_bytes(self._matrices.popitem(last=False)[1])
            return matrix
        finally:
            with self._lock:
                self._computing.pop(key).set()


def _kept_bytes(matrix: NDArray[np.float64]) -> int:
    """What a matrix takes in the cache with its key and all objects, which is what counts of a million small ones."""
    return matrix.nbytes + 512
