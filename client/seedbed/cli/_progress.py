"""Progress bars of the commands, on standard error, so that they never mix with a command's output."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from seedbed._show.bars import rich_progress

Report = Callable[[int, int], None]
Add = Callable[[int], None]

PATIENCE = 0.5  # seconds before a bar appears; shorter work needs none
_INTERVAL = 0.05  # seconds between two reports; updating a bar costs more than a piece


@contextlib.contextmanager
def progress(label: str, show: bool | None) -> Iterator[Report]:
    """Yields a function that takes the bytes done and the total bytes, and draws the bar.

    Args:
        label: The label of the bar.
        show: True draws at once, False never, None if the work is long and standard error is a terminal.
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield lambda done, total: None
        return
    bar = rich_progress()
    task = bar.add_task(label, total=None)
    visible_from = time.monotonic() + (0 if show else PATIENCE)

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
    """A function that takes the bytes just done, for threads that share a bar."""
    lock = threading.Lock()
    done, next_report = 0, 0.0

    def add(count: int) -> None:
        nonlocal done, next_report
        with lock:
            done += count
            now = time.monotonic()
            if now < next_report and done < total:
                return
            next_report = now + _INTERVAL
            report(done, total)

    return add
