"""Admission of streams: how many may be open, and whose turn is next when the server is full."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

import grpc

from seedbed.common.status import ServiceError
from seedbed.v1.metadata import TICKET
from seedbed_server.service.errors import resource_exhausted

_MAX_TICKET_LENGTH: Final = 32
_MAX_WAITING: Final = (
    8192  # tickets of some 300 bytes each; beyond that, a call is refused without a place in the queue
)
_MIN_DELAY, _MAX_DELAY = 0.05, 5.0  # seconds until a client should retry
_JITTER: Final = 0.25  # clients add up to this share of the delay
_GRACE: Final = 1.0  # seconds; for the network and for busy machines
_RETRIES_PER_SECOND: Final = 200  # cost a server almost nothing
_SWEEP_INTERVAL: Final = 1.0
_INITIAL_DURATION: Final = 0.1
_WEIGHT: Final = 1 / 8  # of the stream that ended last, in the moving average of durations


class _Waiter(NamedTuple):
    """A call that was told to retry."""

    number: int
    """The position in the queue, by first attempt."""
    client: str
    due: float
    until: float
    """When it is no longer expected to retry."""

    def is_due(self, now: float) -> bool:
        return self.due - _MIN_DELAY <= now <= self.until


class StreamAdmission:
    """Counts open streams and enforces their limits, in all and per client.

    A refused call is told when to retry, and its ticket is remembered in the order of first attempts. A free place is
    held for the first calls in the queue that are due, for about a second: a client that never returns costs no more
    than that, and a client that lies about its ticket can only lose its own turn.

    Args:
        limit: The maximum number of open streams.
        limit_per_client: The maximum per client host; 0 for no limit.
    """

    def __init__(self, limit: int, limit_per_client: int = 0) -> None:
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._lock = threading.Lock()
        self._count_per_client: Counter[str] = Counter()
        self._waiting: dict[str, _Waiter] = {}  # by ticket, in queue order
        self._numbers = itertools.count()
        self._next_sweep = 0.0
        self._duration = _INITIAL_DURATION  # moving average, in seconds
        self._last_change = 0.0  # when a stream last began or ended
        self.count = 0

    def enter(self, context: grpc.ServicerContext) -> None:
        """Admits a stream, and counts it until gRPC has finished with it.

        Raises:
            ServiceError: The server is full; carries the time to retry after.
        """
        client = _host(context.peer()) if self._limit_per_client else ""
        ticket, now = _ticket(context.invocation_metadata()), time.monotonic()
        with self._lock:
            if not self._has_place(ticket, client, now):
                raise self._refusal(ticket, client, now)
            self._waiting.pop(ticket, None)
            self._last_change = now
            self.count += 1
            self._count_per_client[client] += 1
        if not context.add_callback(lambda: self._leave(client, now)):
            self._leave(client, now)  # the client has already disconnected

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
        return (self._limit_per_client or self._limit) - self._count_per_client[client]

    def _refusal(self, ticket: str, client: str, now: float) -> ServiceError:
        self._sweep(now)
        waiter = self._waiting.get(ticket)
        number = next(self._numbers) if waiter is None else waiter.number
        delay = self._delay(number, now)
        if ticket and (waiter or len(self._waiting) < _MAX_WAITING):
            until = now + (1 + _JITTER) * delay + _GRACE
            self._waiting[ticket] = _Waiter(number, client, now + delay, until)
        if self._limit_per_client and self._places_of(client) <= 0:
            return resource_exhausted(
                f"{client} is at the limit of {self._limit_per_client} streams per client (max_streams_per_client); "
                "retry once one of them has ended",
                delay,
            )
        return resource_exhausted(f"the server is at its limit of {self._limit} streams; retry later", delay)

    def _delay(self, number: int, now: float) -> float:
        """The estimated time until a waiter's turn, if places become free one by one; shorter while few wait."""
        first = next(iter(self._waiting.values())).number if self._waiting else number
        places = min(self._limit, self._limit_per_client or self._limit)
        duration = max(self._duration, now - self._last_change)  # streams that began together also end together
        turn = (number - first + 1) * duration / places
        return max(_MIN_DELAY, min(turn, len(self._waiting) / _RETRIES_PER_SECOND, _MAX_DELAY))

    def _sweep(self, now: float) -> None:
        """Removes waiters that did not retry in time."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_INTERVAL
        self._waiting = {ticket: waiter for ticket, waiter in self._waiting.items() if now <= waiter.until}

    def _leave(self, client: str, entered: float) -> None:
        with self._lock:
            self._last_change = time.monotonic()
            self._duration += _WEIGHT * (self._last_change - entered - self._duration)
            self.count -= 1
            self._count_per_client[client] -= 1
            if not self._count_per_client[client]:
                del self._count_per_client[client]  # otherwise every host that ever connected is kept


def _ticket(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The ticket that a client shows with each attempt of a call; "" if there is none or it is too long."""
    value = next((value for key, value in metadata or () if key == TICKET), "")
    return value if isinstance(value, str) and len(value) <= _MAX_TICKET_LENGTH else ""


def _host(peer: str) -> str:
    """The client without its port, which differs between its connections.

    >>> _host("ipv4:10.0.0.7:41234"), _host("unix:")
    ('ipv4:10.0.0.7', 'unix:')
    """
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]
