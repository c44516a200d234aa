"""Signals of a process, awaited in its main thread."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence


@contextlib.contextmanager
def awaited(*numbers: signal.Signals) -> Iterator[Callable[[], int]]:
    """Gives a function that waits for one of the signals, which until the end of the block do nothing else.

    Through a socket, because a handler that sets an Event is not run, or deadlocks, if the signal comes just as the
    main thread begins to wait for the Event.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def wait() -> int:  # for which signal came
            while (number := reader.recv(1)[0]) not in numbers:
                pass
            return number

        try:
            with handled(numbers, lambda *_: None):
                yield wait
        finally:
            signal.set_wakeup_fd(previous_fd)


@contextlib.contextmanager
def handled(numbers: Sequence[signal.Signals], handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Gives signals a handler for the length of the block."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
