"""The stream messages of a service, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from seedbed.common.status import ServiceError
from seedbed_server import engine
from seedbed_server.service.errors import to_status
from seedbed_server.service.servicer import STREAMS, InitServicer
from seedbed_server.service.settings import Settings


def messages(
    method: str,
    request: Message,
    chunk_bytes: int = Settings.chunk_bytes,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[bytes]:
    """The messages that a server with the numpy backend would send; errors are raised as ServiceError."""
    _, stream = STREAMS[method]
    try:
        yield from stream(
            InitServicer(engine.open_backend("numpy", 1), Settings(chunk_bytes=chunk_bytes)), request, cancelled
        )
    except Exception as error:
        raise ServiceError(to_status(error)) from error
