"""The service within the calling process: the client's target ``local:``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from seedbed_server import engine
from seedbed_server.service.errors import ServiceError, to_status
from seedbed_server.service.servicer import DEFAULT_CHUNK_BYTES, STREAMS, UNARY, InitServicer


class LocalService:
    """Answers requests with no socket between: same validation, same chunks, same errors as a server's.

    Args:
        backend: ``auto``, ``numpy``, ``numba`` or ``cupy``. Default ``SEEDBED_BACKEND``, else ``auto``.
        threads: Threads that sample one chunk. Default ``SEEDBED_THREADS``, else one for each core.
        chunk_bytes: The most bytes of a chunk's payload. Default 1 MiB.

    Raises:
        ValueError: The backend cannot be used here, or an argument is out of range.

    >>> from seedbed.v1 import CalculateGainRequest, Nonlinearity
    >>> service = LocalService("numpy")
    >>> service.unary("CalculateGain", CalculateGainRequest(nonlinearity=Nonlinearity.NONLINEARITY_SELU)).gain
    0.75
    """

    def __init__(
        self, backend: str | None = None, threads: int | None = None, chunk_bytes: int = DEFAULT_CHUNK_BYTES
    ) -> None:
        self._servicer = InitServicer(engine.open_backend(backend, threads), chunk_bytes=chunk_bytes)

    def unary(self, method: str, request: Message) -> Message:
        """Answers a request that has one answer.

        Args:
            method: The RPC, such as ``DescribeTensor``.
            request: Its request message.

        Raises:
            ServiceError: The call failed.
        """
        _, answer = UNARY[method]
        try:
            return answer(self._servicer, request)
        except Exception as error:
            raise ServiceError(to_status(error)) from error

    def stream(self, method: str, request: Message, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """Answers a request with a stream of serialised messages.

        Args:
            method: The RPC, such as ``InitTensor``.
            request: Its request message.
            cancelled: Asked often; once it is true, the stream ends with a ``ServiceError`` of code CANCELLED.

        Raises:
            ServiceError: The call failed; raised by the iterator, as over a socket.
        """
        _, answer = STREAMS[method]
        try:
            yield from answer(self._servicer, request, cancelled)
        except Exception as error:
            raise ServiceError(to_status(error)) from error
