"""Progress in bytes, speed and time left: on standard error, so that it never mixes with a command's output."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from seedbed._show.bars import rich_progress

Report = Callable[[int, int], None]
Add = Callable[[int], None]

PATIENCE = 0.5  # seconds; what is done by then needs no bar
_INTERVAL = 0.05  # seconds between two reports; a bar costs more than a piece


@contextlib.contextmanager
def progress(label: str, wanted: bool | None) -> Iterator[Report]:
    """Yields a function of the bytes done and the bytes in all, which draws the bar.

    Args:
        label: what is going on.
        wanted: True draws at once, False never, None if the work is long and standard error is a terminal.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield lambda done, total: None
        return
    bar = rich_progress()
    task = bar.add_task(label, total=None)
    visible_from = time.monotonic() + (0 if wanted else PATIENCE)

    def report(done: int, total: int) -> None:
        if not bar.live.is_started and time.monotonic() >= visible_from:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


def adder(report: Report, total: int) -> Add:
    """Returns a function of the bytes just done, for threads that share a bar."""
    lock = threading.Lock()
    done, due = 0, 0.0

    def add(count: int) -> None:
        nonlocal done, due
        with lock:
            done += count
            now = time.monotonic()
            if now < due and done < total:
                return
            due = now + _INTERVAL
            report(done, total)

    return add
