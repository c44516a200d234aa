"""``cupy.ndarray``: the part that the client of ``local:cuda`` and its tests use."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import cuda


class _Block:
    """Memory of the current device. As in CuPy's pool, it is freed once its stream has reached that point."""

    def __init__(self, byte_count: int) -> None:
        self.device = cuda.Device()
        self.memory = _allocate(byte_count)
        self._stream = cuda.get_current_stream()

    def host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The memory as NumPy sees it."""
        data = self.memory._bytes
        return np.ndarray(shape, dtype, data, self.memory.ptr - data.ctypes.data)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.enqueue(partial(id, self.memory))  # keeps the memory alive until then


def _allocate(byte_count: int) -> cuda.Memory:
    try:
        return cuda.Memory(byte_count)
    except cuda.CUDARuntimeError:
        cuda.get_current_stream().synchronize()  # blocks may be about to be freed
    try:
        return cuda.Memory(byte_count)
    except cuda.CUDARuntimeError as error:
        raise MemoryError(f"Out of memory allocating {byte_count:,} bytes") from error


class ndarray:
    """An array in a device's memory; operations on it are enqueued on the current stream."""

    def __init__(self, host: np.ndarray, block: _Block) -> None:
        self._host, self._block = host, block
        self.device = block.device
        self.shape, self.dtype, self.flags = host.shape, host.dtype, host.flags
        self.size, self.nbytes = host.size, host.nbytes
        self.strides = host.strides if host.size else (0,) * host.ndim
        self.data = SimpleNamespace(ptr=host.ctypes.data, device_id=block.device.id)

    def __getitem__(self, slices: Any) -> ndarray:
        return ndarray(self._host[slices], self._block)

    def __setitem__(self, slices: Any, values: ndarray) -> None:
        def copy() -> None:
            self._host[slices] = values._host

        cuda.get_current_stream().enqueue(copy)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(np.reshape(self._host, shape, copy=False), self._block)

    def get(self) -> np.ndarray:
        with self.device:
            cuda.get_current_stream().synchronize()
        return self.peek()

    def peek(self) -> np.ndarray:
        """The current content, without synchronising; CuPy has no such method."""
        return self._host.copy()


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> ndarray:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if len(shape) > 64:
        raise ValueError(f"maximum supported dimension for an ndarray is 64, found {len(shape)}")
    block = _Block(math.prod(shape) * np.dtype(dtype).itemsize)
    return ndarray(block.host(shape, dtype), block)


def from_dlpack(array: Any) -> ndarray:
    """Requests the array's capsule, here an `ndarray`, for use on the current stream of its device."""
    kind, number = array.__dlpack_device__()
    if kind not in (2, 13):
        raise TypeError("CPU arrays cannot be directly imported to CuPy.")
    with cuda.Device(number):
        capsule = array.__dlpack__(stream=cuda.get_current_stream().ptr, max_version=(1, 0), copy=None)
    return capsule[...]
