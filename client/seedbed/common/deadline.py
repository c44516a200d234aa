"""The deadline of a call."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from seedbed.errors import DeadlineExceeded


class Deadline:
    """The deadline of a call and all its attempts.

    Args:
        timeout: Seconds from now; None means no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._cancels: set[Callable[[], object]] = set()
        self._is_ended = False

    @contextlib.contextmanager
    def ending(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Make `end` call ``cancel`` within the block; entering the block calls it if `end` was called before."""
        self._cancels.add(cancel)
        if self._is_ended:  # checked after the registration, or a concurrent `end` would be missed
            cancel()
        try:
            yield
        finally:
            self._cancels.discard(cancel)

    def end(self) -> None:
        """End the call now, on all threads that run it."""
        self._end = time.monotonic()
        self._is_ended = True
        for cancel in tuple(self._cancels):
            cancel()

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None if there is no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def has_passed(self) -> bool:
        """Whether no time is left."""
        return self._end is not None and time.monotonic() >= self._end

    def exceeded(self, target: str, reason: str = "") -> DeadlineExceeded:
        """The error to raise, with the reason for waiting if there is one."""
        within = "in time" if self._timeout is None else f"within {self._timeout:g} s"
        return DeadlineExceeded(
            f"no complete response from {target} {within}; give a longer timeout, or timeout=None to wait for ever"
            + (f" ({reason})" if reason else "")
        )
