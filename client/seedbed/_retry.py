"""When to try again after a failure, and when to give up."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator

from seedbed.errors import Corrupted, DeadlineExceeded, SeedbedError, Unavailable

_log = logging.getLogger("seedbed")

_NAMES = ("dns:", "xds:")
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_ATTEMPTS_AT_FIRST = 3
"""A server that never answered is reported within a second."""
_ATTEMPTS_TO_RESUME = 12
"""One that has answered is worth half a minute, in which it can be started anew, or others in its place; and so is a
name, which stands for servers that come and go, and which the name service itself may not know for a moment."""


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

    def exceeded(self, target: str) -> DeadlineExceeded:
        """The error that says so."""
        within = "in time" if self._timeout is None else f"within {self._timeout:g} s"
        return DeadlineExceeded(
            f"no complete answer from {target} {within}; give a longer timeout, or timeout=None to wait for ever"
        )


class Retry:
    """The attempts of one call.

    Args:
        deadline: When the call has to end.
        target: Whom it asks, for messages.
        has_answered: Whether it ever did.
    """

    def __init__(self, deadline: Deadline, target: str, has_answered: bool) -> None:
        self._deadline = deadline
        self._target = target
        self._may_come_back = has_answered or target.startswith(_NAMES)
        self._arrived = 0
        self._failures = 0

    def delay(self, error: SeedbedError, arrived: int = 0) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: Why the last attempt failed.
            arrived: How much had arrived by then, in all attempts together; it grows if there was progress.

        Raises:
            SeedbedError: If there should be no next attempt: the error itself, or that time is up.
        """
        if not isinstance(error, (Unavailable, Corrupted)):
            raise error
        self._failures = 1 if arrived > self._arrived else self._failures + 1
        self._arrived = arrived
        may_come_back = isinstance(error, Unavailable) and self._may_come_back
        if self._failures >= (_ATTEMPTS_TO_RESUME if arrived or may_come_back else _ATTEMPTS_AT_FIRST):
            raise self._final(error)
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (self._failures - 1)) * random.uniform(0.5, 1.0)
        remaining = self._deadline.remaining()
        if remaining is not None and delay >= remaining:
            raise self._deadline.exceeded(self._target) from error
        if self._failures == _ATTEMPTS_AT_FIRST:  # from here on it takes long
            _log.warning("%s; trying again for up to half a minute", error)
        return delay

    def _final(self, error: SeedbedError) -> SeedbedError:
        if not isinstance(error, Corrupted):
            return error
        return Corrupted(
            f"{self._target} sent what was not asked for, {self._failures} times in a row: {error}; "
            "check what lies between it and here, and its version"
        )
