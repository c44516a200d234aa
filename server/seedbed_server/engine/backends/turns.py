"""Long tasks of which each thread takes the next when it is free."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from typing import Protocol, TypeVar

from ..errors import Cancelled
from .base import IsCancelled, Watch

Check = Callable[[], None]
"""Raises `Cancelled` if the work is to end."""

T = TypeVar("T")

_PATIENCE = 0.02
"""Seconds between two questions whether to go on, while the last tasks are at work elsewhere."""


class Share(Protocol):
    """Does work for each task, on all threads; when it returns or raises, no thread is at work any more."""

    def __call__(self, work: Callable[[T, Check], None], tasks: Iterable[T], /, *, is_told: bool = False) -> None: ...


def take_turns(
    pool: Executor | None,
    threads: int,
    cancelled: IsCancelled,
    work: Callable[[T, Check], None],
    tasks: Iterable[T],
    *,
    is_told: bool = False,
) -> None:
    """Does all tasks on this thread and on those of a pool that have nothing else to do.

    Args:
        pool: Of the other threads; it may be at work for others for as long as it likes.
        threads: How many take part, this one included.
        cancelled: Asked by this thread alone.
        work: Called with a task, and with what it is to call often: that ends it when another has failed.
        tasks: In the order in which they are begun.
        is_told: Whether ``cancelled``, if it is a `Watch`, is told which share of the tasks is done.

    Raises:
        Cancelled: Once ``cancelled()`` is true.
    """
    left, stopped = deque(tasks), threading.Event()
    count, finished = len(left), deque[None]()

    def listen() -> None:
        if stopped.is_set():
            raise Cancelled

    def ask() -> None:
        if stopped.is_set() or cancelled():
            raise Cancelled
        if is_told and isinstance(cancelled, Watch):
            cancelled.tell(len(finished) / count)

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
    futures = [pool.submit(work_on, listen) for _ in range(helpers) if pool]
    errors: list[BaseException] = []
    try:
        work_on(ask)
        while wait([future for future in futures if not future.cancel()], _PATIENCE).not_done:
            ask()
    except BaseException as raised:
        stopped.set()
        errors.append(raised)
    errors += [error for future in futures if not future.cancel() and (error := future.exception())]
    if errors:  # an error before the cancellation that follows from it
        raise min(errors, key=lambda error: isinstance(error, Cancelled))
