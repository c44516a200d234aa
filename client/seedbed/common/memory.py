"""How the memory allocator treats messages and chunks."""

from __future__ import annotations

import numpy as np

_MESSAGE_BYTES = 3 << 20
_ROOM_FOR_MORE = 5 << 20


def keep_freed_memory(byte_count: int = _MESSAGE_BYTES) -> None:
    """Spares new pages for each message or chunk of up to so many bytes, at most 20 MiB.

    glibc gives a freed block of such a size back to the kernel, which then has to clear pages for the next one, until
    a larger block was freed once: see M_MMAP_THRESHOLD in mallopt(3). Clearing them took nearly half of the time of
    receiving.
    """
    np.empty(byte_count + _ROOM_FOR_MORE, np.uint8)
