"""A GPU made of threads: what Seedbed uses of CuPy, for machines that have none.

Put the folder above this one on the path, and ``import cupy`` finds this package. Kernels are compiled by a C++
compiler, from the same source, and run on the CPU. As on a GPU, what is put on a stream is done later, in its order;
whoever does not wait reads rubbish. Memory is limited: EMULATED_GPU_BYTES (default 1 GiB) on each of EMULATED_GPUS
(default 1).
"""

from __future__ import annotations

from . import cuda
from ._array import empty, from_dlpack, ndarray

__all__ = ["cuda", "empty", "from_dlpack", "ndarray"]
