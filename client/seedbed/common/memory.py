"""Tuning of the memory allocator for messages and chunks."""

from __future__ import annotations

import numpy as np

_MESSAGE_BYTES = 3 << 20
_HEADROOM = 5 << 20


def keep_freed_memory(byte_count: int = _MESSAGE_BYTES) -> None:
    """Make glibc reuse the memory of freed messages and chunks of up to ``byte_count`` bytes, at most 20 MiB.

    By default, glibc returns a freed block of this size to the kernel, which clears pages for the next one. Once a
    larger block has been freed, glibc keeps them: see M_MMAP_THRESHOLD in mallopt(3). Clearing pages took nearly half
    of the time of receiving.
    """
    np.empty(byte_count + _HEADROOM, np.uint8)
