"""How many worker processes make the most of a machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seedbed_server import engine

# On 16 cores, 16 clients got 3.0 GB/s from one process, 6.3 from 4 and 7.5 from 8, of the 7.7 that gRPC alone passes: a
# process makes use of two cores, of which one samples while the other sends. Few machines send what 16 of them make.
_CORES_EACH: Final = 2
_MOST: Final = 16
_BYTES_EACH: Final = 512 << 20  # with 256 streams
_MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")  # of a container, as it sees it


def worker_count(listen: Sequence[str], backend: str | None, device: int | None) -> int:
    """How many workers to start if nobody says.

    Args:
        listen: Where they are to listen.
        backend: As for `engine.open_backend`.
        device: Likewise.

    Returns:
        One for each two cores and 512 MiB of a container, at most 16; of a server that samples on GPUs, one for each of
        them. One if processes cannot share the addresses.
    """
    if sys.platform != "linux" or any(address.startswith("unix:") for address in listen):
        return 1  # elsewhere SO_REUSEPORT gives all clients to one of them, and sockets have no such thing
    if gpus := _gpu_count(backend):
        is_chosen = device is not None or os.environ.get("SEEDBED_DEVICE")
        return 1 if is_chosen else gpus
    return max(1, min(engine.usable_cores() // _CORES_EACH, _memory() // _BYTES_EACH, _MOST))


def device_of(index: int, backend: str | None, device: int | None) -> int | None:
    """Which GPU a worker samples on: each on the next one, unless somebody says.

    Args:
        index: Which worker, counted from 0.
        backend: As for `engine.open_backend`.
        device: Likewise.
    """
    if device is not None or os.environ.get("SEEDBED_DEVICE"):
        return device
    gpus = _gpu_count(backend)
    return index % gpus if gpus > 1 else None


def _gpu_count(backend: str | None) -> int:
    name = backend or os.environ.get("SEEDBED_BACKEND") or "auto"
    return engine.gpu_count() if name in ("auto", "cupy") else 0


def _memory() -> int:
    try:
        return int(_MEMORY_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there are no control groups, or no limit: "max"
        return sys.maxsize
