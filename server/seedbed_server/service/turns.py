"""A fair semaphore: at most as many threads sample as there are cores, in the order in which they ask."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """Admits a fixed number of threads at once, first come, first served.

    `threading.Semaphore` is unfair: it often admits the thread that has just released it. With 256 streams, the slowest
    got a seventh of the throughput of the fastest.

    Args:
        count: The number of threads that may be in the block at once.

    >>> turns = Turns(1)
    >>> with turns:
    ...     pass
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()  # blocks until a thread that leaves releases it
        except BaseException:  # such as KeyboardInterrupt in a program that samples in its own process
            self._give_up(turn)
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _give_up(self, turn: threading.Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self.__exit__()  # the turn arrived in the meantime: pass it on
