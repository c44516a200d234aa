"""Making a stream's next message while gRPC sends the current one, as long as there are cores to spare."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

_CORES_A_STREAM: Final = 2  # what a stream keeps busy that makes one message while another is sent


class ReadAhead:
    """Makes messages of streams, each stream's in order and at most one of them ahead.

    A stream reads ahead only if every open stream could have two cores: otherwise all cores are busy anyway, and to
    pass the work to another thread would cost a fifth of the throughput. It follows that no more messages than half of
    the cores are ever held ahead, however many clients do not read.

    Args:
        cores: How many cores there are to use.

    >>> list(ReadAhead(4).messages(str, range(3)))
    ['0', '1', '2']
    """

    def __init__(self, cores: int) -> None:
        self._most_streams = cores // _CORES_A_STREAM
        self._pool = ThreadPoolExecutor(max(1, self._most_streams), "ahead")  # has no threads before it is used
        self._lock = threading.Lock()
        self._streams = 0

    def messages(self, make: Callable[[int], bytes], offsets: Sequence[int]) -> Iterator[bytes]:
        """The messages of a stream, one for each offset.

        Args:
            make: Makes the message of an offset, in whatever thread. What it raises is raised when its message is due.
            offsets: One or more. Of one message, none is ahead.
        """
        if len(offsets) == 1:
            yield make(offsets[0])
            return
        ahead: Future[bytes] | None = None
        self._count(1)
        try:
            for offset, following in itertools.pairwise(offsets):
                message = make(offset) if ahead is None else ahead.result()
                ahead = self._pool.submit(make, following) if self._streams <= self._most_streams else None
                yield message
                del message  # or it would live on while the next is made
            yield make(offsets[-1]) if ahead is None else ahead.result()
        finally:
            self._count(-1)
            if ahead is not None and not ahead.cancel():
                wait((ahead,))  # once a stream has ended, nothing is made for it

    def _count(self, change: int) -> None:
        with self._lock:
            self._streams += change
