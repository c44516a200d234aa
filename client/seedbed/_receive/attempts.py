"""The streams that one call takes, without input and output: what both clients do between opening and sleeping."""

from __future__ import annotations

from seedbed._receive.assembler import Assembler
from seedbed._receive.retry import Retry
from seedbed._wire.transport import StreamCall
from seedbed.common.deadline import Deadline
from seedbed.errors import InvalidRequest, SeedbedError


class Attempts:
    """Decides which stream to open next, and whether to go on after a failure.

    A client opens the streams of `next_stream` one after another until there is none. It feeds their messages to the
    assembler, and sleeps for as long as `delay` says after a failure.

    Args:
        assembler: What the streams have to bring.
        deadline: When the call has to end.
        target: The server's address, for messages.
        wait: Seconds to wait for a server that cannot be reached.
    """

    def __init__(self, assembler: Assembler, deadline: Deadline, target: str, wait: float) -> None:
        self._assembler = assembler
        self._retry = Retry(deadline, target, wait)
        self._is_first = True

    def next_stream(self) -> StreamCall | None:
        """The stream to open now; None if no server has to send anything more."""
        is_over = self._assembler.is_complete and not self._is_first  # a call for nothing is validated, too
        self._is_first = False
        return None if is_over or not self._assembler.asks else self._assembler.stream_call()

    def delay(self, error: SeedbedError) -> float:
        """Seconds to wait before the next attempt, after a stream that failed.

        Raises:
            SeedbedError: There should be no next attempt.
        """
        if self._assembler.is_complete:
            return 0.0  # only the stream's end was lost
        if isinstance(error, InvalidRequest):
            raise self._assembler.renamed(error) from error
        return self._retry.delay(error, self._assembler.arrived)
