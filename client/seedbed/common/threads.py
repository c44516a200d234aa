"""Work on several threads that start and end together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from seedbed.common.deadline import Deadline

_Item = TypeVar("_Item")


class Shared(Generic[_Item]):
    """An iterator that several threads may share."""

    def __init__(self, items: Iterator[_Item]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        with self._lock:
            return next(self._items)


def run_together(work: Sequence[Callable[[], object]], deadline: Deadline) -> None:
    """Run each function on its own thread, and return when all have ended; the first failure ends the deadline.

    Args:
        work: The functions.
        deadline: The deadline of the calls that they make.
    """

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)
            deadline.end()

    failures: list[BaseException] = []
    with ThreadPoolExecutor(len(work), "seedbed") as pool:
        try:
            for future in [pool.submit(run, function) for function in work]:
                future.result()
        except BaseException:  # an interrupt of this thread
            deadline.end()
            raise
    if failures:
        raise failures[0]
