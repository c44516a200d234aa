"""How a service in the client's own process reports failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status


class ServiceError(Exception):
    """A call that failed, with the status by which a server would end it.

    Attributes:
        status: The code and message, and among the details a ``google.rpc.BadRequest`` for INVALID_ARGUMENT, and a
            ``google.rpc.RetryInfo`` if the server is full.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status
