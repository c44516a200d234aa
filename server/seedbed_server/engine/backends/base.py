"""What a backend is: the small interface in which they all agree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import TensorDescription

IsCancelled = Callable[[], bool]
"""Asked now and then during long work; once it is true, the work ends with `engine.Cancelled`."""


class Watch:
    """A ``cancelled`` whose owner also wants to know how long work goes on that has filled nothing yet.

    Args:
        cancelled: Asked in its place.
        tell: Called with the share of a matrix that is computed, up to 1, by the thread that asks.
    """

    def __init__(self, cancelled: IsCancelled, tell: Callable[[float], None]) -> None:
        self._cancelled = cancelled
        self.tell = tell

    def __call__(self) -> bool:
        return self._cancelled()


Wait = Callable[[], None]
"""To be called once: returns when what was begun is done."""

Sampler = Callable[[int, NDArray[Any], IsCancelled], Wait]
"""Begins to fill an array, which is not empty; the arguments are those of `Backend.fill` without the description.

A CPU has filled it by then. A GPU goes on by itself until the function that is returned has returned, also after an
error elsewhere: the array must live until then.
"""


def never() -> bool:
    """The default of ``cancelled``."""
    return False


def done() -> None:
    """The `Wait` of what is done at once."""


class Stream(NamedTuple):
    """Which Philox words: those of this seed (the key) and this stream (the upper half of the counter)."""

    seed: int
    stream: int


class Job(NamedTuple):
    """What is wanted of a described region, and where it goes."""

    description: TensorDescription
    first_element: int
    """The position within the region, in row-major order, of ``out[0]``."""
    out: NDArray[Any]
    """1-D, C-contiguous, of the description's dtype; at most the rest of the region."""


class Backend(ABC):
    """Samples elements of tensors; safe to call from many threads at once.

    Attributes:
        name: ``numpy``, ``numba`` or ``cupy``.
        device: What it samples on, for people to read.
        reason: Why it was chosen.
        threads: How many threads share one call.
    """

    name: ClassVar[str]
    ahead: ClassVar[int] = 0
    """How many pieces of a tensor to begin before the first of them is used: those that a GPU copies and samples."""

    device: str
    reason: str
    threads: int

    @abstractmethod
    def sampler(self, description: TensorDescription) -> Sampler:
        """Works out what all pieces of a described region share, and returns the function that fills them."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Does now what the first tensor of each kind would have to wait for, such as compiling."""

    def buffer(self, byte_count: int) -> NDArray[np.uint8]:
        """Memory that samplers fill fastest.

        Raises:
            MemoryError: There is none.
        """
        return np.empty(byte_count, np.uint8)

    def fill(
        self,
        description: TensorDescription,
        first_element: int,
        out: NDArray[Any],
        cancelled: IsCancelled = never,
    ) -> None:
        """Fills ``out`` with elements of a described region; who fills many pieces of one asks for a `sampler`.

        Args:
            description: What ``describe`` answered.
            first_element: The position within the region, in row-major order, of ``out[0]``.
            out: 1-D, C-contiguous, of the description's dtype; at most the rest of the region.
            cancelled: Asked now and then during long work.

        Raises:
            Cancelled: Once ``cancelled()`` is true.
            MemoryError: The device is out of memory.
        """
        if len(out):
            self.sampler(description)(first_element, out, cancelled)()

    def fill_all(self, jobs: Sequence[Job], cancelled: IsCancelled = never) -> None:
        """Fills several arrays, small ones side by side; those of one call must not share memory.

        Args:
            jobs: What goes where.
            cancelled: Asked now and then during long work.

        Raises:
            Cancelled: Once ``cancelled()`` is true.
            MemoryError: The device is out of memory.
        """
        for job in jobs:
            self.fill(*job, cancelled)

    def alone(self) -> Backend:
        """The same backend for a caller who keeps all cores busy with threads of their own."""
        return self
