"""Random orthogonal matrices on CPU threads: order, memory and tasks around the compiled kernels.

Stewart, The Efficient Generation of Random Orthogonal Matrices with an Application to Condition Estimators (1980): the
vectors of the reflections are computed from Gaussians directly, without a factorisation. Schreiber and Van Loan, A
Storage-Efficient WY Representation for Products of Householder Transformations (1989): reflections are applied in
blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..constants import ORTHOGONAL_BLOCK as BLOCK
from . import numba_orthogonal as kernels
from .cpu import SampleGaussians
from .numba_orthogonal import STRIP
from .turns import Check, ForEach

F64 = NDArray[np.float64]

FEW = BLOCK
"""Matrices of at most this many columns are one block, and need less time and memory without strips."""

_TASK_ROWS = 1 << 10
"""Rows of a block whose Gaussians one task samples: a millisecond of work."""

_TASK_ELEMENTS = 1 << 17
"""Elements of a matrix of few columns in one task."""

_TASK_MULTIPLY_ADDS = 1 << 26
"""Work on a strip between polls of ``cancelled``: some 10 ms."""

_STRIPS = 6
"""The fewest strips for each thread, so that all finish at about the same time; only then may strips be wider."""

_WIDER = 1 << 11
"""Strips are wider by one `STRIP` for each of this many columns: each strip loads all vectors from memory."""

_LINE = 8  # float64s of a cache line


def orthonormal(rows: int, columns: int, sample: SampleGaussians, for_each: ForEach, threads: int) -> F64:
    """Computes an orthogonal matrix of gain 1.

    A region could be computed from fewer strips, though from all vectors: the first tenth of a square matrix's columns
    costs a hundredth of the time. That is not implemented; the whole matrix is computed once for all regions.

    The vectors of a square matrix take half as much memory as the matrix, and those of a tall one as much; the strips
    of very many threads take as much again.

    Args:
        rows: The number of rows.
        columns: The number of columns.
        sample: Samples Gaussians.
        for_each: Runs tasks on threads.
        threads: The number of threads.
    """
    if min(rows, columns) <= FEW:
        return _of_few(rows, columns, sample, for_each)
    return _OfBlocks(rows, columns, sample, for_each, threads).matrix


# In blocks.


class _Scratch(NamedTuple):
    """The working memory of one strip."""

    strip: F64
    products: F64
    scaled: F64


class _OfBlocks:
    def __init__(self, rows: int, columns: int, sample: SampleGaussians, for_each: ForEach, threads: int) -> None:
        self._m, self._n = max(rows, columns), min(rows, columns)
        self._is_wide, self._columns = rows < columns, columns
        self._sample = sample
        self._strip = STRIP * max(1, min(self._n // _WIDER, self._n // (STRIP * _STRIPS * threads)))
        firsts = range(0, self._n, BLOCK)
        heights = [_whole(self._m - first) for first in firsts]
        self._begins = np.cumsum([0, *heights]) * BLOCK
        self._v = np.empty(self._begins[-1] + kernels.SPARE)
        self._factors = np.empty((len(firsts), BLOCK, BLOCK))
        self._tau, self._negative = np.empty(self._n), np.empty(self._n, np.bool_)
        pieces = [
            (block, begin, min(begin + _TASK_ROWS, self._m - first))
            for block, first in enumerate(firsts)
            for begin in range(0, self._m - first, _TASK_ROWS)
        ]
        for_each(self._draw, pieces)
        for_each(self._prepare, range(len(firsts)))
        self.matrix = np.empty((rows, columns))
        self._by_columns = self.matrix.T if self._is_wide else self.matrix
        # The last strips are reflected by the most blocks; they come first, so no thread ends with a long task.
        for_each(self._unfold, range(0, self._n, self._strip)[::-1], reports_progress=True)

    def _block(self, block: int) -> tuple[F64, int]:
        """A block's vectors, and their number."""
        begin, height = self._begins[block], self._m - block * BLOCK
        return self._v[begin : begin + height * BLOCK].reshape(height, BLOCK), min(BLOCK, self._n - block * BLOCK)

    def _draw(self, piece: tuple[int, int, int], check: Check) -> None:
        block, begin, end = piece
        v, width = self._block(block)
        first, height = block * BLOCK, end - begin
        part = v[begin:end]
        check()
        if self._is_wide:
            starts, length = (first + np.arange(width)) * self._columns + first + begin, height
        else:
            starts, length = (first + np.arange(begin, end)) * self._columns + first, width
        drawn = np.empty(width * height)
        self._sample((starts, np.full(len(starts), length)), drawn)
        part[:, :width] = drawn.reshape(width, height).T if self._is_wide else drawn.reshape(height, width)
        part[:, width:] = 0

    def _prepare(self, block: int, check: Check) -> None:
        check()
        v, width = self._block(block)
        mine = slice(block * BLOCK, block * BLOCK + width)
        kernels.prepare(v, width, self._tau[mine], self._negative[mine], self._factors[block])

    def _unfold(self, first: int, check: Check) -> None:
        check()
        width = min(self._strip, self._n - first)
        strip, products, scaled = self._scratch()
        v, block = _address(self._v), (first + width - 1) // BLOCK
        kernels.begin(block, v + 8 * int(self._begins[block]), strip, first, width, products)
        while block >= 0:
            blocks = max(1, _TASK_MULTIPLY_ADDS // (2 * BLOCK * self._strip * (self._m - block * BLOCK)))
            below = max(-1, block - blocks)
            check()
            kernels.unfold(block, below, v, self._begins, self._factors, strip, self._m, products, scaled)
            block = below
        signs = np.where(self._negative[first : first + width], -1.0, 1.0)
        np.multiply(strip[: self._m, :width], signs, out=self._by_columns[:, first : first + width])

    def _scratch(self) -> _Scratch:
        return _Scratch(*(_aligned(rows, self._strip) for rows in (_whole(self._m), BLOCK, BLOCK)))


def _whole(rows: int) -> int:
    """Rows, padded to whole register tiles."""
    return -(-rows // kernels.MOST_TILE_ROWS) * kernels.MOST_TILE_ROWS


def _aligned(rows: int, columns: int) -> F64:
    """A strip aligned to a cache line: loading a vector that crosses two lines takes twice as long."""
    memory = np.empty(rows * columns + _LINE)
    skipped = -(_address(memory) // 8) % _LINE
    return memory[skipped : skipped + rows * columns].reshape(rows, columns)


def _address(array: F64) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


# Of few columns.


def _of_few(rows: int, columns: int, sample: SampleGaussians, for_each: ForEach) -> F64:
    q = _drawn(rows, columns, sample, for_each)
    m, n = q.shape
    tau, negative, gram = np.empty(n), np.empty(n, np.bool_), np.zeros((n, n))
    pieces = [slice(first, min(first + _TASK_ELEMENTS // n, m)) for first in range(0, m, _TASK_ELEMENTS // n)]

    def add_in_order(_: None, check: Check) -> None:
        kernels.reflectors(q, tau, negative)
        for piece in pieces:
            check()
            kernels.add_gram(q[piece], gram)

    for_each(add_in_order, [None])
    scaled = kernels.scaled_identity(q[:n].copy(), gram, tau)

    def unfold(piece: slice, check: Check) -> None:
        check()
        kernels.unfold_rows(q[piece], piece.start, scaled)
        q[piece] *= np.where(negative, -1.0, 1.0)

    for_each(unfold, pieces)
    return np.ascontiguousarray(q.T) if rows < columns else q


def _drawn(rows: int, columns: int, sample: SampleGaussians, for_each: ForEach) -> F64:
    """The Gaussian matrix, or its transpose, whichever is tall."""
    gaussian = np.empty(rows * columns)

    def draw(first: int, check: Check) -> None:
        check()
        part = gaussian[first : first + _TASK_ELEMENTS]
        sample((np.array([first]), np.array([len(part)])), part)

    for_each(draw, range(0, len(gaussian), _TASK_ELEMENTS))
    matrix = gaussian.reshape(rows, columns)
    return np.ascontiguousarray(matrix.T) if rows < columns else matrix
