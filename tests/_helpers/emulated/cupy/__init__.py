"""A GPU emulated by threads: the part of CuPy that Seedbed uses, for machines without a GPU.

With the parent folder on the path, ``import cupy`` finds this package. A C++ compiler compiles the kernels from the
same source, and they run on the CPU. As on a GPU, work on a stream runs later, in order; without synchronising, one
reads garbage. Memory is limited to EMULATED_GPU_BYTES (default 1 GiB) on each of EMULATED_GPUS devices (default 1).
"""

from __future__ import annotations

from . import cuda
from ._array import empty, from_dlpack, ndarray

__all__ = ["cuda", "empty", "from_dlpack", "ndarray"]
