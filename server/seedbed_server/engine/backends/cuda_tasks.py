"""The tasks of a described region: the kernels that compute it, and their arguments."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from seedbed.v1 import DataType, Law, TensorDescription

from .. import deterministic, dtypes, pairs
from ..caching import cached_by_content
from ..parameters import (
    DiskNormalParameters,
    TruncNormal32Parameters,
    law_parameters,
    packed,
    parameters_of,
    sparse_mask,
)
from . import cuda_tables
from .cuda_kernels import THREADS, TILE
from .cuda_tables import Layers, Task
from .placement import Placement, VisiblePart, are_all_covered, are_disjoint, placement_of, visible_parts

Planner = Callable[[int, int, int], Layers]
"""Plans elements ``first .. first + count - 1`` of a region; the arguments are ``first``, ``count`` and the address."""

_ON_CPU: Final = ("orthogonal", "permutation", "literal", "expression")
"""Laws that are computed on the CPU."""

_SPARSE: Final = struct.Struct("<2d5Q")
_DTYPE_NAMES: Final = {
    number: name.removeprefix("DATA_TYPE_").lower() for name, number in DataType.items() if dtypes.is_known(number)
} | {DataType.DATA_TYPE_COMPLEX64: "float64"}  # only for constants: 8 bytes


def planner(description: TensorDescription) -> Planner | None:
    """Plans elements of a described region, which is not empty; None if the CPU must compute it."""
    law = str(description.law.WhichOneof("law"))
    if law in _ON_CPU:
        return None
    if pairs.is_drawn(description):
        floats = pairs.as_floats(description)
        return partial(_plan_pairs, _Draws(floats, placement_of(floats)))
    if law == "parts":
        parts = visible_parts(description)
        return None if parts is None else _Parts(description, parts)
    if law == "constant":
        return partial(_repeated, _constant(description.law, description.spec.dtype))
    if law in ("eye", "dirac"):
        return partial(_ones, deterministic.one(description), deterministic.diagonal(description))
    return _Draws(description, placement_of(description))


def _plan_pairs(plan: Planner, first: int, count: int, pointer: int) -> Layers:
    """Plans complex numbers as floats."""
    return plan(2 * first, 2 * count, pointer)


class _Draws:
    """Plans random values, and constants that are not contiguous.

    Args:
        description: The tensor.
        placement: Where its elements go.
    """

    def __init__(self, description: TensorDescription, placement: Placement) -> None:
        dtype = description.spec.dtype
        law, parameters = _drawn(description)
        self._kernel = f"{law}_{_DTYPE_NAMES[dtype]}"
        self._draw = description.spec.seed, description.stream, parameters
        self._itemsize = dtypes.numpy_dtype(dtype).itemsize
        self._per_block = 2 if self._itemsize == 8 else 4
        self._where = placement

    def __call__(self, first: int, count: int, pointer: int) -> Layers:
        placement, per_block = self._where, self._per_block
        runs = placement.touched(first, count)
        if runs is None:
            return ()
        flat, begin = placement.flat_of_run(runs.first), runs.begin - first
        length = (runs.last_end if runs.number == 1 else placement.run_length) - runs.skipped  # of the first run
        skipped, before = divmod(flat % per_block + runs.skipped, per_block)
        head, beyond = _blocks(before + length, per_block), (before + length) % per_block
        position = begin + runs.skipped - before
        blocks = threads = head
        axes, is_whole = b"", False
        if runs.number > 1:
            shift = placement.shift(per_block)
            blocks = _blocks(placement.run_length + shift, per_block)
            threads = head + (runs.number - 2) * blocks + _blocks(runs.last_end + shift, per_block)
            axes = b"".join(map(cuda_tables.AXIS.pack, placement.extents, placement.strides, placement.out_strides))
            is_whole = before == 0 and runs.last_end % per_block == 0 and placement.is_whole(per_block)
        is_aligned = (pointer + position * self._itemsize) % (per_block * self._itemsize) == 0
        inner_begin = int(before > 0)
        inner_tiles = max((head - (beyond > 0)) // TILE - inner_begin, 0) if is_aligned else 0
        packed = cuda_tables.DRAW.pack(
            pointer, count, placement.run_length, runs.first, begin, flat // per_block + skipped, position, blocks,
            min(2**64 // blocks, 2**64 - 1), blocks - head, threads, placement.out_offset - first, placement.offset,
            inner_begin, inner_tiles, is_aligned and is_whole, THREADS // blocks, THREADS % blocks,
            len(axes) // cuda_tables.AXIS.size, *self._draw,
        )  # fmt: skip
        return [[Task(self._kernel, -(-threads // TILE), packed, axes)]]


class _Parts:
    """Plans a tensor of parts, few of which have elements in any one piece.

    Args:
        description: The tensor.
        parts: The parts with elements in the region.
    """

    def __init__(self, description: TensorDescription, parts: list[VisiblePart]) -> None:
        self._zero = None
        if not are_all_covered(description, parts):
            self._zero = dtypes.bits_of(0.0, description.spec.dtype)
        self._are_disjoint = are_disjoint(parts)
        self._planners = [_part_planner(part) for part in parts]
        self._begins = np.array([part.placement.out_offset for part in parts], np.int64)
        self._ends = np.array([part.placement.out_end for part in parts], np.int64)

    def __call__(self, first: int, count: int, pointer: int) -> Layers:
        layers = [] if self._zero is None else list(_repeated(self._zero, first, count, pointer))
        parts = [layer for plan in self._near(first, count) for layer in plan(first, count, pointer)]
        if self._are_disjoint:
            parts = [[task for layer in parts for task in layer]]
        return [*layers, *parts]

    def _near(self, first: int, count: int) -> Iterator[Planner]:
        """The planners of parts that may have some of the elements, in order."""
        is_near = (self._begins < first + count) & (self._ends > first)
        return map(self._planners.__getitem__, np.flatnonzero(is_near).tolist())


def _part_planner(part: VisiblePart) -> Planner:
    if part.inner.law.WhichOneof("law") == "constant" and not part.placement.extents:
        return partial(_repeated_within, _constant(part.inner.law, part.inner.spec.dtype), part.placement)
    if pairs.is_drawn(part.inner):
        return partial(_plan_pairs, _Draws(pairs.as_floats(part.inner), part.placement.doubled))
    return _Draws(part.inner, part.placement)


def _repeated(bits: np.unsignedinteger[Any], _first: int, count: int, pointer: int) -> Layers:
    tiles = -(-count * bits.itemsize // (16 * TILE))
    return [[Task(f"repeat_{8 * bits.itemsize}", tiles, cuda_tables.REPEAT.pack(pointer, count, bits))]]


def _repeated_within(
    bits: np.unsignedinteger[Any], placement: Placement, first: int, count: int, pointer: int
) -> Layers:
    """Plans the elements of a run that are in a piece."""
    runs = placement.touched(first, count)
    if runs is None:
        return ()
    begin = pointer + (runs.begin + runs.skipped - first) * bits.itemsize
    return _repeated(bits, 0, runs.last_end - runs.skipped, begin)


def _ones(
    one: np.unsignedinteger[Any], diagonal: deterministic.Diagonal | None, first: int, count: int, pointer: int
) -> Layers:
    zeros = _repeated(one.dtype.type(0), first, count, pointer)
    if diagonal is None:
        return zeros
    begin, end = diagonal.rows(first, count)
    packed = cuda_tables.ONES.pack(*diagonal, begin, end - begin, first, count, one, pointer)
    return [*zeros, [Task(f"ones_{8 * one.itemsize}", -(-(end - begin) // THREADS), packed)]]


_constant = cached_by_content(maxsize=1024)(deterministic.constant)  # a model has few laws


def _drawn(description: TensorDescription) -> tuple[str, bytes]:
    """The name of the law's kernel, and its packed parameters."""
    law, dtype = description.law, description.spec.dtype
    if law.WhichOneof("law") != "sparse":
        return _drawn_of_law(law, dtype)
    mask = sparse_mask(description)
    return "sparse", _SPARSE.pack(
        *parameters_of(description), mask.rows, mask.columns, mask.zeros, mask.bits, mask.stream
    )


@cached_by_content(maxsize=1024)
def _drawn_of_law(law: Law, dtype: DataType) -> tuple[str, bytes]:
    name = str(law.WhichOneof("law"))
    if name == "constant":
        bits = deterministic.constant(law, dtype)
        held_as = np.float64 if dtypes.is_complex(dtype) else dtypes.numpy_dtype(dtype)
        return name, struct.pack("<d", float(bits.view(held_as)))
    parameters = law_parameters(law, dtype)
    if isinstance(parameters, TruncNormal32Parameters):
        name = "trunc_near" if parameters.is_near else "trunc_far"
    if isinstance(parameters, DiskNormalParameters):
        name = "disk_normal"
    return name, packed(parameters)


def _blocks(elements: int, per_block: int) -> int:
    return -(-elements // per_block)
