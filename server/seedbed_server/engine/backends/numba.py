"""The fast CPU path: compiled kernels that give the bits of the numpy reference."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import (
    DATA_TYPE_BFLOAT16,
    DATA_TYPE_COMPLEX64,
    DATA_TYPE_FLOAT16,
    DATA_TYPE_FLOAT32,
    DATA_TYPE_FLOAT64,
    DataType,
    Law,
    TensorDescription,
)

from .. import deterministic, pairs
from ..caching import cached_by_content
from ..errors import Cancelled
from ..parameters import (
    DiskNormalParameters,
    DiskParameters,
    NormalParameters,
    Parameters,
    SparseMask,
    TruncNormal32Parameters,
    TruncNormalParameters,
    UniformParameters,
    law_parameters,
    packed,
)
from ..regions import Runs
from ..views import Indices
from . import numba_kernels as kernels
from . import numba_sparse, reflections
from .base import IsCancelled, Job, Sampler, Stream, Wait, done, never
from .cpu import CpuBackend, SampleGaussians
from .placement import Placement, are_disjoint, placement_of, visible_parts
from .turns import take_turns

_JOB = struct.Struct("=2q3Q9q")
_MOST_NUMBERS = 7  # parameters of a law
_WIDTHS = {width: np.zeros(0, f"u{width}") for width in (2, 4, 8)}
"""An array for each width of elements; its type makes Numba compile the kernel for that width, when it is needed."""
_TABLE_LAWS = ("constant", "uniform", "normal", "trunc_normal", "disk")
_CODES: dict[type[Parameters], int] = {
    UniformParameters: kernels.UNIFORM,
    NormalParameters: kernels.NORMAL,
    TruncNormalParameters: kernels.TRUNC_NORMAL,
    DiskParameters: kernels.DISK,
    DiskNormalParameters: kernels.DISK_NORMAL,
}
_KINDS = {
    DATA_TYPE_FLOAT32: kernels.FLOAT32,
    DATA_TYPE_FLOAT64: kernels.FLOAT64,
    DATA_TYPE_BFLOAT16: kernels.BFLOAT16,
    DATA_TYPE_FLOAT16: kernels.FLOAT16,
    DATA_TYPE_COMPLEX64: kernels.FLOAT64,  # of constants alone: 8 bytes
}

_TOGETHER = np.zeros(0, np.int64)
"""The positions of runs that follow each other."""

_PIECES_AT_ONCE = 16
"""Pieces that the calling thread fills between polls of ``cancelled``: a few milliseconds of work."""

_ALL_PIECES = 2**62

_HAND_OVER = 1 / 13
"""The cost of waking a thread, as a fraction of a grain: some 15 of 200 microseconds."""


class NumbaBackend(CpuBackend):
    """The compiled backend."""

    name = "numba"
    tile = 1 << 22
    grain: ClassVar = {
        "constant": 1 << 20, "uniform": 1 << 19, "normal": 1 << 18, "trunc_normal": 1 << 16, "sparse": 1 << 16,
        "disk": 1 << 18,
    }  # fmt: skip
    piece: ClassVar[int] = 1 << 15
    """Elements that a thread takes at once: tens of microseconds of work, so that all threads finish together."""

    def prepare(self) -> None:
        runs = np.array([1]), np.array([1])
        for dtype in (np.float32, np.float64, np.float16):
            out = np.empty(1, dtype)
            self.sample(NormalParameters(0.0, 1.0), Stream(0, 0), runs, out)
            bits = out.view(f"u{out.itemsize}")
            self.repeat(bits[0], bits)
            self.scatter(out, np.array([0]), np.array([1]), out)
        self.mask(SparseMask(2, 2, 1, 0), 0, runs, out)
        self.places(SparseMask(2, 1, 0, 0), 0, runs[0])
        for columns in (1, reflections.FEW + 1):  # the kernels of both kinds
            self.orthonormal(columns, columns, lambda _, out: out.fill(1), never)
        for width in _WIDTHS:
            _fill_pieces(_Table(self.piece, width), np.zeros(2, np.int64), 1)

    def sampler(self, description: TensorDescription) -> Sampler:
        if pairs.is_drawn(description):
            return partial(_fill_pairs, self.sampler(pairs.as_floats(description)))
        if (row := self._row_of(description)) is not None:
            return partial(self._fill_row, row)
        if (rows := self._rows_of_parts(description)) is not None:
            return partial(self._fill_parts, rows)
        return super().sampler(description)

    def fill_all(self, jobs: Sequence[Job], cancelled: IsCancelled = never) -> None:
        tables, others = {width: _Table(self.piece, width) for width in _WIDTHS}, []
        for job in map(_of_floats, jobs):
            if not len(job.out):
                continue
            row = self._row_of(job.description)
            if row is None:
                others.append(job)
            else:
                tables[job.out.itemsize].add(row, job.first_element, job.out)
        for table in tables.values():
            self._fill_table(table, cancelled)
        super().fill_all(others, cancelled)

    def _fill_row(self, row: _Row, first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> Wait:
        table = _Table(self.piece, out.itemsize)
        table.add(row, first_element, out)
        self._fill_table(table, cancelled)
        return done

    def _fill_parts(self, rows: _Rows, first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> Wait:
        if not rows.cover:
            out.view(np.uint8).fill(0)
        table = _Table(self.piece, out.itemsize)
        for row in rows.near(first_element, len(out)):
            table.add_part(row, first_element, out)
        self._fill_table(table, cancelled)
        return done

    def _fill_table(self, table: _Table, cancelled: IsCancelled) -> None:
        """Fills all pieces on this thread and on idle threads of the pool."""
        if not table.pieces:
            return
        state, threads = np.zeros(2, np.int64), self._threads_for(table)
        others = [self._pool.submit(_fill_pieces, table, state, _ALL_PIECES) for _ in range(threads - 1) if self._pool]
        try:
            while (more := _fill_pieces(table, state, _PIECES_AT_ONCE)) and not cancelled():
                pass
        except BaseException:
            more = True
            raise
        finally:  # also after an interrupt: other threads may still write to the caller's memory
            state[kernels.STOP] = more
            for other in others:
                if not other.cancel():  # cancelled if the pool was too busy to start it
                    other.result()
        if more:
            raise Cancelled

    def _threads_for(self, table: _Table) -> int:
        """The most threads that pay: each needs a grain of work, and they are woken one after the other."""
        return max(1, min(self.threads, int(table.grains), int(math.sqrt(table.grains / _HAND_OVER))))

    def _row_of(self, description: TensorDescription) -> _Row | None:
        """The row of a law that `kernels.fill_pieces` supports, else None; the region is not empty."""
        law = description.law.WhichOneof("law")
        if law not in _TABLE_LAWS:
            return None
        return self._row(law, description, _ANYWHERE if law == "constant" else placement_of(description))

    def _row(self, law: str, description: TensorDescription, placement: Placement) -> _Row:
        spec = description.spec
        drawn = _drawn(description.law, spec.dtype)
        if law == "constant":
            return _Row(self.grain[law], drawn, drawn.bits, 0, placement)
        return _Row(self.grain[law], drawn, spec.seed, description.stream, placement)

    def _rows_of_parts(self, description: TensorDescription) -> _Rows | None:
        """The rows of a region of parts; None if they overlap or `kernels.fill_pieces` does not support them all."""
        is_supported = description.law.WhichOneof("law") == "parts" and description.spec.dtype != DATA_TYPE_COMPLEX64
        parts = visible_parts(description) if is_supported else None
        if parts is None or not are_disjoint(parts):
            return None
        laws = [str(part.inner.law.WhichOneof("law")) for part in parts]
        if not {*laws} <= {*_TABLE_LAWS}:
            return None
        rows = [self._row(law, part.inner, part.placement) for law, part in zip(laws, parts, strict=True)]
        return _Rows(rows, sum(math.prod(part.extents) for part in parts) == description.element_count)

    def sample(self, parameters: Parameters, stream: Stream, runs: Runs, out: NDArray[Any]) -> None:
        self._sample(parameters, stream, runs, _TOGETHER, out)

    def sample_apart(
        self, parameters: Parameters, stream: Stream, runs: Runs, positions: Indices, out: NDArray[Any]
    ) -> None:
        self._sample(parameters, stream, runs, positions, out)

    def _sample(
        self, parameters: Parameters, stream: Stream, runs: Runs, positions: Indices, out: NDArray[Any]
    ) -> None:
        law, numbers = _arguments(parameters)
        key, counter = np.uint64(stream.seed), np.uint64(stream.stream)
        if out.dtype == np.float64:
            kernels.fill64(law, numbers, key, counter, *runs, positions, out)
        elif out.dtype == np.float32:
            kernels.fill32(law, numbers, key, counter, *runs, positions, out)
        else:
            is_bfloat16 = out.dtype != np.float16
            kernels.fill16(law, numbers, key, counter, *runs, positions, out.view(np.uint16), is_bfloat16)

    def repeat(self, bits: np.unsignedinteger[Any], out: NDArray[np.unsignedinteger[Any]]) -> None:
        kernels.repeat(bits, out)

    def scatter(self, values: NDArray[Any], positions: Indices, lengths: Indices, out: NDArray[Any]) -> None:
        bits = np.dtype(f"u{out.itemsize}")
        kernels.scatter(values.view(bits), positions, lengths, out.view(bits))

    def mask(self, mask: SparseMask, seed: int, runs: Runs, out: NDArray[Any]) -> None:
        if mask.zeros == mask.rows:
            out.view(np.uint8).fill(0)
        elif mask.zeros:
            numba_sparse.mask(_law_of(mask, seed), mask.columns, *runs, out.view(np.uint8), out.itemsize)

    def places(self, permutation: SparseMask, seed: int, indices: Indices) -> NDArray[np.uint64]:
        out = np.empty(len(indices), np.uint64)
        numba_sparse.places(_law_of(permutation, seed), indices.astype(np.uint64), out)
        return out

    def orthonormal(
        self, rows: int, columns: int, sample: SampleGaussians, cancelled: IsCancelled
    ) -> NDArray[np.float64]:
        for_each = partial(take_turns, self._pool, self.threads, cancelled)
        return reflections.orthonormal(rows, columns, sample, for_each, self.threads)


class _Drawn(NamedTuple):
    """A law in the form that `kernels.fill_pieces` reads."""

    code: int
    kind: int
    """The type of the elements."""
    numbers: NDArray[np.float64]
    bits: int
    """The bits of a constant."""


class _Row(NamedTuple):
    """What all jobs of a described region share."""

    grain: int
    """The fewest elements that are worth another thread."""
    law: _Drawn
    key: int
    """The seed; for a constant its bits."""
    counter: int
    placement: Placement


class _Rows:
    """The rows of all parts; few of them have elements in any one piece.

    Args:
        rows: The rows.
        cover: Whether they leave no gaps.
    """

    def __init__(self, rows: list[_Row], cover: bool) -> None:
        self.cover = cover
        self._rows = rows
        self._begins = np.array([row.placement.out_offset for row in rows], np.int64)
        self._ends = np.array([row.placement.out_end for row in rows], np.int64)

    def near(self, first: int, count: int) -> Iterator[_Row]:
        """The rows that may have some of these elements."""
        is_near = (self._begins < first + count) & (self._ends > first)
        return map(self._rows.__getitem__, np.flatnonzero(is_near).tolist())


_ANYWHERE = Placement(0, 0, 1, (), (), ())
"""The elements of a constant are all equal, so their indices do not matter."""


@cached_by_content(maxsize=1024)
def _drawn(law: Law, dtype: DataType) -> _Drawn:
    if law.HasField("constant"):
        return _Drawn(kernels.CONSTANT, _KINDS[dtype], _numbers(b""), int(deterministic.constant(law, dtype)))
    code, numbers = _arguments(law_parameters(law, dtype))
    return _Drawn(code, _KINDS[dtype], numbers, 0)


class _Table:
    """The jobs of one call of `kernels.fill_pieces`.

    Args:
        piece: The elements of a piece.
        width: The bytes of an element.
    """

    def __init__(self, piece: int, width: int) -> None:
        self.piece = piece
        self.bits = _WIDTHS[width]
        self.pieces = 0
        self.grains = 0.0
        """The amount of work, in grains."""
        self._rows: list[bytes] = []
        self._numbers: list[NDArray[np.float64]] = []
        self._outer: list[tuple[int, int, int]] = []
        self._outs: list[NDArray[Any]] = []  # kept alive while threads write there

    def add(self, row: _Row, first_element: int, out: NDArray[Any]) -> None:
        """Adds consecutive elements of a region, which fill an array that is not empty."""
        self._add(row, first_element, len(out), out, 0, 0)

    def add_part(self, row: _Row, first_element: int, out: NDArray[Any]) -> None:
        """Adds the elements of a part in an array, which begins at ``first_element`` of the region."""
        placement = row.placement
        if (runs := placement.touched(first_element, len(out))) is not None:
            first = runs.first * placement.run_length + runs.skipped
            count = (runs.number - 1) * placement.run_length + runs.last_end - runs.skipped
            self._add(row, first, count, out, len(out), placement.out_offset - first_element)

    def _add(self, row: _Row, first: int, count: int, out: NDArray[Any], size: int, out_offset: int) -> None:
        placement, law = row.placement, row.law
        self._rows.append(
            _JOB.pack(
                *(law.code, law.kind, row.key, row.counter, out.__array_interface__["data"][0]),
                *(first, count, self.pieces),
                *(placement.offset, placement.run_length, len(self._outer), len(placement.extents), size, out_offset),
            )
        )
        self._numbers.append(law.numbers)
        if placement.extents:
            self._outer.extend(zip(placement.extents, placement.strides, placement.out_strides, strict=True))
        self._outs.append(out)
        self.grains += count / row.grain
        self.pieces += -(-count // self.piece)

    @cached_property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """The jobs, their parameters, and the outer dimensions of their placements."""
        jobs = np.frombuffer(b"".join(self._rows), np.int64).reshape(-1, kernels.JOB_FIELDS)
        numbers = np.array(self._numbers, np.float64).reshape(-1, _MOST_NUMBERS)
        return jobs, numbers, np.array(self._outer, np.int64).reshape(-1, 3)


def _of_floats(job: Job) -> Job:
    """A job on random complex numbers, as a job on floats; other jobs unchanged."""
    if not pairs.is_drawn(job.description):
        return job
    return Job(pairs.as_floats(job.description), 2 * job.first_element, pairs.floats_of(job.out))


def _fill_pairs(fill: Sampler, first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> Wait:
    return fill(2 * first_element, pairs.floats_of(out), cancelled)


def _fill_pieces(table: _Table, state: NDArray[np.int64], most: int) -> bool:
    more: bool = kernels.fill_pieces(table.bits, *table.arrays, state, table.piece, table.pieces, most)
    return more


def _law_of(mask: SparseMask, seed: int) -> tuple[np.uint64, ...]:
    """A mask in the form that `numba_sparse` reads."""
    return tuple(map(np.uint64, (mask.rows, mask.zeros, mask.bits, seed, mask.stream)))


def _arguments(parameters: Parameters) -> tuple[int, NDArray[np.float64]]:
    numbers = _numbers(packed(parameters))
    if isinstance(parameters, TruncNormal32Parameters):
        return (kernels.TRUNC_NEAR if parameters.is_near else kernels.TRUNC_FAR), numbers
    return _CODES[type(parameters)], numbers


@lru_cache(maxsize=1024)
def _numbers(packed: bytes) -> NDArray[np.float64]:
    """A law's parameters, cached by their bytes: a cache of floats would confuse -0.0 with 0.0."""
    numbers = np.zeros(_MOST_NUMBERS)
    numbers[: len(packed) // 8] = np.frombuffer(packed)
    return numbers
