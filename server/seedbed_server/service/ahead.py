"""Making a stream's next message while gRPC sends the current one, where cores are spare."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

_CORES_PER_STREAM: Final = 2  # one makes the next message while the other sends


class ReadAhead:
    """Makes the messages of streams in order, at most one per stream ahead of the one being sent.

    A stream reads ahead only while there are two cores for every open stream. Otherwise all cores are busy anyway, and
    handing the work to another thread would cost a fifth of the throughput. So at most half as many messages as cores
    are held ahead, however many clients do not read.

    Args:
        cores: The number of cores to use.

    >>> list(ReadAhead(4).messages(str, range(3)))
    ['0', '1', '2']
    """

    def __init__(self, cores: int) -> None:
        self._max_streams = cores // _CORES_PER_STREAM
        self._pool = ThreadPoolExecutor(max(1, self._max_streams), "ahead")  # starts no thread before it is used
        self._lock = threading.Lock()
        self._streams = 0

    def messages(self, make: Callable[[int], bytes], offsets: Sequence[int]) -> Iterator[bytes]:
        """The messages of a stream, one per offset.

        Args:
            make: Makes the message at an offset, in any thread. An exception is raised when its message is due.
            offsets: One or more offsets. A single message is made by the calling thread.
        """
        if len(offsets) == 1:
            yield make(offsets[0])
            return
        ahead: Future[bytes] | None = None
        self._count(1)
        try:
            for offset, following in itertools.pairwise(offsets):
                message = make(offset) if ahead is None else ahead.result()
                ahead = self._pool.submit(make, following) if self._streams <= self._max_streams else None
                yield message
                del message  # otherwise it stays in memory while the next is made
            yield make(offsets[-1]) if ahead is None else ahead.result()
        finally:
            self._count(-1)
            if ahead is not None and not ahead.cancel():
                wait((ahead,))  # nothing is made for a stream after it has ended

    def _count(self, change: int) -> None:
        with self._lock:
            self._streams += change
