"""The progress bar of ``progress=True`` and of the command line, on standard error or in a notebook."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from seedbed._types import Progress
from seedbed.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_T = TypeVar("_T")

_NOTEBOOK_INTERVAL: Final = 0.1
"""The minimum seconds between two updates of a bar in a notebook; each is a message of the kernel."""


def rich_progress() -> RichProgress:
    """A bar that shows bytes, speed and time left; it is not drawn yet.

    Raises:
        ImportError: If rich is not installed.
    """
    from rich.console import Console  # noqa: PLC0415 - rich comes with the extra "cli"
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # otherwise output redirected to a file would go to the terminal
        expand=True,
    )


def reporter(progress: Progress | bool | None, label: str) -> Progress | None:
    """The callback that takes the bytes done and the total bytes; None if progress is not reported.

    Args:
        progress: The caller's argument: a callback, True for a bar, False or None.
        label: The label of the bar.

    Raises:
        InvalidRequest: If it is True and rich is not installed, or if it is of another type.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return Bar(label)
    if not callable(progress):
        remedy = "give a function that takes the bytes done and the total, or True for a bar"
        raise InvalidRequest("progress", f"is a {type(progress).__name__}; {remedy}")
    return progress


class Bar:
    """A bar that appears with the first bytes, and disappears if the work fails.

    Args:
        label: The label of the bar.

    Raises:
        InvalidRequest: If rich is not installed.
    """

    def __init__(self, label: str) -> None:
        check_rich()
        self._label = label
        self._task: TaskID | None = None
        self._is_closed = False

    def __call__(self, done: int, total: int) -> None:
        if self._is_closed:
            return
        if self._task is None:
            self._task = _DISPLAY.add(self._label)
        _DISPLAY.update(self._task, done, total)

    def close(self, *, is_done: bool) -> None:
        """Closes the bar: it stays visible if the work is done, and disappears otherwise."""
        self._is_closed = True
        if self._task is not None:
            _DISPLAY.end(self._task, is_kept=is_done)


def check_rich() -> None:
    try:
        import rich.progress  # noqa: F401, PLC0415
    except ImportError:
        raise InvalidRequest(
            "progress",
            "True draws a bar with rich, which is not installed; pip install 'seedbed[cli]', or give a function",
        ) from None


class _Display:
    """The bars of this process, one below the other; calls may run concurrently."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[TaskID] = set()
        self._bars: RichProgress
        self._notebook: _Notebook | None = None

    def add(self, label: str) -> TaskID:
        """Adds a bar."""
        with self._lock:
            if not self._running:
                self._bars = rich_progress()
                self._notebook = _Notebook(self._bars) if self._bars.console.is_jupyter else None
                if self._notebook is None:
                    self._bars.start()
            task = self._bars.add_task(label, total=None)
            self._running.add(task)
            return task

    def update(self, task: TaskID, done: int, total: int) -> None:
        """Updates a bar."""
        self._bars.update(task, completed=done, total=total)
        if self._notebook is not None:
            self._notebook.draw()

    def end(self, task: TaskID, *, is_kept: bool) -> None:
        """Ends a bar, and drawing with the last one."""
        with self._lock:
            if not is_kept:
                self._bars.remove_task(task)
            self._running.discard(task)
            if self._running:
                return
            if self._notebook is not None:
                self._notebook.draw(is_last=True)
                return
            if self._bars.tasks:
                self._bars.stop()
            else:
                self._bars.live.transient = True
                self._bars.live.stop()  # the bars' own stop() would print an empty line to a file


_DISPLAY: Final = _Display()


class _Notebook:
    """Bars in a notebook: rich renders them, and IPython replaces the output. rich alone would need ipywidgets.

    Args:
        bars: The bars to draw.
    """

    def __init__(self, bars: RichProgress) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - notebooks only

        self._bars = bars
        self._blank = HTML("")
        self._handle: Any = display(bars, display_id=True)
        self._next_update = 0.0

    def draw(self, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if is_last or now >= self._next_update:
            self._next_update = now + _NOTEBOOK_INTERVAL
            self._handle.update(self._bars if self._bars.tasks else self._blank)


@contextlib.contextmanager
def closing_bar(report: Progress | None) -> Iterator[None]:
    """Closes a bar when the ``with`` block ends, whether it succeeds or fails."""
    if not isinstance(report, Bar):
        yield
        return
    try:
        yield
    except BaseException:
        report.close(is_done=False)
        raise
    report.close(is_done=True)


def with_bar(report: Progress | None, arrays: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """The arrays, with a bar that is closed after the last one."""
    return _iterate_with_bar(report, arrays) if isinstance(report, Bar) else arrays


def _iterate_with_bar(report: Bar, arrays: Generator[_T, None, None]) -> Generator[_T, None, None]:
    with closing_bar(report), contextlib.closing(arrays):
        yield from arrays


def with_bar_async(report: Progress | None, arrays: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """Like `with_bar`, for an asynchronous generator."""
    return _iterate_with_bar_async(report, arrays) if isinstance(report, Bar) else arrays


async def _iterate_with_bar_async(report: Bar, arrays: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    with closing_bar(report):
        async with contextlib.aclosing(arrays):
            async for array in arrays:
                yield array
                del array  # frees the array before the next one is allocated


async def await_with_bar(report: Progress | None, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """The result of a coroutine, with a bar that is closed when the coroutine ends."""
    with closing_bar(report):
        return await make()
