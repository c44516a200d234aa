"""The error that the engine in this process raises in place of a gRPC status."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status


class ServiceError(Exception):
    """A failed call, with the status that a server would send.

    Attributes:
        status: The code and the message. The details contain a ``google.rpc.BadRequest`` for INVALID_ARGUMENT, and a
            ``google.rpc.RetryInfo`` if the server is full.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status
