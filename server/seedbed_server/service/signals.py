"""Waiting for signals in the main thread."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence


@contextlib.contextmanager
def awaited(*numbers: signal.Signals) -> Iterator[Callable[[], int]]:
    """Yields a function that waits for one of the signals, which have no other effect within the block.

    It reads them from a socket. A handler that sets an Event may never run, or may deadlock, if the signal arrives just
    as the main thread begins to wait for the Event.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def wait() -> int:
            while (number := reader.recv(1)[0]) not in numbers:
                pass
            return number

        try:
            with _handled(numbers, lambda *_: None):
                yield wait
        finally:
            signal.set_wakeup_fd(previous_fd)


def ending(*numbers: signal.Signals) -> contextlib.AbstractContextManager[None]:
    """Within the block, each of the signals ends the process at once, with exit code 128 plus the signal's number.

    For code through which an exception would not propagate, such as a compiler. The default action is not enough:
    Linux does not apply it to process 1, which is what the server is in a container.
    """
    return _handled(numbers, lambda number, _frame: os._exit(128 + number))


@contextlib.contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Callable[..., None]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
