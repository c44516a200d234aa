"""The streams of one call, without input and output: the part of the retry loop that both clients share."""

from __future__ import annotations

from seedbed._receive.assembler import Assembler
from seedbed._receive.retry import Retry
from seedbed._wire.transport import StreamCall
from seedbed.common.deadline import Deadline
from seedbed.errors import InvalidRequest, SeedbedError


class Attempts:
    """The streams to open for one call, and the delays after failures.

    A client opens the streams of `next_stream` one after another until there is none, and feeds their messages to the
    assembler. After a failure it sleeps for `delay` seconds.

    Args:
        assembler: What the streams have to deliver.
        deadline: The call's deadline.
        target: The server's address, for messages.
        wait: Seconds to wait for a server that cannot be reached.
    """

    def __init__(self, assembler: Assembler, deadline: Deadline, target: str, wait: float) -> None:
        self._assembler = assembler
        self._retry = Retry(deadline, target, wait)
        self._is_first = True

    def next_stream(self) -> StreamCall | None:
        """The stream to open now; None if nothing is missing."""
        is_done = self._assembler.is_complete and not self._is_first  # a call for no elements is validated, too
        self._is_first = False
        return None if is_done or not self._assembler.asks else self._assembler.stream_call()

    def delay(self, error: SeedbedError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            SeedbedError: There is no next attempt.
        """
        if self._assembler.is_complete:
            return 0.0  # only the end of the stream was lost
        if isinstance(error, InvalidRequest):
            raise self._assembler.renumber(error) from error
        return self._retry.delay(error, self._assembler.arrived)
