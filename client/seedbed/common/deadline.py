"""When a call has to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from seedbed.errors import DeadlineExceeded


class Deadline:
    """The end of a call, all its attempts included.

    Args:
        timeout: Seconds from now; None means that there is no end.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._cancels: set[Callable[[], object]] = set()
        self._is_ended = False

    @contextlib.contextmanager
    def ending(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Within the block, `end` calls ``cancel``; the block does, if that was before it."""
        self._cancels.add(cancel)
        if self._is_ended:  # only now, or an end in between would be missed
            cancel()
        try:
            yield
        finally:
            self._cancels.discard(cancel)

    def end(self) -> None:
        """Ends the call now, in whatever threads it runs."""
        self._end = time.monotonic()
        self._is_ended = True
        for cancel in tuple(self._cancels):
            cancel()

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None if there is no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def has_passed(self) -> bool:
        """Whether no time is left."""
        return self._end is not None and time.monotonic() >= self._end

    def exceeded(self, target: str, reason: str = "") -> DeadlineExceeded:
        """The error that says so, and what was waited for if anything was."""
        within = "in time" if self._timeout is None else f"within {self._timeout:g} s"
        return DeadlineExceeded(
            f"no complete answer from {target} {within}; give a longer timeout, or timeout=None to wait for ever"
            + (f" ({reason})" if reason else "")
        )
