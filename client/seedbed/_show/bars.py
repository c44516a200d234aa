"""What ``progress=True`` draws: the bar of the command line, on standard error or in the notebook."""

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
"""Seconds between two pictures of a bar in a notebook, which go through its kernel's messages."""


def rich_progress() -> RichProgress:
    """A bar with its bytes, speed and time left, which is not drawn yet.

    Raises:
        ImportError: rich is not installed.
    """
    from rich.console import Console  # noqa: PLC0415 - rich is a part of the extra "cli"
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
        redirect_stdout=sys.stdout.isatty(),  # or what a program prints to a file would go to the terminal
        expand=True,
    )


def reporter(progress: Progress | bool | None, label: str) -> Progress | None:
    """What is to be called with the bytes done and their total.

    Args:
        progress: What the caller gave.
        label: What a bar calls the work.

    Raises:
        InvalidRequest: It is True and there is nothing to draw with, or neither a function nor a truth value.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return Bar(label)
    if not callable(progress):
        remedy = "give a function of the bytes done and their total, or True for a bar"
        raise InvalidRequest("progress", f"is a {type(progress).__name__}; {remedy}")
    return progress


class Bar:
    """A bar that appears with the first bytes, and goes away if the work fails.

    Args:
        label: What it calls the work.

    Raises:
        InvalidRequest: If rich is not installed.
    """

    def __init__(self, label: str) -> None:
        check()
        self._label = label
        self._task: TaskID | None = None
        self._is_closed = False

    def __call__(self, done: int, total: int) -> None:
        if self._is_closed:
            return
        if self._task is None:
            self._task = _SHOWN.add(self._label)
        _SHOWN.update(self._task, done, total)

    def close(self, *, is_done: bool) -> None:
        """Ends it: it stays if the work is done, and else goes away."""
        self._is_closed = True
        if self._task is not None:
            _SHOWN.end(self._task, is_kept=is_done)


def check() -> None:
    """Refuses to draw where that cannot be.

    Raises:
        InvalidRequest: If rich is not installed.
    """
    try:
        import rich.progress  # noqa: F401, PLC0415
    except ImportError:
        raise InvalidRequest(
            "progress",
            "True draws a bar with rich, which is not installed; pip install 'seedbed[cli]', or give a function",
        ) from None


class _Shown:
    """The bars of this process, one below the other: calls may run at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[TaskID] = set()
        self._bars: RichProgress
        self._notebook: _Notebook | None = None

    def add(self, label: str) -> TaskID:
        """Begins a bar."""
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
        """Moves a bar on."""
        self._bars.update(task, completed=done, total=total)
        if self._notebook is not None:
            self._notebook.draw()

    def end(self, task: TaskID, *, is_kept: bool) -> None:
        """Ends a bar; with the last one, drawing ends."""
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
                self._bars.live.stop()  # the bars' own would leave an empty line in a file


_SHOWN: Final = _Shown()


class _Notebook:
    """Bars in a notebook: rich makes the picture, which IPython exchanges; rich by itself would need ipywidgets.

    Args:
        bars: What is drawn.
    """

    def __init__(self, bars: RichProgress) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - a notebook has it

        self._bars = bars
        self._nothing = HTML("")
        self._handle: Any = display(bars, display_id=True)
        self._due = 0.0

    def draw(self, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if is_last or now >= self._due:
            self._due = now + _NOTEBOOK_INTERVAL
            self._handle.update(self._bars if self._bars.tasks else self._nothing)


@contextlib.contextmanager
def drawn(report: Progress | None) -> Iterator[None]:
    """Ends a bar with a ``with`` block, however that ends."""
    if not isinstance(report, Bar):
        yield
        return
    try:
        yield
    except BaseException:
        report.close(is_done=False)
        raise
    report.close(is_done=True)


def of_arrays(report: Progress | None, arrays: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """The arrays, with a bar that ends when they do."""
    return _drawing(report, arrays) if isinstance(report, Bar) else arrays


def _drawing(report: Bar, arrays: Generator[_T, None, None]) -> Generator[_T, None, None]:
    with drawn(report), contextlib.closing(arrays):
        yield from arrays


def of_arrays_to_come(report: Progress | None, arrays: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """As `of_arrays`, for coroutines."""
    return _drawing_to_come(report, arrays) if isinstance(report, Bar) else arrays


async def _drawing_to_come(report: Bar, arrays: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    with drawn(report):
        async with contextlib.aclosing(arrays):
            async for finished in arrays:
                yield finished
                del finished  # or it would live on while the next is made


async def of_array_to_come(report: Progress | None, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """What a coroutine gives, with a bar that ends when it does."""
    with drawn(report):
        return await make()
