"""Ends streams whose clients have stopped reading: each would hold a thread and a place indefinitely."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Final

import grpc

_MAX_CHECK_INTERVAL: Final = 1.0  # seconds

_log = logging.getLogger(__name__)


class StallGuard:
    """Cancels streams that have been blocked on sending one message for too long.

    A client that reads on later resumes its stream, as after any broken connection.

    Args:
        timeout: The longest that sending one message may take, in seconds; 0 for no limit.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._sending_since: dict[grpc.ServicerContext, float] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts the thread that looks for stalled streams."""
        if self._timeout:
            threading.Thread(target=self._watch, name="stall guard", daemon=True).start()

    def watched(self, context: grpc.ServicerContext, messages: Iterator[bytes]) -> Iterator[bytes]:
        """Passes messages on to gRPC, which asks for the next one only once it has sent the last."""
        if not self._timeout:
            yield from messages
            return
        try:
            for message in messages:
                self._sending_since[context] = time.monotonic()
                yield message
                del message  # otherwise it stays in memory while the next is made
                self._sending_since.pop(context, None)
        finally:
            self._sending_since.pop(context, None)

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._timeout / 4, _MAX_CHECK_INTERVAL)):
            latest = time.monotonic() - self._timeout
            for context, since in self._sending_since.copy().items():
                if since < latest:
                    self._end(context)

    def _end(self, context: grpc.ServicerContext) -> None:
        if self._sending_since.pop(context, None) is None:
            return  # sent in the meantime
        _log.warning(
            "ending the stream to %s: the client read nothing for %g s (stall_timeout)", context.peer(), self._timeout
        )
        context.cancel()  # type: ignore[no-untyped-call]
