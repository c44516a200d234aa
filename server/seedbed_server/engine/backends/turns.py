"""Runs long tasks on several threads; each thread takes the next task when it is free."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from typing import Protocol, TypeVar

from ..errors import Cancelled
from .base import IsCancelled, Watch

Check = Callable[[], None]
"""Raises `Cancelled` if the work must end."""

T = TypeVar("T")

_PATIENCE = 0.02
"""Seconds between polls of ``cancelled`` while other threads finish the last tasks."""


class ForEach(Protocol):
    """Does work for each task, on all threads; when it returns or raises, no thread is at work any more."""

    def __call__(
        self, work: Callable[[T, Check], None], tasks: Iterable[T], /, *, reports_progress: bool = False
    ) -> None: ...


def take_turns(
    pool: Executor | None,
    threads: int,
    cancelled: IsCancelled,
    work: Callable[[T, Check], None],
    tasks: Iterable[T],
    *,
    reports_progress: bool = False,
) -> None:
    """Does all tasks on this thread and on the idle threads of a pool.

    Args:
        pool: The other threads; they may be busy with other work for any time.
        threads: The most threads to use, this one included.
        cancelled: Polled by this thread only.
        work: Called with a task and a `Check`, which it must call often: it raises when another task has failed.
        tasks: The tasks, in the order in which they are started.
        reports_progress: Whether to report the fraction of finished tasks to ``cancelled``, if that is a `Watch`.

    Raises:
        Cancelled: ``cancelled()`` is true.
    """
    left, stopped = deque(tasks), threading.Event()
    count, finished = len(left), deque[None]()

    def check_stopped() -> None:
        if stopped.is_set():
            raise Cancelled

    def check_cancelled() -> None:
        if stopped.is_set() or cancelled():
            raise Cancelled
        if reports_progress and isinstance(cancelled, Watch):
            cancelled.report(len(finished) / count)

    def work_on(check: Check) -> None:
        try:
            while left:
                try:
                    task = left.popleft()
                except IndexError:  # another thread took the last
                    return
                work(task, check)
                finished.append(None)
        except BaseException:
            stopped.set()
            raise

    helpers = min(threads, len(left)) - 1 if pool else 0
    futures = [pool.submit(work_on, check_stopped) for _ in range(helpers) if pool]
    errors: list[BaseException] = []
    try:
        work_on(check_cancelled)
        while wait([future for future in futures if not future.cancel()], _PATIENCE).not_done:
            check_cancelled()
    except BaseException as raised:
        stopped.set()
        errors.append(raised)
    errors += [error for future in futures if not future.cancel() and (error := future.exception())]
    if errors:  # an error takes precedence over the cancellations that it causes
        raise min(errors, key=lambda error: isinstance(error, Cancelled))
