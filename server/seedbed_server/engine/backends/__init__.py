"""The backends: different ways to compute the same bits.

=========  =====================================================================================================
base       the interface
cpu        what the CPU backends share: pieces, threads, recipes, orthogonal, permutation
numpy      the reference
numba      the fast CPU path: ``numba_kernels`` (elementwise laws), ``numba_sparse`` (sparse, permutation),
           ``numba_orthogonal`` with ``reflections`` (orthogonal); ``numba_fma`` and ``numba_wide`` (compilation)
cupy       GPUs: ``cuda_kernels`` (the source), ``cuda_tasks`` (a region to tasks), ``cuda_tables`` (tasks to
           launches), ``cuda_pieces`` (read-ahead to the host), ``cuda_device`` (CUDA calls)
placement  where elements of parts go, for numba and cupy
turns      threads that take tasks in turn
=========  =====================================================================================================
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from seedbed.common.cores import usable_cores

from .base import Backend, Job, Sampler, Watch

if TYPE_CHECKING:
    from .cupy import CupyBackend

__all__ = ["Backend", "Job", "Sampler", "Watch", "gpu_count", "open_backend", "open_cupy", "usable_cores"]

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAMES = ("auto", "numpy", "numba", "cupy")


def open_backend(name: str | None = None, threads: int | None = None, device: int | None = None) -> Backend:
    """Opens a backend.

    Args:
        name: ``cupy``, ``numba``, ``numpy`` or ``auto``, the first of them that works here. By default the environment
            variable SEEDBED_BACKEND, else ``auto``.
        threads: The number of CPU threads that share one call. By default the environment variable SEEDBED_THREADS,
            else one for each core that this process may use; torchrun's ranks on one machine divide its cores.
        device: The GPU, counted from 0. By default the environment variable SEEDBED_DEVICE, else the current one.

    Raises:
        ValueError: The backend is unknown or unavailable here; the message says what to do.

    >>> open_backend("numpy", threads=1).name
    'numpy'
    """
    name = name or os.environ.get("SEEDBED_BACKEND") or "auto"
    threads = _number(threads, "threads", "SEEDBED_THREADS", least=1)
    device = _number(device, "device", "SEEDBED_DEVICE", least=0)
    if name not in _NAMES:
        raise ValueError(f"backend: unknown backend {name!r}; use one of {', '.join(_NAMES)}")
    if name == "numpy":
        return _open_numpy(threads, "requested")
    if name == "numba":
        return _open_numba(threads, "requested")
    if name == "cupy":
        return open_cupy(threads, device)
    return _open_fastest(threads, device)


def open_cupy(threads: int | None = None, device: int | None = None, reason: str = "requested") -> CupyBackend:
    """Opens the GPU backend; the arguments are those of `open_backend`.

    Raises:
        ValueError: It is unavailable here; the message says what to do.
    """
    from .cuda_device import CudaDevice, NoDevice  # noqa: PLC0415 - imported only when chosen
    from .cupy import CupyBackend  # noqa: PLC0415

    device = _number(device, "device", "SEEDBED_DEVICE", least=0)
    try:
        open_cpu = partial(_open_fastest_cpu, threads, "for orthogonal matrices")
        backend = CupyBackend(CudaDevice(device), open_cpu, reason)
        backend.check(_open_numpy(1, "the reference"))
    except NoDevice as error:
        raise ValueError(f"backend: cupy cannot be used: {error}") from error
    return backend


def gpu_count() -> int:
    """The number of GPUs that the driver reports; 0 if cupy is not installed."""
    if _why_no_gpu() is not None:
        return 0
    driver, count = ctypes.CDLL(_DRIVER), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _open_fastest(threads: int | None, device: int | None) -> Backend:
    obstacle = _why_no_gpu()
    if obstacle is None or device is not None:  # an explicit device is never replaced by the CPU
        try:
            return open_cupy(threads, device, "the fastest, since there is a GPU")
        except ValueError as error:
            if device is not None:
                raise
            obstacle = str(error)
    return _open_fastest_cpu(threads, f"the fastest without a GPU: {obstacle}")


def _why_no_gpu() -> str | None:
    """Why cupy is unavailable, as far as is known without importing it, which takes half a second."""
    if importlib.util.find_spec("cupy") is None:
        return "cupy is not installed"
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return "there is no NVIDIA driver"
    return None


def _open_fastest_cpu(threads: int | None, reason: str) -> Backend:
    try:
        return _open_numba(threads, reason)
    except ValueError as error:
        return _open_numpy(threads, f"{error}; {reason}")


def _open_numpy(threads: int | None, reason: str) -> Backend:
    from .numpy import NumpyBackend  # noqa: PLC0415

    return NumpyBackend(threads, reason)


def _open_numba(threads: int | None, reason: str) -> Backend:
    try:
        from .numba import NumbaBackend  # noqa: PLC0415
        from .numba_fma import has_fma  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"backend: numba cannot be imported ({error}); run pip install 'seedbed[server]', or use numpy"
        ) from error
    if not has_fma():
        raise ValueError(
            "backend: numba needs a processor with fused multiply-add (x86-64 since 2013), which this one lacks; "
            "numpy gives the same bits, but is many times slower"
        )
    return NumbaBackend(threads, reason)


def _number(value: int | None, what: str, variable: str, least: int) -> int | None:
    """A number from the argument, or else from the environment."""
    if value is None and (text := os.environ.get(variable)):
        what = variable
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{variable}: {text!r} is not an integer; give {least} or more") from None
    if value is not None and value < least:
        raise ValueError(f"{what}: {value} is less than {least}; give {least} or more")
    return value
