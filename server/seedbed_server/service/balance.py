"""Even loads for the workers of a server, whose connections the kernel divides by chance.

The workers share a table of how many streams each has. One that has more than another sends those calls on that say
that they may move, as our client's do: on a new connection they come to another worker, or back. The client counts how
often, so that each call is served after a few attempts.
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
_MOVE: Final = "another worker of this server has fewer streams; connect anew"


def table_file(workers: int) -> int:
    """The file descriptor of memory for the table of so many workers, of which none serves yet.

    >>> counts_in(table_file(2)).tolist()
    [-1, -1]
    """
    file = os.memfd_create("seedbed-streams")
    os.write(file, array("i", [_NOT_SERVING] * workers).tobytes())
    return file


def counts_in(file: int) -> memoryview[int]:
    """The table: how many streams each worker has, in all processes that open the file."""
    return memoryview(mmap.mmap(file, 0)).cast("i")


class Balance:
    """Counts the streams of one worker, and sends calls on while another one has fewer.

    Args:
        counts: The shared table.
        index: Which worker, counted from 0.
    """

    def __init__(self, counts: memoryview[int], index: int) -> None:
        self._counts = counts
        self._index = index
        self._lock = threading.Lock()
        self._count = 0
        counts[index] = _NOT_SERVING  # and not what a predecessor that died left behind

    def start(self) -> None:
        """Calls can come."""
        with self._lock:
            self._counts[self._index] = self._count

    def stop(self) -> None:
        """Calls can come no longer."""
        with self._lock:
            self._counts[self._index] = _NOT_SERVING

    def enter(self, context: grpc.ServicerContext) -> None:
        """Counts a stream until gRPC is done with it, or ends the call so that it moves.

        Args:
            context: gRPC's side of it.
        """
        with self._lock:
            moves = self._has_more_than_another() and _may_move(context.invocation_metadata())
            if not moves:
                self._change(1)
        if moves:
            context.set_trailing_metadata(((MOVE, "1"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, _MOVE)
        if not context.add_callback(self._leave):
            self._leave()  # the client has gone already

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
