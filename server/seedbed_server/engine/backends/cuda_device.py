"""One GPU: the CUDA calls of the cupy backend, made through CuPy."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import cuda_kernels

_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation
_INSTALL: Final = "run pip install 'seedbed[gpu]' (CUDA 13) or 'seedbed[gpu-cuda12]'"
_DRIVER: Final = "check that nvidia-smi lists a device here (in a container: start it with --gpus all)"


class NoDevice(Exception):  # noqa: N818 - named for the problem
    """No GPU is available; the message says why, and what to do."""


class CudaDevice:
    """A GPU with the kernels loaded; safe to use from many threads.

    Args:
        number: The GPU, counted from 0. By default the calling thread's current one.

    Raises:
        NoDevice: The GPU is unavailable.

    Attributes:
        cupy: The module.
        number: The GPU, counted from 0.
        name: A description for display.
    """

    def __init__(self, number: int | None = None) -> None:
        self.cupy = _import_cupy()
        self._runtime = self.cupy.cuda.runtime
        try:
            self.number = self._choose(number)
            with self.use():
                self._load()
        except self.errors as error:
            raise NoDevice(f"CUDA does not work: {error}; {_DRIVER}") from error

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The exceptions that CUDA's failures raise."""
        return self._runtime.CUDARuntimeError, self.cupy.cuda.driver.CUDADriverError

    def use(self) -> contextlib.AbstractContextManager[Any]:
        """Makes this GPU the calling thread's current device for a ``with`` block."""
        device: contextlib.AbstractContextManager[Any] = self.cupy.cuda.Device(self.number)
        return device

    def new_stream(self) -> Any:
        """A CUDA stream that does not synchronise with others."""
        return self.cupy.cuda.Stream(non_blocking=True)

    def allocate(self, byte_count: int) -> Any:
        """Allocates device memory, freed with the object; its ``ptr`` is the address.

        Raises:
            MemoryError: The device is out of memory.
        """
        with self._memory_errors():
            return self.cupy.cuda.Memory(byte_count)

    def pinned(self, byte_count: int) -> NDArray[np.uint8]:
        """Allocates host memory that the device copies to directly.

        Raises:
            MemoryError: No memory is left.
        """
        with self._memory_errors():
            return np.frombuffer(self.cupy.cuda.alloc_pinned_memory(byte_count), np.uint8, byte_count)

    def launch(self, kernel: str, blocks: int, arguments: Sequence[Any], cuda_stream: Any) -> None:
        """Launches a kernel on a CUDA stream (None: CuPy's current one)."""
        if kernel not in self._functions:
            self._functions[kernel] = self._module.get_function(kernel)
        self._functions[kernel]((blocks,), (cuda_kernels.THREADS,), arguments, stream=cuda_stream)

    def copy_to_host(self, out: NDArray[Any], pointer: int, cuda_stream: Any) -> None:
        """Starts to copy device memory to a contiguous array."""
        kind = self._runtime.memcpyDeviceToHost
        self._runtime.memcpyAsync(out.ctypes.data, pointer, out.nbytes, kind, cuda_stream.ptr)

    def copy_from_host(self, pointer: int, values: NDArray[Any], cuda_stream: Any) -> None:
        """Starts to copy a contiguous array of pageable memory to device memory; the array may be freed at once."""
        cuda_stream = cuda_stream or self.cupy.cuda.get_current_stream()
        kind = self._runtime.memcpyHostToDevice
        self._runtime.memcpyAsync(pointer, values.ctypes.data, values.nbytes, kind, cuda_stream.ptr)

    def _choose(self, number: int | None) -> int:
        count = self._runtime.getDeviceCount()
        if count == 0:
            raise NoDevice(f"there is no GPU; {_DRIVER}")
        if number is None:
            return int(self._runtime.getDevice())
        if not 0 <= number < count:
            raise NoDevice(f"there is no device {number}; give one of 0 .. {count - 1}")
        return number

    def _load(self) -> None:
        properties = self._runtime.getDeviceProperties(self.number)
        capability = f"{properties['major']}.{properties['minor']}"
        self.name = f"{properties['name'].decode()} (device {self.number}, compute capability {capability})"
        self._module = self.cupy.cuda.function.Module()
        self._module.load(self._cubin(int(capability.replace(".", ""))))
        self._functions: dict[str, Any] = {}

    def _cubin(self, architecture: int) -> bytes:
        """The compiled kernels, cached in the directory of CuPy's cache."""
        nvrtc = self.cupy.cuda.nvrtc
        try:
            key = f"{architecture} {nvrtc.getVersion()} {cuda_kernels.OPTIONS} {cuda_kernels.source()}"
        except (ImportError, OSError, RuntimeError) as error:  # the library is loaded at its first use
            raise NoDevice(f"CUDA's compiler NVRTC cannot be loaded ({error}); {_INSTALL}") from error
        directory = os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache"
        path = Path(directory) / f"seedbed-{hashlib.sha256(key.encode()).hexdigest()}.cubin"
        if (cached := _read(path)) is not None:
            return cached
        try:
            cubin = cuda_kernels.compiled(nvrtc, cuda_kernels.source(), architecture)
        except nvrtc.NVRTCError as error:
            raise NoDevice(f"the kernels cannot be compiled for this GPU ({error}); {_INSTALL}") from error
        _write(path, cubin)
        return cubin

    @contextlib.contextmanager
    def _memory_errors(self) -> Any:
        try:
            with self.use():
                yield
        except self._runtime.CUDARuntimeError as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            raise MemoryError(f"the GPU is out of memory ({error})") from error


def _import_cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise NoDevice(f"cupy cannot be imported ({error}); {_INSTALL}") from error
        raise NoDevice(f"cupy is not installed; {_INSTALL}") from error
    except ImportError as error:
        raise NoDevice(f"cupy cannot be imported ({error}); {_INSTALL}") from error


def _read(path: Path) -> bytes | None:
    """The content of a cached file, which begins with its digest; None if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:32], data[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def _write(path: Path, content: bytes) -> None:
    """Writes a file to the cache atomically; does nothing if the cache is not writable."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
