"""A service's stream messages, with no socket between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from seedbed.common.status import ServiceError
from seedbed_server import engine
from seedbed_server.service.errors import to_status
from seedbed_server.service.servicer import DEFAULT_CHUNK_BYTES, STREAMS, InitServicer


def messages(
    method: str,
    request: Message,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[bytes]:
    """What a server with the numpy backend would send; its errors are ServiceErrors."""
    _, answer = STREAMS[method]
    try:
        yield from answer(InitServicer(engine.open_backend("numpy", 1), chunk_bytes=chunk_bytes), request, cancelled)
    except Exception as error:
        raise ServiceError(to_status(error)) from error
