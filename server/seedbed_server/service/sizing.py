"""How many workers to start, and which GPU each of them uses."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from seedbed_server import engine
from seedbed_server.service.settings import Settings

# Measured on 16 cores with 16 clients: 1 process 3.0 GB/s, 4 processes 6.3 GB/s, 8 processes 7.5 GB/s, and gRPC alone
# 7.7 GB/s. A process uses two cores: one samples while the other sends. Few machines can send what 16 processes make.
_CORES_PER_WORKER: Final = 2
_MAX_WORKERS: Final = 16
_BYTES_PER_WORKER: Final = 512 << 20  # with 256 open streams
_MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")  # as seen from within a container


def worker_count(settings: Settings) -> int:
    """The number of workers to start.

    Args:
        settings: The number of workers, the addresses and the backend.

    Returns:
        The number in the settings. For ``auto``, one per GPU, or else one per two cores and per 512 MiB of the
        container's memory, at most 16; but one if processes cannot share the addresses.
    """
    if settings.workers != "auto":
        return settings.workers
    if sys.platform != "linux" or any(address.startswith("unix:") for address in settings.listen):
        return 1  # other systems give all connections to one process, and Unix sockets cannot be shared
    if gpus := _gpu_count(settings.backend):
        return 1 if _is_device_chosen(settings) else gpus
    return max(1, min(engine.usable_cores() // _CORES_PER_WORKER, _memory() // _BYTES_PER_WORKER, _MAX_WORKERS))


def worker_threads(settings: Settings, workers: int) -> int | None:
    """The threads of each worker: an equal share of the cores, unless the settings or the environment say otherwise."""
    if settings.threads or os.environ.get("SEEDBED_THREADS"):
        return settings.threads
    return max(1, engine.usable_cores() // workers)


def worker_device(settings: Settings, index: int) -> int | None:
    """The GPU of a worker: the next one for each worker, unless the settings or the environment say otherwise.

    Args:
        settings: The backend and the device.
        index: The worker's index, from 0.
    """
    if _is_device_chosen(settings):
        return settings.device
    gpus = _gpu_count(settings.backend)
    return index % gpus if gpus > 1 else None


def _is_device_chosen(settings: Settings) -> bool:
    return settings.device is not None or bool(os.environ.get("SEEDBED_DEVICE"))


def _gpu_count(backend: str | None) -> int:
    name = backend or os.environ.get("SEEDBED_BACKEND") or "auto"
    return engine.gpu_count() if name in ("auto", "cupy") else 0


def _memory() -> int:
    try:
        return int(_MEMORY_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no control groups, or no limit: "max"
        return sys.maxsize
