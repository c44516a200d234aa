"""Even loads for the workers of a server, among which the kernel distributes connections at random.

The workers share a table with the number of streams of each. A worker that has more streams than another refuses calls
that may move, as long calls of Seedbed's clients may; the client repeats the call on a new connection, which reaches a
worker at random. The client limits how often a call moves, so every call is served after a few attempts.
"""

from __future__ import annotations

import mmap
import os
import threading
from array import array
from collections.abc import Iterable
from typing import Final

import grpc

from seedbed.v1.metadata import MAY_MOVE, MOVE

_NOT_SERVING: Final = -1
_MOVE_MESSAGE: Final = "another worker of this server has fewer streams; reconnect"


def table_file(workers: int) -> int:
    """Creates the table in shared memory, with no worker serving yet.

    Returns:
        Its file descriptor.

    >>> counts_in(table_file(2)).tolist()
    [-1, -1]
    """
    file = os.memfd_create("seedbed-streams")
    os.write(file, array("i", [_NOT_SERVING] * workers).tobytes())
    return file


def counts_in(file: int) -> memoryview[int]:
    """Maps the table: the number of streams of each worker, shared by all processes that map the file."""
    return memoryview(mmap.mmap(file, 0)).cast("i")


class Balance:
    """Counts the streams of one worker, and moves calls while another worker has fewer.

    Args:
        counts: The shared table.
        index: The worker's index, from 0.
    """

    def __init__(self, counts: memoryview[int], index: int) -> None:
        self._counts = counts
        self._index = index
        self._lock = threading.Lock()
        self._count = 0
        counts[index] = _NOT_SERVING  # clears the count of a predecessor that died

    def start(self) -> None:
        """Announces that the worker accepts calls."""
        with self._lock:
            self._counts[self._index] = self._count

    def stop(self) -> None:
        """Announces that the worker accepts no more calls."""
        with self._lock:
            self._counts[self._index] = _NOT_SERVING

    def enter(self, context: grpc.ServicerContext) -> None:
        """Counts a stream until gRPC has finished with it, or aborts the call so that the client moves it.

        Args:
            context: The call's gRPC context.
        """
        with self._lock:
            moves = self._has_more_than_another() and _may_move(context.invocation_metadata())
            if not moves:
                self._change(1)
        if moves:
            context.set_trailing_metadata(((MOVE, "1"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, _MOVE_MESSAGE)
        if not context.add_callback(self._leave):
            self._leave()  # the client has already disconnected

    def _has_more_than_another(self) -> bool:
        return any(0 <= count < self._count for count in self._counts)

    def _leave(self) -> None:
        with self._lock:
            self._change(-1)

    def _change(self, change: int) -> None:
        self._count += change
        if self._counts[self._index] != _NOT_SERVING:
            self._counts[self._index] = self._count


def _may_move(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    return any(key == MAY_MOVE and value != "0" for key, value in metadata or ())
