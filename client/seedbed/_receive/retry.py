"""When to try again after a failure, and when to give up."""

from __future__ import annotations

import logging
import random
import time

from seedbed import errors
from seedbed.common.deadline import Deadline
from seedbed.errors import Corrupted, DeadlineExceeded, SeedbedError, Unavailable

_log = logging.getLogger("seedbed")

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_QUICK_ATTEMPTS = 3
"""Made whatever the patience, within a third of a second: a connection that ended is no server that went away."""
_ATTEMPTS_OF_GARBAGE = 5
_REPORT_INTERVAL = 30.0
_LONG_ATTEMPT = 1.0  # after one that failed so late, or later, the user has waited long enough to be told
_LEAST_PLACE_DELAY, _LONGEST_PLACE_DELAY = 0.05, 60.0  # whatever a server says
_PLACE_JITTER = 0.25
_LEAST_REMAINING = 0.02  # seconds; nothing can be asked in less


class Retry:
    """The attempts of one call.

    Args:
        deadline: When the call has to end.
        target: Whom it asks, for messages.
        wait: Seconds to wait for a server that cannot be reached, counted anew whenever something arrives.
    """

    def __init__(self, deadline: Deadline, target: str, wait: float) -> None:
        self._deadline = deadline
        self._target = target
        self._wait = wait
        self._arrived = 0
        self._began = time.monotonic()  # the attempt that failed last
        self._waits_for = ""
        self._knows_full = False
        self._reach_again()

    def delay(self, error: SeedbedError, arrived: int = 0) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: Why the last attempt failed.
            arrived: How much had arrived by then, in all attempts together; it grows if there was progress.

        Raises:
            SeedbedError: If there should be no next attempt: the error itself, or that time is up.
        """
        if arrived > self._arrived:
            self._arrived = arrived
            self._waits_for = ""
            self._reach_again()
        delay = self._within_deadline(self._wanted_delay(error), error)
        self._began = time.monotonic() + delay
        return delay

    def _reach_again(self) -> None:
        self._failures = self._garbage = 0
        self._unreached_since = 0.0
        self._told: float | None = None

    def _wanted_delay(self, error: SeedbedError) -> float:
        if isinstance(error, DeadlineExceeded) and self._waits_for:
            raise self._deadline.exceeded(self._target, self._waits_for) from error
        if (come_back_in := errors.come_back_in(error)) is not None:
            return self._until_place(come_back_in, error)
        if isinstance(error, Corrupted):
            return self._after_garbage(error)
        if isinstance(error, Unavailable):
            return self._until_reached(error)
        raise error

    def _until_place(self, come_back_in: float, error: SeedbedError) -> float:
        """The server is full: it tells when there may be a place. That is no failure, however often."""
        self._reach_again()
        self._waits_for = f"the server was full: {error}"
        if not self._knows_full:
            _log.warning("%s is full (%s); waiting for a place", self._target, error)
            self._knows_full = True
        delay = min(max(come_back_in, _LEAST_PLACE_DELAY), _LONGEST_PLACE_DELAY)
        return delay * random.uniform(1.0, 1.0 + _PLACE_JITTER)  # not earlier: it is not expected then

    def _after_garbage(self, error: Corrupted) -> float:
        self._garbage += 1
        if self._garbage == _ATTEMPTS_OF_GARBAGE:
            raise Corrupted(
                f"{self._target} sent what was not asked for, {self._garbage} times in a row: {error}; "
                "check what lies between it and here, and its version"
            ) from error
        return self._back_off(self._garbage)

    def _until_reached(self, error: Unavailable) -> float:
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._unreached_since = now
        self._waits_for = f"the server could not be reached: {error}"
        patience = self._unreached_since + self._wait - now if errors.may_pass(error) else 0.0
        is_quick = self._failures < _QUICK_ATTEMPTS
        if patience <= 0 and not is_quick:
            raise error
        if patience > 0 and (not is_quick or now - self._began >= _LONG_ATTEMPT):
            self._report(error, now, patience)
        delay = self._back_off(self._failures)
        return delay if is_quick else min(delay, patience)

    def _report(self, error: Unavailable, now: float, patience: float) -> None:
        if self._told is None:
            text = "%s cannot be reached (%s); waiting up to %.0f s for it; wait=0 gives up at once"
            _log.warning(text, self._target, error, patience)
        elif now - self._told >= _REPORT_INTERVAL:
            text = "%s still cannot be reached after %.0f s (%s); waiting up to %.0f s more"
            _log.warning(text, self._target, now - self._unreached_since, error, patience)
        else:
            return
        self._told = now

    def _back_off(self, failures: int) -> float:
        """Drawn from all of the range, so that clients which lost a server together do not come back together."""
        return random.uniform(0.0, min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures - 1, 10)))

    def _within_deadline(self, delay: float, error: SeedbedError) -> float:
        """The last attempts come closer together, so that none of the time is given away."""
        remaining = self._deadline.remaining()
        if remaining is None or delay < remaining / 2:
            return delay
        if remaining <= _LEAST_REMAINING:
            raise self._deadline.exceeded(self._target, self._waits_for) from error
        return remaining / 2
