"""The GPU backend: CUDA kernels that give the bits of the numpy reference."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import Normal, TensorDescription, TensorSpec, TruncNormal, Uniform

from .. import dtypes
from ..errors import Cancelled
from ..spec import describe
from .base import Backend, IsCancelled, Sampler, Wait
from .cuda_device import CudaDevice, NoDevice
from .cuda_pieces import Pieces, PieceSampler
from .cuda_tables import Layers, launches, merged
from .cuda_tasks import Planner, planner

Writer = Callable[[int, int, int, Any], None]
"""Starts to write elements ``first .. first + count - 1`` of a region to device memory.

The arguments are ``first``, ``count``, the address of the memory, and a CUDA stream of CuPy (None: the current one).
"""

Job = tuple[TensorDescription, int, int, int]
"""Elements to write: the description of their region, the first position, the count, and the address of the memory."""

_PIECE_BYTES: Final = 4 << 20
"""The most bytes copied to the host at once; the next piece is sampled meanwhile."""

_IDLE_LANES: Final = 16

_SAMPLE_SIZE: Final = 4096
_SAMPLES: Final = [
    describe(TensorSpec(name="check", shape=[_SAMPLE_SIZE], **law))
    for law in ({"uniform": Uniform()}, {"normal": Normal()}, {"trunc_normal": TruncNormal()})
]


class CupyBackend(Backend):
    """A GPU; laws that are not elementwise, and parts that cannot be sampled in place, are computed on the CPU.

    Args:
        device: The GPU.
        open_cpu: Opens the CPU backend; called at its first use, because importing and compiling it takes long.
        reason: Why this backend was chosen.
    """

    name = "cupy"
    ahead = 2  # one piece is sampled and one copied while the previous one is sent

    def __init__(self, device: CudaDevice, open_cpu: Callable[[], Backend], reason: str = "requested") -> None:
        self.cuda = device
        self.device = device.name
        self.reason = reason
        self.threads = 1
        self._open_cpu = open_cpu
        self._opened_cpu: Backend | None = None
        self._opening = threading.Lock()
        self._idle: deque[_Lane] = deque(maxlen=_IDLE_LANES)
        self._pieces = Pieces(device)

    def prepare(self) -> None:
        """Prepares the CPU backend in the background: few tensors need it, and others must not wait for it."""
        threading.Thread(target=self._prepare_cpu, name="prepare", daemon=True).start()

    def _prepare_cpu(self) -> None:
        self._cpu.prepare()

    @property
    def _cpu(self) -> Backend:
        with self._opening:
            if self._opened_cpu is None:
                self._opened_cpu = self._open_cpu()
            return self._opened_cpu

    def check(self, reference: Backend) -> None:
        """Compares a few values of each law with those of another backend.

        Raises:
            NoDevice: The values differ, or the device fails.
        """
        try:
            for description in _SAMPLES:
                ours, theirs = (np.empty(_SAMPLE_SIZE, np.float32) for _ in range(2))
                self.fill(description, 0, ours)
                reference.fill(description, 0, theirs)
                if ours.tobytes() != theirs.tobytes():
                    law = description.law.WhichOneof("law")
                    raise NoDevice(f"the bits of {law} on {self.device} differ from the reference; please report this")
        except MemoryError as error:
            raise NoDevice(f"{error}; stop other programs that use this GPU, or choose another one") from error
        except self.cuda.errors as error:
            raise NoDevice(f"{self.device} fails: {error}") from error

    def buffer(self, byte_count: int) -> NDArray[np.uint8]:
        return self.cuda.pinned(byte_count)

    def sampler(self, description: TensorDescription) -> Sampler:
        plan = planner(description)
        if plan is None:
            return self._cpu.sampler(description)
        write = partial(self._write, plan)
        return PieceSampler(self.cuda, self._pieces, write, description.element_count, partial(self._begin, write))

    def writer(self, description: TensorDescription) -> Writer:
        """The function that writes elements of a described region, which is not empty, to device memory."""
        plan = planner(description)
        return partial(self._write_from_host, description) if plan is None else partial(self._write, plan)

    def write_all(self, jobs: Sequence[Job], cuda_stream: Any) -> None:
        """Starts to write elements of many regions to device memory, as by `writer` but with few launches."""
        planned, others = [], []
        for job in jobs:
            description, *where = job
            plan = planner(description)
            if plan is None:
                others.append(job)
            else:
                planned.append(plan(*where))
        self._launch(merged(planned), cuda_stream)
        for job in others:
            self._write_from_host(*job, cuda_stream)

    def _begin(self, write: Writer, first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> Wait:
        """Fills all pieces of ``out`` but the last, which is only started."""
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
            write(first_element, len(out), lane.memory.ptr, lane.cuda_stream)
            self.cuda.copy_to_host(out, lane.memory.ptr, lane.cuda_stream)
        except BaseException:
            self._finish(lane)
            raise
        return partial(self._finish, lane)

    def _finish(self, lane: _Lane) -> None:
        lane.cuda_stream.synchronize()
        self._idle.append(lane)

    def _take_lane(self) -> _Lane:
        try:
            return self._idle.pop()
        except IndexError:
            return _Lane(self.cuda)

    def _write(self, plan: Planner, first: int, count: int, pointer: int, cuda_stream: Any) -> None:
        self._launch(plan(first, count, pointer), cuda_stream)

    def _launch(self, layers: Layers, cuda_stream: Any) -> None:
        for kernel, blocks, table in launches(layers):
            self.cuda.launch(kernel, blocks, (table,), cuda_stream)

    def _write_from_host(
        self, description: TensorDescription, first: int, count: int, pointer: int, cuda_stream: Any
    ) -> None:
        values = np.empty(count, dtypes.numpy_dtype(description.spec.dtype))
        self._cpu.fill(description, first, values)
        self.cuda.copy_from_host(pointer, values, cuda_stream)


class _Lane:
    """A CUDA stream and device memory, for copying one piece to the host."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._byte_count = 0
        self.memory: Any = None
        self.cuda_stream = device.new_stream()

    def reserve(self, byte_count: int) -> None:
        """Grows the memory to at least this size."""
        if self._byte_count < byte_count:
            self.memory, self._byte_count = None, 0  # free the old memory first
            self.memory = self._device.allocate(byte_count)
            self._byte_count = byte_count
