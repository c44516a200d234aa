"""When to retry after a failure, and when to give up."""

from __future__ import annotations

import logging
import random
import time

from seedbed import errors
from seedbed.common.deadline import Deadline
from seedbed.errors import Corrupted, DeadlineExceeded, SeedbedError, Unavailable

_log = logging.getLogger("seedbed")

_FIRST_DELAY, _MAX_DELAY = 0.1, 5.0  # seconds, like the other times here
_QUICK_ATTEMPTS = 3
"""Made even if ``wait`` is 0, within a third of a second: a lost connection need not mean a lost server."""
_CORRUPT_ATTEMPTS = 5
_REPORT_INTERVAL = 30.0
_LONG_ATTEMPT = 1.0  # a user who has waited for one failed attempt this long gets a warning at once
_MIN_FULL_DELAY, _MAX_FULL_DELAY = 0.05, 60.0  # whatever a full server says
_FULL_JITTER = 0.25
_MIN_REMAINING = 0.02  # no call succeeds in less


class Retry:
    """The retries of one call.

    Args:
        deadline: The call's deadline.
        target: The server's address, for messages.
        wait: Seconds to wait for a server that cannot be reached, counted afresh whenever something arrives.
    """

    def __init__(self, deadline: Deadline, target: str, wait: float) -> None:
        self._deadline = deadline
        self._target = target
        self._wait = wait
        self._arrived = 0
        self._attempt_began = time.monotonic()
        self._reason = ""  # for waiting, in the error at the deadline
        self._has_reported_full = False
        self._reset()

    def delay(self, error: SeedbedError, arrived: int = 0) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: The error of the last attempt.
            arrived: A measure of what has arrived in all attempts together; it has grown if there was progress.

        Raises:
            SeedbedError: There is no next attempt: the error itself, or DeadlineExceeded.
        """
        if arrived > self._arrived:
            self._arrived = arrived
            self._reason = ""
            self._reset()
        delay = self._within_deadline(self._delay_after(error), error)
        self._attempt_began = time.monotonic() + delay
        return delay

    def _reset(self) -> None:
        self._failures = self._corrupt = 0
        self._unreachable_since = 0.0
        self._reported_at: float | None = None

    def _delay_after(self, error: SeedbedError) -> float:
        if isinstance(error, DeadlineExceeded) and self._reason:
            raise self._deadline.exceeded(self._target, self._reason) from error
        if (retry_after := errors.retry_after(error)) is not None:
            return self._delay_when_full(retry_after, error)
        if isinstance(error, Corrupted):
            return self._delay_when_corrupt(error)
        if isinstance(error, Unavailable):
            return self._delay_when_unreachable(error)
        raise error

    def _delay_when_full(self, retry_after: float, error: SeedbedError) -> float:
        """Wait for as long as the server says. That is not a failure, however often it happens."""
        self._reset()
        self._reason = f"the server was full: {error}"
        if not self._has_reported_full:
            _log.warning("%s is full (%s); waiting for a place", self._target, error)
            self._has_reported_full = True
        delay = min(max(retry_after, _MIN_FULL_DELAY), _MAX_FULL_DELAY)
        return delay * random.uniform(1.0, 1.0 + _FULL_JITTER)  # never earlier than the server says

    def _delay_when_corrupt(self, error: Corrupted) -> float:
        self._corrupt += 1
        if self._corrupt == _CORRUPT_ATTEMPTS:
            raise Corrupted(
                f"{self._target} sent corrupt data {self._corrupt} times in a row: {error}; "
                "check its version, and any proxy between it and this client"
            ) from error
        return self._back_off(self._corrupt)

    def _delay_when_unreachable(self, error: Unavailable) -> float:
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._unreachable_since = now
        self._reason = f"the server could not be reached: {error}"
        patience = self._unreachable_since + self._wait - now if errors.is_transient(error) else 0.0
        is_quick = self._failures < _QUICK_ATTEMPTS
        if patience <= 0 and not is_quick:
            raise error
        if patience > 0 and (not is_quick or now - self._attempt_began >= _LONG_ATTEMPT):
            self._report(error, now, patience)
        delay = self._back_off(self._failures)
        return delay if is_quick else min(delay, patience)

    def _report(self, error: Unavailable, now: float, patience: float) -> None:
        if self._reported_at is None:
            text = "%s cannot be reached (%s); waiting up to %.0f s for it; wait=0 gives up at once"
            _log.warning(text, self._target, error, patience)
        elif now - self._reported_at >= _REPORT_INTERVAL:
            text = "%s still cannot be reached after %.0f s (%s); waiting up to %.0f s more"
            _log.warning(text, self._target, now - self._unreachable_since, error, patience)
        else:
            return
        self._reported_at = now

    def _back_off(self, failures: int) -> float:
        """Exponential back-off with full jitter, so that clients that lost a server together do not return together."""
        return random.uniform(0.0, min(_MAX_DELAY, _FIRST_DELAY * 2.0 ** min(failures - 1, 10)))

    def _within_deadline(self, delay: float, error: SeedbedError) -> float:
        """Halve the remaining time if the delay would exceed it, so that the last attempts use all of it."""
        remaining = self._deadline.remaining()
        if remaining is None or delay < remaining / 2:
            return delay
        if remaining <= _MIN_REMAINING:
            raise self._deadline.exceeded(self._target, self._reason) from error
        return remaining / 2
