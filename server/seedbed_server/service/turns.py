"""Who may sample now: no more streams at once than there are cores, one after the other."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """Lets a number of threads through at once, in the order in which they came.

    `threading.Semaphore` gives a turn to whoever asks next, which is often the thread that has just given it back: of
    256 streams the slowest then got a seventh of the fastest.

    Args:
        count: How many may be within the block at once.

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
            turn.acquire()  # until whoever leaves releases it
        except BaseException:  # the interrupt of a caller in this process
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
        self.__exit__()  # it had come in the meantime
