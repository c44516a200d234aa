"""How a call that a busy worker of a server refuses comes to another one: by a new connection, dealt anew.

The client tells with a call how often it may be sent on; whoever cannot be is served where it came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from seedbed._ask import regions
from seedbed.v1 import TensorSlice
from seedbed.v1 import metadata as keys

_MOST: Final = 32
"""After so many, one of 8 workers that has fewer streams than the others was missed once in 70 times."""
_BYTES_EACH: Final = 8 << 20
"""What takes several times as long to send as a new connection takes to make."""

Channel = TypeVar("Channel")


def moves(wanted: Iterable[TensorSlice]) -> int:
    """How often a call for these may move without being much slower."""
    byte_count = 0
    for part in wanted:
        byte_count += regions.byte_count(part) if regions.is_sound(part) else 0
        if byte_count >= _MOST * _BYTES_EACH:
            return _MOST
    return byte_count // _BYTES_EACH


class Route(NamedTuple):
    """How a stream is asked for."""

    connection: int = 0
    """The number of the connection, of those that `Transport.connections` gives."""
    moves: int = 0
    """How many times more a worker may send the call on to another, before it begins."""
    ticket: str = ""
    """By which a full server knows who asks again."""


def metadata(route: Route) -> tuple[tuple[str, str], ...]:
    """What a call carries that goes this way."""
    return *(((keys.MAY_MOVE, str(route.moves)),) if route.moves else ()), (keys.TICKET, route.ticket)


def is_told(error: Any) -> bool:  # noqa: ANN401 - what gRPC raises, with or without asyncio
    """Whether a call failed because it is to move."""
    return any(key == keys.MOVE for key, _ in error.trailing_metadata() or ())


class Moved(Exception):  # noqa: N818 - it is no failure
    """A call was sent on to another worker."""


@dataclass(eq=False)
class Connection(Generic[Channel]):
    """A channel, which shares its connection with none."""

    channel: Channel
    calls: int = 0
    is_replaced: bool = False


class Connections(Generic[Channel]):
    """The connections of a client: each is made when it is first used, and may be replaced while calls run on it.

    Args:
        connect: Makes a channel.
    """

    def __init__(self, connect: Callable[[], Channel]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._current: dict[int, Connection[Channel]] = {}
        self._is_closed = False
        self._replaced: set[Connection[Channel]] = set()  # those on which calls still run

    def take(self, index: int) -> Connection[Channel] | None:
        """The connection of this number, for a call; None if all are closed."""
        with self._lock:
            if self._is_closed:
                return None
            if index not in self._current:
                self._current[index] = Connection(self._connect())
            self._current[index].calls += 1
            return self._current[index]

    def replace(self, index: int, connection: Connection[Channel]) -> None:
        """Lets the next call have another one, unless it would have another one anyway."""
        with self._lock:
            if self._current.get(index) is connection:
                del self._current[index]
                connection.is_replaced = True
                self._replaced.add(connection)

    def give_back(self, connection: Connection[Channel]) -> Channel | None:
        """The call has ended.

        Returns:
            The channel, if it is to be closed.
        """
        with self._lock:
            connection.calls -= 1
            if connection.calls or not connection.is_replaced:
                return None
            self._replaced.discard(connection)
            return connection.channel

    def close(self) -> list[Channel]:
        """Makes no further ones.

        Returns:
            The channels, which are to be closed.
        """
        with self._lock:
            self._is_closed = True
            return [connection.channel for connection in (*self._current.values(), *self._replaced)]
