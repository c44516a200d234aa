"""Signals of a process, awaited in its main thread."""

from __future__ import annotations

import contextlib
import os
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
            with _handled(numbers, lambda *_: None):
                yield wait
        finally:
            signal.set_wakeup_fd(previous_fd)


def ending(*numbers: signal.Signals) -> contextlib.AbstractContextManager[None]:
    """For the length of the block, each of the signals ends the process at once, with 128 and its number.

    For work that an exception would lose its way in, such as a compiler's. The default action would do, but Linux
    spares process 1, which a container's server is.
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
