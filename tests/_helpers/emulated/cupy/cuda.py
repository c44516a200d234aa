"""``cupy.cuda``: devices, streams, memory, and kernels that run on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import _compiler

_current = threading.local()


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class CUDADriverError(RuntimeError):
    pass


class _Null:
    def __get__(self, *_: object) -> Stream:
        device = runtime.getDevice()
        if device not in _null_streams:
            _null_streams[device] = Stream()
        return _null_streams[device]


class Stream:
    """A queue of work that a dedicated thread runs in order."""

    null = _Null()

    def __init__(self, non_blocking: bool = False) -> None:
        self.device = runtime.getDevice()
        self.ptr = id(self)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_run_all, args=[self._work], daemon=True)
        self._thread.start()
        _streams[self.ptr] = self

    def __del__(self) -> None:
        self._work.put(None)

    def enqueue(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def synchronize(self) -> None:
        done = threading.Event()
        self.enqueue(done.set)
        done.wait()

    def __enter__(self) -> Stream:
        stack().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        stack().pop()


class ExternalStream:
    """A stream of another library, given by its address."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        self._stream = _streams[ptr]

    def __enter__(self) -> ExternalStream:
        self._stream.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.__exit__()


def _run_all(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (step := work.get()) is not None:
        step()


_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
_null_streams: dict[int, Stream] = {}


def stack() -> list[Stream]:
    """The streams that the thread has entered."""
    if not hasattr(_current, "streams"):
        _current.streams = []
    return _current.streams  # type: ignore[no-any-return]


def get_current_stream() -> Stream:
    if stack():
        return stack()[-1]
    return Stream.null


class Device:
    """Makes a device the thread's current one."""

    def __init__(self, number: int | None = None) -> None:
        self.id = runtime.getDevice() if number is None else number

    def __enter__(self) -> Device:
        self._before = runtime.getDevice()
        _current.device = self.id
        return self

    def __exit__(self, *_: object) -> None:
        _current.device = self._before

    def use(self) -> None:
        _current.device = self.id


class _Runtime:
    CUDARuntimeError = CUDARuntimeError
    memcpyHostToDevice = 1
    memcpyDeviceToHost = 2

    def getDeviceCount(self) -> int:
        return int(os.environ.get("EMULATED_GPUS", "1"))

    def getDevice(self) -> int:
        return getattr(_current, "device", 0)

    def getDeviceProperties(self, number: int) -> dict[str, Any]:
        return {"name": b"Emulated GPU", "major": 9, "minor": 0, "totalGlobalMem": memory_limit()}

    def memcpyAsync(self, target: int, source: int, byte_count: int, kind: int, stream: int) -> None:
        if kind == self.memcpyHostToDevice:  # pageable memory, which CUDA copies immediately
            copy = ctypes.string_at(source, byte_count)
            _streams[stream].enqueue(lambda: ctypes.memmove(target, copy, byte_count))
        else:
            _streams[stream].enqueue(lambda: ctypes.memmove(target, source, byte_count))


runtime = _Runtime()
driver = SimpleNamespace(CUDADriverError=CUDADriverError)


# Memory.

used: dict[int, int] = {}
"""The allocated bytes of each device."""

most_used: dict[int, int] = {}
_memory_lock = threading.RLock()  # the garbage collector may free memory during an allocation


def memory_limit() -> int:
    return int(os.environ.get("EMULATED_GPU_BYTES", str(1 << 30)))


class Memory:
    """Memory of the current device, filled with garbage."""

    def __init__(self, byte_count: int) -> None:
        self._device, self.size = runtime.getDevice(), byte_count
        with _memory_lock:
            if used.get(self._device, 0) + byte_count > memory_limit():
                raise CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")
            used[self._device] = used.get(self._device, 0) + byte_count
            most_used[self._device] = max(most_used.get(self._device, 0), used[self._device])
        self._bytes = np.full(byte_count + 256, 0xA5, np.uint8)
        self.ptr = -(-self._bytes.ctypes.data // 256) * 256

    def __del__(self) -> None:
        if hasattr(self, "_bytes"):
            with _memory_lock:
                used[self._device] -= self.size


def alloc_pinned_memory(byte_count: int) -> Any:
    return np.full(byte_count, 0x5A, np.uint8).data


# Kernels.


class Function:
    def __init__(self, launcher: Any) -> None:
        self._launcher = launcher

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: Any, stream: Stream | None = None) -> None:
        values = [_by_value(argument) for argument in arguments]  # CUDA copies them when a kernel is launched
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        assert 0 < grid[0] < 2**31
        (stream or get_current_stream()).enqueue(lambda: self._launcher(grid[0], block[0], pointers, values))


def _by_value(argument: Any) -> np.ndarray:
    array = np.array(argument)  # a copy
    assert array.size == 1
    assert array.dtype.itemsize == 8 or array.dtype.fields
    return array


class Module:
    def load(self, binary: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(binary)
            file.flush()
            self._library = ctypes.CDLL(file.name)

    def get_function(self, name: str) -> Function:
        launch = self._library[f"launch_{name}"]

        def launcher(blocks: int, threads: int, pointers: Any, _values: list[np.ndarray]) -> None:
            launch(ctypes.c_uint(blocks), ctypes.c_uint(threads), pointers)

        return Function(launcher)


function = SimpleNamespace(Module=Module)


class NVRTCError(RuntimeError):
    pass


class _Nvrtc:
    """NVRTC's functions, implemented by a C++ compiler."""

    NVRTCError = NVRTCError
    compilations = 0

    def getVersion(self) -> tuple[str, ...]:
        header = Path(__file__).parent / "cuda_on_cpu.h"
        return ("emulated", *_compiler.compiler(), *_compiler.FLAGS, header.read_text())

    def createProgram(self, source: str, name: str, headers: Any, includes: Any) -> dict[str, Any]:
        return {"source": source}

    def compileProgram(self, program: dict[str, Any], options: tuple[str, ...]) -> None:
        self.compilations += 1
        program["cubin"] = _compiler.shared_library(program["source"])

    def getCUBIN(self, program: dict[str, Any]) -> bytes:
        return program["cubin"]  # type: ignore[no-any-return]

    def destroyProgram(self, program: dict[str, Any]) -> None:
        program.clear()


nvrtc = _Nvrtc()


@contextlib.contextmanager
def limited(byte_count: int) -> Iterator[None]:
    """Limits the memory during a test."""
    before = os.environ.get("EMULATED_GPU_BYTES")
    os.environ["EMULATED_GPU_BYTES"] = str(byte_count)
    try:
        yield
    finally:
        os.environ.pop("EMULATED_GPU_BYTES")
        if before is not None:
            os.environ["EMULATED_GPU_BYTES"] = before
