"""Rerouting: a call that a busy worker refuses is sent again over a new connection, which may reach another worker.

The request's metadata say how often the call may move. A call that may not is served where it arrived.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from seedbed._ask import regions
from seedbed.v1 import TensorSlice
from seedbed.v1 import metadata as keys

_MAX_MOVES: Final = 32
"""After this many, a call had missed the least busy of 8 workers once in 70 times."""
_BYTES_PER_MOVE: Final = 8 << 20
"""Takes several times as long to send as opening a connection."""

Channel = TypeVar("Channel")


def moves(slices: Iterable[TensorSlice]) -> int:
    """How often a call for these slices may move without becoming much slower."""
    byte_count = 0
    for tensor_slice in slices:
        byte_count += regions.byte_count(tensor_slice) if regions.is_sound(tensor_slice) else 0
        if byte_count >= _MAX_MOVES * _BYTES_PER_MOVE:
            return _MAX_MOVES
    return byte_count // _BYTES_PER_MOVE


class Route(NamedTuple):
    """The way of a stream's request."""

    connection: int = 0
    """The connection, one of `Transport.connections`."""
    moves: int = 0
    """How many more times a busy worker may have the call sent again, before the stream begins."""
    ticket: str = ""
    """Lets a full server recognise a call that it refused before."""


def metadata(route: Route) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with this route."""
    return *(((keys.MAY_MOVE, str(route.moves)),) if route.moves else ()), (keys.TICKET, route.ticket)


def is_move(error: Any) -> bool:  # noqa: ANN401 - an exception of grpc or grpc.aio
    """Whether a worker refused the call to have it sent again."""
    return any(key == keys.MOVE for key, _ in error.trailing_metadata() or ())


class Moved(Exception):  # noqa: N818 - not a failure
    """A worker refused the call, which has to be sent again over another connection."""


@dataclass(eq=False)
class Connection(Generic[Channel]):
    """A channel with its own connection."""

    channel: Channel
    calls: int = 0
    is_replaced: bool = False


class Connections(Generic[Channel]):
    """The connections of a client; each is opened on first use, and may be replaced while calls run on it.

    Args:
        connect: The function that opens a channel.
    """

    def __init__(self, connect: Callable[[], Channel]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._current: dict[int, Connection[Channel]] = {}
        self._is_closed = False
        self._replaced: set[Connection[Channel]] = set()  # those with calls that still run

    def take(self, index: int) -> Connection[Channel] | None:
        """Take the connection of this index for a call; None if all are closed."""
        with self._lock:
            if self._is_closed:
                return None
            if index not in self._current:
                self._current[index] = Connection(self._connect())
            self._current[index].calls += 1
            return self._current[index]

    def replace(self, index: int, connection: Connection[Channel]) -> None:
        """Make the next call open a new connection, unless the connection has been replaced already."""
        with self._lock:
            if self._current.get(index) is connection:
                del self._current[index]
                connection.is_replaced = True
                self._replaced.add(connection)

    def give_back(self, connection: Connection[Channel]) -> Channel | None:
        """Give back a connection after a call.

        Returns:
            The channel, if the caller has to close it.
        """
        with self._lock:
            connection.calls -= 1
            if connection.calls or not connection.is_replaced:
                return None
            self._replaced.discard(connection)
            return connection.channel

    def close(self) -> list[Channel]:
        """Refuse further calls.

        Returns:
            The channels, which the caller has to close.
        """
        with self._lock:
            self._is_closed = True
            return [connection.channel for connection in (*self._current.values(), *self._replaced)]
