"""Work on several threads, which ends together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from seedbed.common.deadline import Deadline

_Item = TypeVar("_Item")


class Shared(Generic[_Item]):
    """An iterator that several threads take items of."""

    def __init__(self, items: Iterator[_Item]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        with self._lock:
            return next(self._items)


def run_together(work: Sequence[Callable[[], object]], deadline: Deadline) -> None:
    """Runs functions, each on a thread of its own, until all have ended; the first failure ends the others' calls.

    Args:
        work: The functions.
        deadline: That of the calls that they make.
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
            for running in [pool.submit(run, function) for function in work]:
                running.result()
        except BaseException:  # the interrupt of the caller
            deadline.end()
            raise
    if failures:
        raise failures[0]
