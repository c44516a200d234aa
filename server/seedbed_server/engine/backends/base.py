"""The interface of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

IsCancelled = Callable[[], bool]
"""Polled during long work; once it returns true, the work ends with `engine.Cancelled`."""


class Watch:
    """An `IsCancelled` that also reports the progress of work that has not filled anything yet.

    Args:
        cancelled: The wrapped function.
        report: Called by the polling thread with the fraction of a matrix that is computed, from 0 to 1.
    """

    def __init__(self, cancelled: IsCancelled, report: Callable[[float], None]) -> None:
        self._cancelled = cancelled
        self.report = report

    def __call__(self) -> bool:
        return self._cancelled()


Wait = Callable[[], None]
"""Call it once; it returns when the array is filled."""

Sampler = Callable[[int, NDArray[Any], IsCancelled], Wait]
"""Starts to fill an array, which is not empty; the arguments are those of `Backend.fill` without the description.

A CPU has filled the array when the call returns. A GPU may still be writing until `Wait` returns, so keep the array
alive until then, even after an error elsewhere.
"""


def never() -> bool:
    """The default ``cancelled``: never true."""
    return False


def done() -> None:
    """The `Wait` of work that is already done."""


class Stream(NamedTuple):
    """A stream of Philox words: the seed is the key, the stream the upper half of the counter."""

    seed: int
    stream: int


class Job(NamedTuple):
    """Elements of a described region, and the array to fill with them."""

    description: TensorDescription
    first_element: int
    """The position within the region, in row-major order, of ``out[0]``."""
    out: NDArray[Any]
    """1-D, C-contiguous, of the description's dtype; no longer than the rest of the region."""


class Backend(ABC):
    """Samples elements of tensors; safe to call from many threads at once.

    Attributes:
        name: ``numpy``, ``numba`` or ``cupy``.
        device: The hardware, for display.
        reason: Why this backend was chosen, for display.
        threads: The number of threads that share one call.
    """

    name: ClassVar[str]
    ahead: ClassVar[int] = 0
    """The number of pieces to start before the first is used; a GPU samples and copies them meanwhile."""

    device: str
    reason: str
    threads: int

    @abstractmethod
    def sampler(self, description: TensorDescription) -> Sampler:
        """Computes what all pieces of a described region share, and returns the function that fills them."""

    def prepare(self) -> None:  # noqa: B027 - optional
        """Does in advance what the first tensor of each kind would wait for, such as compilation."""

    def buffer(self, byte_count: int) -> NDArray[np.uint8]:
        """Allocates memory that samplers fill fastest.

        Raises:
            MemoryError: No memory is left.
        """
        return np.empty(byte_count, np.uint8)

    def fill(
        self,
        description: TensorDescription,
        first_element: int,
        out: NDArray[Any],
        cancelled: IsCancelled = never,
    ) -> None:
        """Fills ``out`` with elements of a described region; use a `sampler` to fill many pieces of one region.

        Args:
            description: The result of ``describe``.
            first_element: The position within the region, in row-major order, of ``out[0]``.
            out: 1-D, C-contiguous, of the description's dtype; no longer than the rest of the region.
            cancelled: Polled during long work.

        Raises:
            Cancelled: ``cancelled()`` is true.
            MemoryError: The device is out of memory.
        """
        if len(out):
            self.sampler(description)(first_element, out, cancelled)()

    def fill_all(self, jobs: Sequence[Job], cancelled: IsCancelled = never) -> None:
        """Fills several arrays, small ones in parallel; the arrays of one call must not overlap.

        Args:
            jobs: The arrays and their elements.
            cancelled: Polled during long work.

        Raises:
            Cancelled: ``cancelled()`` is true.
            MemoryError: The device is out of memory.
        """
        for job in jobs:
            self.fill(*job, cancelled)

    def alone(self) -> Backend:
        """A single-threaded view of this backend, for callers whose own threads keep all cores busy."""
        return self
