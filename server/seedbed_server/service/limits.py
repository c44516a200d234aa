"""What a server does not let its clients do: open too many streams, or hold one without reading."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import grpc

from seedbed_server.service.errors import resource_exhausted

_LONGEST_WAIT: Final = 1.0  # seconds between two looks at the streams

_log = logging.getLogger(__name__)


class Streams:
    """Counts the open streams, of which there may be a limited number in all and for each client.

    Args:
        limit: The most in all.
        limit_per_client: The most of one host; 0 for no limit.
    """

    def __init__(self, limit: int, limit_per_client: int = 0) -> None:
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._lock = threading.Lock()
        self._of_client: Counter[str] = Counter()
        self.count = 0

    def enter(self, context: grpc.ServicerContext) -> None:
        """Counts a stream until gRPC is done with it.

        Raises:
            ServiceError: There are as many as there may be.
        """
        client = _host(context.peer()) if self._limit_per_client else ""
        with self._lock:
            self._check(client)
            self.count += 1
            self._of_client[client] += 1
        if not context.add_callback(lambda: self._leave(client)):
            self._leave(client)  # the client has gone already

    def _check(self, client: str) -> None:
        if self.count == self._limit:
            raise resource_exhausted(f"the server is at its limit of {self._limit} streams; try again later")
        if self._limit_per_client and self._of_client[client] == self._limit_per_client:
            raise resource_exhausted(
                f"{client} is at the limit of {self._limit_per_client} streams for each client "
                "(max_streams_per_client); try again once one of them has ended"
            )

    def _leave(self, client: str) -> None:
        with self._lock:
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


def _host(peer: str) -> str:
    """The client without its port, which is another one for each connection.

    >>> _host("ipv4:10.0.0.7:41234"), _host("unix:")
    ('ipv4:10.0.0.7', 'unix:')
    """
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]
