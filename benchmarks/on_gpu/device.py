"""The GPU, with what Seedbed's backend does not offer, and an emulated one for dry runs."""

from __future__ import annotations

import ctypes
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import seedbed

Work = Callable[[], object]
"""Something to time. When it returns, the GPU may still be working."""


class Gpu:
    """The GPU, through CuPy: memory, copies, and times by CUDA's events.

    Args:
        cuda: The GPU as Seedbed's backend sees it.
    """

    torch_device = "cuda"

    def __init__(self, cuda: Any) -> None:
        self.cuda, self.cupy, self.runtime = cuda, cuda.cupy, cuda.cupy.cuda.runtime
        self.stream = self.cupy.cuda.get_current_stream()  # CUDA's null stream, which is also torch's default stream

    def synchronize(self) -> None:
        """Waits until all work on the device is done."""
        self.runtime.deviceSynchronize()

    def memset(self, memory: Any, value: int) -> None:
        self.runtime.memsetAsync(memory.ptr, value, memory.size, self.stream.ptr)

    def fill(self, memory: Any) -> None:
        """Fills memory with a plain kernel of CuPy."""
        pointer = self.cupy.cuda.MemoryPointer(memory, 0)
        self.cupy.ndarray((memory.size // 4,), "float32", pointer).fill(1.0)

    def to_host(self, out: np.ndarray, pointer: int) -> None:
        """Copies into an array, and waits."""
        self.cuda.copy_to_host(out, pointer, self.stream)
        self.synchronize()

    def seconds(self, work: Work, lead: Any) -> float:
        """Times the work on the device.

        The device first clears the memory ``lead``. Meanwhile the host enqueues the work, so the time excludes the
        host. (This also evicts the work's earlier output from the caches.)
        """
        begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        self.memset(lead, 0)
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(begin, end)) / 1e3

    def host_seconds(self, work: Work) -> float:
        """Times the work until it is complete, by the host's clock."""
        self.synchronize()
        begin = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begin

    def random_peers(self, law: str, dtype: str, count: int) -> dict[str, Work]:
        """The ways of CuPy to sample as many values of the law; it has float32 and float64."""
        method = {"uniform": "random", "normal": "standard_normal"}.get(law)
        if method is None or dtype not in ("float32", "float64"):
            return {}
        return {
            "cupy.random.Generator": lambda: getattr(self._generator, method)(count, dtype=dtype),
            "cupy.random (cuRAND)": lambda: getattr(self.cupy.random, method)(count, dtype=dtype),
        }

    @functools.cached_property
    def _generator(self) -> Any:
        return self.cupy.random.default_rng(0)

    def tensor(self, torch: Any, shape: tuple[int, ...], dtype: str) -> Any:
        """A torch tensor in the device's memory, full of NaN, which no law makes."""
        return torch.full(shape, math.nan, dtype=getattr(torch, dtype), device="cuda")

    def bytes_of(self, torch: Any, tensor: Any) -> np.ndarray:
        return tensor.view(torch.uint8).cpu().numpy()


class EmulatedGpu(Gpu):
    """The emulated CuPy of the tests, on the CPU. Its times mean nothing."""

    torch_device = "cpu"

    def synchronize(self) -> None:
        self.stream.synchronize()

    def memset(self, memory: Any, value: int) -> None:
        self.stream.enqueue(lambda: ctypes.memset(memory.ptr, value, memory.size))

    def seconds(self, work: Work, lead: Any) -> float:
        return self.host_seconds(work)

    def tensor(self, torch: Any, shape: tuple[int, ...], dtype: str) -> Any:
        """An array of the emulated CuPy: torch has no tensors there."""
        return self.cupy.empty(shape, seedbed.dtypes.numpy_dtype(seedbed.dtypes.data_type(dtype)))

    def bytes_of(self, torch: Any, tensor: Any) -> np.ndarray:
        return tensor.get()
