"""The GPU: the numpy reference's bits from CUDA kernels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import DataType, Normal, TensorDescription, TensorSpec, TruncNormal, Uniform

from .. import deterministic, dtypes
from ..errors import Cancelled
from ..parameters import parameters_of, sparse_mask
from ..spec import describe
from . import cuda_kernels
from .base import Backend, IsCancelled, Sampler, Wait, never
from .cuda_device import CudaDevice, NoDevice
from .cuda_kernels import TILE
from .cuda_parts import Laid, VisiblePart, are_all_covered, laid_of, visible_parts

Writer = Callable[[int, int, int, Any], None]
"""Begins to write elements ``first .. first + count - 1`` of a region to device memory.

The arguments are ``first``, ``count``, the memory's address, and a CuPy stream (None: the current one).
"""

_PIECE_BYTES: Final = 4 << 20
"""The most that is copied to a host at once, so that sampling the next piece overlaps with it."""

_IDLE_LANES: Final = 16

_ON_CPU: Final = ("orthogonal", "permutation", "literal", "expression")
"""Laws that the CPU computes."""

_SAMPLE_SIZE: Final = 4096
_SAMPLES: Final = [
    describe(TensorSpec(name="check", shape=[_SAMPLE_SIZE], **law))
    for law in ({"uniform": Uniform()}, {"normal": Normal()}, {"trunc_normal": TruncNormal()})
]


class CupyBackend(Backend):
    """A GPU; the CPU makes what is not drawn element by element, and parts that are not boxes of draws and constants.

    Args:
        device: The GPU.
        cpu: What computes the rest.
        reason: Why it was chosen.
    """

    name = "cupy"
    ahead = 2  # one piece is copied, and one sampled, while the one before is sent

    def __init__(self, device: CudaDevice, cpu: Backend, reason: str = "asked for") -> None:
        self.cuda = device
        self.device = device.name
        self.reason = reason
        self.threads = 1
        self._cpu = cpu
        self._idle: deque[_Lane] = deque(maxlen=_IDLE_LANES)

    def prepare(self) -> None:
        self._cpu.prepare()

    def check(self, reference: Backend) -> None:
        """Compares a few values of each law with another backend's.

        Raises:
            NoDevice: They differ, or the device fails.
        """
        try:
            for description in _SAMPLES:
                ours, theirs = (np.empty(_SAMPLE_SIZE, np.float32) for _ in range(2))
                self.fill(description, 0, ours)
                reference.fill(description, 0, theirs)
                if ours.tobytes() != theirs.tobytes():
                    law = description.law.WhichOneof("law")
                    raise NoDevice(f"{self.device} makes other bits of {law} than the reference; please report it")
        except MemoryError as error:
            raise NoDevice(f"{error}; stop whoever else uses the GPU, or choose another") from error
        except self.cuda.errors as error:
            raise NoDevice(f"{self.device} fails: {error}") from error

    def buffer(self, byte_count: int) -> NDArray[np.uint8]:
        return self.cuda.pinned(byte_count)

    def sampler(self, description: TensorDescription) -> Sampler:
        write = self._writer(description)
        if write is None:
            return self._cpu.sampler(description)
        return partial(self._begin, write)

    def writer(self, description: TensorDescription) -> Writer:
        """The function that writes parts of a described region, which is not empty, to the device's memory."""
        write = self._writer(description)
        if write is None:
            dtype = dtypes.numpy_dtype(description.spec.dtype)
            return partial(self._write_from_host, self._cpu.sampler(description), dtype)
        return write

    def _writer(self, description: TensorDescription) -> Writer | None:
        """The function of a tensor that the GPU makes; None if the CPU has to."""
        law = str(description.law.WhichOneof("law"))
        if law in _ON_CPU:
            return None
        if law == "parts":
            parts = visible_parts(description)
            return None if parts is None else self._parts_writer(description, parts)
        if law == "constant":
            return partial(self._write_repeated, deterministic.constant(description))
        if law in ("eye", "dirac"):
            return partial(self._write_ones, deterministic.one(description), deterministic.diagonal(description))
        return self._random_writer(description, laid_of(description))

    def _random_writer(self, description: TensorDescription, where: Laid) -> Writer:
        law = description.law.WhichOneof("law")
        dtype = DataType.Name(description.spec.dtype).removeprefix("DATA_TYPE_").lower()
        placing = _Placing(where, dtypes.numpy_dtype(description.spec.dtype))
        return partial(self._write_random, f"{law}_{dtype}", _draw(description), placing)

    def _parts_writer(self, description: TensorDescription, parts: list[VisiblePart]) -> Writer:
        zero = None
        if not are_all_covered(description, parts):
            zero = dtypes.bits_of(0.0, description.spec.dtype)
        return partial(self._write_parts, zero, _Near([(self._part_writer(part), part.where) for part in parts]))

    def _part_writer(self, part: VisiblePart) -> Writer:
        if part.inner.law.WhichOneof("law") == "constant":
            return partial(self._write_constant, deterministic.constant(part.inner), part.where, _template(part.where))
        return self._random_writer(part.inner, part.where)

    def _begin(self, write: Writer, first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> Wait:
        """Begins the last piece of ``out``, and does those before it."""
        step = _PIECE_BYTES // out.itemsize
        pieces = [slice(begin, begin + step) for begin in range(0, len(out), step)]
        with self.cuda.use():
            wait = self._begin_piece(write, first_element, out[pieces[0]])
            for piece in pieces[1:]:
                try:
                    if cancelled():
                        raise Cancelled
                    following = self._begin_piece(write, first_element + piece.start, out[piece])
                finally:
                    wait()
                wait = following
        return wait

    def _begin_piece(self, write: Writer, first_element: int, out: NDArray[Any]) -> Wait:
        lane = self._take_lane()
        try:
            lane.reserve(out.nbytes)
            write(first_element, len(out), lane.memory.ptr, lane.stream)
            self.cuda.copy_to_host(out, lane.memory.ptr, lane.stream)
        except BaseException:
            self._finish(lane)
            raise
        return partial(self._finish, lane)

    def _finish(self, lane: _Lane) -> None:
        lane.stream.synchronize()
        self._idle.append(lane)

    def _take_lane(self) -> _Lane:
        try:
            return self._idle.pop()
        except IndexError:
            return _Lane(self.cuda)

    def _write_random(
        self, kernel: str, draw: NDArray[Any], placing: _Placing, first: int, count: int, pointer: int, stream: Any
    ) -> None:
        part, threads = placing(first, count, pointer)
        if threads:
            self.cuda.launch(kernel, -(-threads // TILE), (part, draw, pointer), stream)

    def _write_repeated(
        self, bits: np.unsignedinteger[Any], _first: int, count: int, pointer: int, stream: Any
    ) -> None:
        vectors = -(-count * bits.itemsize // 16)
        arguments = (np.uint64(count), np.uint64(bits), pointer)
        self.cuda.launch(f"repeat_{8 * bits.itemsize}", -(-vectors // TILE), arguments, stream)

    def _write_ones(
        self,
        one: np.unsignedinteger[Any],
        diagonal: deterministic.Diagonal | None,
        first: int,
        count: int,
        pointer: int,
        stream: Any,
    ) -> None:
        self._write_repeated(one.dtype.type(0), first, count, pointer, stream)
        if diagonal is None:
            return
        begin, end = diagonal.rows(first, count)
        where = np.array((*diagonal, begin, end - begin), cuda_kernels.DIAGONAL)
        arguments = (where, np.uint64(first), np.uint64(count), np.uint64(one), pointer)
        self.cuda.launch(f"ones_{8 * one.itemsize}", -(-(end - begin) // cuda_kernels.THREADS), arguments, stream)

    def _write_parts(
        self,
        zero: np.unsignedinteger[Any] | None,
        near: _Near,
        first: int,
        count: int,
        pointer: int,
        stream: Any,
    ) -> None:
        if zero is not None:
            self._write_repeated(zero, first, count, pointer, stream)
        for write in near(first, count):
            write(first, count, pointer, stream)

    def _write_constant(
        self,
        bits: np.unsignedinteger[Any],
        where: Laid,
        template: NDArray[Any],
        first: int,
        count: int,
        pointer: int,
        stream: Any,
    ) -> None:
        runs = where.touched(first, count)
        if runs is None:
            return
        if runs.number == 1:
            moved = pointer + (runs.begin + runs.skipped - first) * bits.itemsize
            self._write_repeated(bits, 0, runs.last_end - runs.skipped, moved, stream)
            return
        part = template.copy()
        part["first_run"], part["skipped"] = runs.first, runs.skipped
        part["out_offset"] -= first
        part["threads"] = threads = (runs.number - 1) * where.run_length + runs.last_end - runs.skipped
        self.cuda.launch(f"set_{8 * bits.itemsize}", -(-threads // TILE), (part, np.uint64(bits), pointer), stream)

    def _write_from_host(
        self, sample: Sampler, dtype: np.dtype[Any], first: int, count: int, pointer: int, stream: Any
    ) -> None:
        values = np.empty(count, dtype)
        sample(first, values, never)()
        self.cuda.copy_from_host(pointer, values, stream)


class _Lane:
    """A CUDA stream, and memory for what is sampled on it: one piece's way to a host."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._byte_count = 0
        self.memory: Any = None
        self.stream = device.stream()

    def reserve(self, byte_count: int) -> None:
        """Sees to it that the memory holds so many bytes."""
        if self._byte_count < byte_count:
            self.memory, self._byte_count = None, 0  # first give back what there is
            self.memory = self._device.allocate(byte_count)
            self._byte_count = byte_count


class _Near:
    """The writers of parts, of which few have elements of any one piece."""

    def __init__(self, writers: list[tuple[Writer, Laid]]) -> None:
        self._writers = [write for write, _ in writers]
        self._begins = np.array([where.out_offset for _, where in writers], np.int64)
        self._ends = np.array([where.out_end for _, where in writers], np.int64)

    def __call__(self, first: int, count: int) -> Iterator[Writer]:
        """Those that may have some of the elements, in their order."""
        is_near = (self._begins < first + count) & (self._ends > first)
        return map(self._writers.__getitem__, np.flatnonzero(is_near).tolist())


class _Placing:
    """The structures that tell kernels which elements to make, and where they go."""

    def __init__(self, where: Laid, dtype: np.dtype[Any]) -> None:
        self._itemsize = dtype.itemsize
        self._per_block = 2 if dtype == np.float64 else 4
        self._where = where
        self._template = _template(where)

    def __call__(self, first: int, count: int, pointer: int) -> tuple[NDArray[Any], int]:
        """The structure for elements ``first .. first + count - 1``, to go to an address; how many threads it takes."""
        where, per_block = self._where, self._per_block
        runs = where.touched(first, count)
        if runs is None:
            return self._template, 0
        flat, begin = where.flat_of_run(runs.first), runs.begin - first
        wanted = (runs.last_end if runs.number == 1 else where.run_length) - runs.skipped  # of the first run
        skipped, before = divmod(flat % per_block + runs.skipped, per_block)
        head, beyond = _blocks(before + wanted, per_block), (before + wanted) % per_block
        blocks = _blocks(where.run_length + per_block - 1, per_block)  # a run may begin at the last element of a block
        threads = head
        if runs.number > 1:
            threads += (runs.number - 2) * blocks + _blocks(runs.last_end + per_block - 1, per_block)
        address = pointer + (begin + runs.skipped - before) * self._itemsize
        is_aligned = address % (per_block * self._itemsize) == 0
        inner = (before > 0, head - (beyond > 0)) if is_aligned else (0, 0)
        part = self._template.copy()
        part.view(np.int64)[:12] = (
            count, where.run_length, runs.first, flat, begin, skipped, head, blocks, threads, *inner,
            where.out_offset - first,
        )  # fmt: skip
        return part, threads


def _template(where: Laid) -> NDArray[Any]:
    """The structure of a layout, without the elements that are wanted."""
    part = np.zeros(1, cuda_kernels.PART)
    part["offset"], part["out_offset"], part["run_length"] = where.offset, where.out_offset, where.run_length
    part["dimensions"] = dimensions = len(where.extents)
    part["extents"][0, :dimensions] = where.extents
    part["strides"][0, :dimensions] = where.strides
    part["out_strides"][0, :dimensions] = where.out_strides
    return part


def _blocks(elements: int, per_block: int) -> int:
    return -(-elements // per_block)


def _draw(description: TensorDescription) -> NDArray[Any]:
    draw = np.zeros(1, cuda_kernels.DRAW)
    draw["seed"], draw["stream"] = description.spec.seed, description.stream
    parameters = parameters_of(description)
    draw["p"][0, : len(parameters)] = parameters
    if description.law.WhichOneof("law") == "sparse":
        mask = sparse_mask(description)
        draw["rows"], draw["columns"], draw["zeros"], draw["bits"], draw["mask_stream"] = (
            mask.rows, mask.columns, mask.zeros, mask.bits, mask.stream,
        )  # fmt: skip
    return draw
