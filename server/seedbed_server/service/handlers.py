"""gRPC handlers: parse a request, call the servicer within the server's limits, and turn errors into statuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message

from seedbed_server import engine
from seedbed_server.service.admission import StreamAdmission
from seedbed_server.service.balance import Balance
from seedbed_server.service.call import Call
from seedbed_server.service.errors import to_status
from seedbed_server.service.observer import Observer
from seedbed_server.service.servicer import STREAMS, UNARY, InitServicer
from seedbed_server.service.stalls import StallGuard

_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def unary_handler(
    servicer: InitServicer, method: str, observer: Observer
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """The handler of a unary RPC.

    Args:
        servicer: Serves the request.
        method: The RPC, one of `servicer.UNARY`.
        observer: Reports the call.
    """
    request_type, serve = UNARY[method]

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        with observer.observed(method, context) as call, _errors_as_statuses(context, call):
            call.request = _parsed(request_type, request)
            return call.sent(serve(servicer, call.request).SerializeToString())

    return handle


def stream_handler(
    servicer: InitServicer,
    method: str,
    observer: Observer,
    admission: StreamAdmission,
    stall_guard: StallGuard,
    balance: Balance | None,
) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
    """The handler of an RPC with a response stream.

    Args:
        servicer: Serves the request.
        method: The RPC, one of `servicer.STREAMS`.
        observer: Reports the call.
        admission: Admits or refuses the stream.
        stall_guard: Ends the stream if its client stops reading.
        balance: Moves the call to a less busy worker. Default never.
    """
    request_type, serve = STREAMS[method]

    def handle(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if balance is not None:
            balance.enter(context)  # before the call is observed: a call that moves has not begun here
        with observer.observed(method, context) as call, _errors_as_statuses(context, call):
            admission.enter(context)
            call.request = _parsed(request_type, request)
            messages = serve(servicer, call.request, lambda: not context.is_active())
            yield from stall_guard.watched(context, map(call.sent, messages))

    return handle


def _parsed(request_type: type[Message], request: bytes) -> Message:
    # Not gRPC's request_deserializer: if that fails, the client sees an internal error of the server.
    try:
        parsed = request_type.FromString(request)
    except DecodeError as error:
        raise engine.InvalidSpec("request", f"is not a valid {request_type.DESCRIPTOR.name} message") from error
    byte_count = parsed.ByteSize()
    parsed.DiscardUnknownFields()
    if parsed.ByteSize() != byte_count:  # of a newer contract: without them, other values would be served
        raise engine.InvalidSpec("request", "has fields that this server does not know; upgrade the server")
    return parsed


@contextlib.contextmanager
def _errors_as_statuses(context: grpc.ServicerContext, call: Call) -> Iterator[None]:
    """Ends the call with a status if an exception leaves the block."""
    try:
        yield
    except Exception as error:
        status = to_status(error)
        call.failed(status)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(_STATUS_CODES[status.code], status.message)
