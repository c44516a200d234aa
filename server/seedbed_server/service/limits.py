"""What a server does not let its clients do: open too many streams, or hold one without reading."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import grpc

from seedbed.common.status import ServiceError
from seedbed.v1.metadata import TICKET
from seedbed_server.service.errors import resource_exhausted

_LONGEST_WAIT: Final = 1.0  # seconds between two looks at the streams

_LONGEST_TICKET: Final = 32
_MOST_WAITING: Final = 8192  # tickets, of some 300 bytes each; who comes then is told to come again, and forgotten
_SHORTEST_DELAY, _LONGEST_DELAY = 0.05, 5.0
_JITTER: Final = 0.25  # clients come up to so much later than told, of the delay
_GRACE: Final = 1.0  # seconds; for the way, and for machines that are busy
_ASKS_PER_SECOND: Final = 200  # which cost a server nearly nothing
_SWEEP_INTERVAL: Final = 1.0
_FIRST_GUESS: Final = 0.1
_WEIGHT: Final = 1 / 8  # of the stream that ended last

_log = logging.getLogger(__name__)


class _Waiter(NamedTuple):
    """A call that was told to come again."""

    number: int
    """In the order in which they came first."""
    client: str
    due: float
    until: float
    """When it is no longer expected."""

    def is_due(self, now: float) -> bool:
        return self.due - _SHORTEST_DELAY <= now <= self.until


class Streams:
    """Counts the open streams, of which there may be a limited number in all and for each client.

    Whoever finds no place is told when to come again, and remembered by the ticket that it showed, in the order in
    which tickets came first. A free place is kept for those in front that are due, for about a second: who never comes
    back costs no more than that, and who lies can only lose its own turn.

    Args:
        limit: The most in all.
        limit_per_client: The most of one host; 0 for no limit.
    """

    def __init__(self, limit: int, limit_per_client: int = 0) -> None:
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._lock = threading.Lock()
        self._of_client: Counter[str] = Counter()
        self._waiting: dict[str, _Waiter] = {}  # in the order of their numbers
        self._numbers = itertools.count()
        self._next_sweep = 0.0
        self._seconds = _FIRST_GUESS  # that a stream takes
        self._last_change = 0.0  # when a stream last began or ended
        self.count = 0

    def enter(self, context: grpc.ServicerContext) -> None:
        """Counts a stream until gRPC is done with it.

        Raises:
            ServiceError: There are as many as there may be.
        """
        client = _host(context.peer()) if self._limit_per_client else ""
        ticket, now = _ticket(context.invocation_metadata()), time.monotonic()
        with self._lock:
            if not self._has_place(ticket, client, now):
                raise self._refusal(ticket, client, now)
            self._waiting.pop(ticket, None)
            self._last_change = now
            self.count += 1
            self._of_client[client] += 1
        if not context.add_callback(lambda: self._leave(client, now)):
            self._leave(client, now)  # the client has gone already

    def _has_place(self, ticket: str, client: str, now: float) -> bool:
        places, places_of_client = self._limit - self.count, self._places_of(client)
        for other, waiter in self._waiting.items():
            if places <= 0 or places_of_client <= 0 or other == ticket:
                break
            if waiter.is_due(now) and self._places_of(waiter.client) > 0:
                places -= 1
                places_of_client -= waiter.client == client
        return places > 0 and places_of_client > 0

    def _places_of(self, client: str) -> int:
        return (self._limit_per_client or self._limit) - self._of_client[client]

    def _refusal(self, ticket: str, client: str, now: float) -> ServiceError:
        self._sweep(now)
        waiter = self._waiting.get(ticket)
        number = next(self._numbers) if waiter is None else waiter.number
        delay = self._delay(number, now)
        if ticket and (waiter or len(self._waiting) < _MOST_WAITING):
            until = now + (1 + _JITTER) * delay + _GRACE
            self._waiting[ticket] = _Waiter(number, client, now + delay, until)
        if self._limit_per_client and self._places_of(client) <= 0:
            return resource_exhausted(
                f"{client} is at the limit of {self._limit_per_client} streams for each client "
                "(max_streams_per_client); try again once one of them has ended",
                delay,
            )
        return resource_exhausted(f"the server is at its limit of {self._limit} streams; try again later", delay)

    def _delay(self, number: int, now: float) -> float:
        """When it may be this one's turn, as places become free one after the other; or sooner, if few wait."""
        first = next(iter(self._waiting.values())).number if self._waiting else number
        places = min(self._limit, self._limit_per_client or self._limit)
        seconds = max(self._seconds, now - self._last_change)  # all may have begun together, and end so
        turn = (number - first + 1) * seconds / places
        return max(_SHORTEST_DELAY, min(turn, len(self._waiting) / _ASKS_PER_SECOND, _LONGEST_DELAY))

    def _sweep(self, now: float) -> None:
        """Forgets who did not come back."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_INTERVAL
        self._waiting = {ticket: waiter for ticket, waiter in self._waiting.items() if now <= waiter.until}

    def _leave(self, client: str, began: float) -> None:
        with self._lock:
            self._last_change = time.monotonic()
            self._seconds += _WEIGHT * (self._last_change - began - self._seconds)
            self.count -= 1
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]  # else every host that ever came is kept


class StallGuard:
    """Ends streams whose clients have stopped reading: each would hold its thread for as long as it likes.

    A client that goes on later resumes where it was, as after any break.

    Args:
        timeout: Seconds that sending one message may take; 0 for no limit.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since: dict[grpc.ServicerContext, float] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Watches until it is closed."""
        if self._timeout:
            threading.Thread(target=self._watch, name="stall guard", daemon=True).start()

    def watched(self, context: grpc.ServicerContext, messages: Iterator[bytes]) -> Iterator[bytes]:
        """Passes messages on to gRPC, which comes back for the next one when one has been sent."""
        if not self._timeout:
            yield from messages
            return
        try:
            for message in messages:
                self._since[context] = time.monotonic()
                yield message
                del message  # or it would live on while the next is made
                self._since.pop(context, None)
        finally:
            self._since.pop(context, None)

    def close(self) -> None:
        """Watches no longer."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._timeout / 4, _LONGEST_WAIT)):
            latest = time.monotonic() - self._timeout
            for context, since in self._since.copy().items():
                if since < latest:
                    self._end(context)

    def _end(self, context: grpc.ServicerContext) -> None:
        if self._since.pop(context, None) is None:
            return  # sent in the meantime
        _log.warning("ending a stream to %s: nothing was read for %g s (stall_timeout)", context.peer(), self._timeout)
        context.cancel()  # type: ignore[no-untyped-call]


def _ticket(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """What a client shows again when it comes again; empty if that is nothing to remember."""
    value = next((value for key, value in metadata or () if key == TICKET), "")
    return value if isinstance(value, str) and len(value) <= _LONGEST_TICKET else ""


def _host(peer: str) -> str:
    """The client without its port, which is another one for each connection.

    >>> _host("ipv4:10.0.0.7:41234"), _host("unix:")
    ('ipv4:10.0.0.7', 'unix:')
    """
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]
