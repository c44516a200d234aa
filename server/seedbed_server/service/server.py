"""Binds an `InitServicer` to gRPC: threads, limits, health, listening, and a shutdown that drains.

The server is gRPC's synchronous one, because that is the fastest for one stream. It holds a thread for each stream,
which costs little while its client reads slowly: the thread sleeps, and holds one message but no buffer. Streams have
their own thread pool, so that however many there are, health checks and the other calls are answered at once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection as grpc_reflection

from seedbed_server import engine
from seedbed_server.service import limits, listening, observing
from seedbed_server.service.balance import Balance
from seedbed_server.service.errors import to_status
from seedbed_server.service.security import Security
from seedbed_server.service.servicer import STREAMS, UNARY, InitServicer, check_limit
from seedbed_server.service.tracing import Traces

DEFAULT_MAX_STREAMS: Final = 256
DEFAULT_GRACE: Final = 30.0
DEFAULT_STALL_TIMEOUT: Final = 300.0
LONGEST_SECONDS: Final = 2_000_000  # gRPC counts milliseconds in 32 bits
SERVICE_NAME: Final = "seedbed.v1.InitService"

_ANSWER_THREADS: Final = 16
_REFUSING_THREADS: Final = 8  # beside one for each stream: they tell further clients that there are too many
_SLACK: Final = 5.0
_LIMITS_CONNECTIONS: Final = (1, 66)  # the gRPC that can
_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_OPTIONS: Final = (
    # Clients may ping every 10 s, with some jitter, to see that an idle or slow connection lives ...
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # ... and this server pings, so that a client whose machine went away does not hold a stream for hours.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_log = logging.getLogger(__name__)


class Server:
    """A running server; see `start`.

    Attributes:
        addresses: Where it listens, with the ports that were chosen: targets for a client on this machine.
    """

    def __init__(
        self,
        servicer: InitServicer,
        listen: Sequence[str],
        security: Security,
        metrics: observing.Metrics | None,
        traces: Traces | None,
        reflection: bool,
        shares_ports: bool,
        balance: Balance | None,
    ) -> None:
        self._security = security
        self._balance = balance
        self._shares_ports = shares_ports
        self._observer = observing.Observer(metrics, traces, security.client_of)
        limit = servicer.limits
        self._streams = limits.Streams(limit.max_streams, limit.max_streams_per_client)
        self._stall_guard = limits.StallGuard(limit.stall_timeout_seconds)
        self._answer_pool = futures.ThreadPoolExecutor(_ANSWER_THREADS, "answer")
        self._stream_pool = futures.ThreadPoolExecutor(limit.max_streams + _REFUSING_THREADS, "stream")
        self._health = _Health()
        self._health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        self._grpc = grpc.server(
            self._answer_pool,
            interceptors=security.interceptors(self._observer),
            options=_options(servicer, shares_ports),
        )
        self._grpc.add_generic_rpc_handlers((self._handlers(servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if reflection:
            grpc_reflection.enable_server_reflection(
                (SERVICE_NAME, health.SERVICE_NAME, grpc_reflection.SERVICE_NAME), self._grpc
            )
        self.addresses = tuple(self._bind(address) for address in listen)
        if metrics is not None:
            metrics.watch(lambda: self._streams.count, self._answer_pool._work_queue.qsize)
        self._stall_guard.start()
        self._grpc.start()
        if balance is not None:
            balance.start()

    @property
    def port(self) -> int:
        """The port of the first address.

        Raises:
            ValueError: The first address is a Unix socket.
        """
        return int(self.addresses[0].rpartition(":")[2])

    def stop(self, grace: float = DEFAULT_GRACE) -> None:
        """Refuses new calls, lets those in progress go on for up to ``grace`` seconds, and cancels what is left.

        Returns once no call is left and nothing samples any more.
        """
        if self._balance is not None:
            self._balance.stop()
        self._health.enter_graceful_shutdown()
        stopped = self._grpc.stop(grace + _SLACK)  # the slack lets us cancel, and say so, before gRPC does
        self._health.cancel_watches()
        if not stopped.wait(grace):
            _log.warning("cancelling the calls that did not finish within %g s", grace)
        self._grpc.stop(None)
        self._stall_guard.close()
        self._answer_pool.shutdown()
        self._stream_pool.shutdown()

    def _bind(self, address: str) -> str:
        if not self._shares_ports:
            listening.check(address)
        credentials = self._security.credentials()
        try:
            port = (
                self._grpc.add_insecure_port(address)
                if credentials is None
                else self._grpc.add_secure_port(address, credentials)
            )
        except RuntimeError as error:  # taken since the check
            raise OSError(f"listen: {address}: cannot be listened on; choose another address") from error
        return listening.bound(address, port)

    def _handlers(self, servicer: InitServicer) -> grpc.GenericRpcHandler[bytes, bytes]:
        handlers = {}
        for method in UNARY:
            handlers[method] = grpc.unary_unary_rpc_method_handler(_answering(servicer, method, self._observer))
        for method in STREAMS:
            stream = _streaming(servicer, method, self._streams, self._stall_guard, self._observer, self._balance)
            stream.experimental_thread_pool = self._stream_pool  # type: ignore[attr-defined]
            handlers[method] = grpc.unary_stream_rpc_method_handler(stream)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)


def start(
    servicer: InitServicer,
    listen: Sequence[str] = ("127.0.0.1:0",),
    *,
    max_streams: int = DEFAULT_MAX_STREAMS,
    max_streams_per_client: int = 0,
    stall_timeout: float = DEFAULT_STALL_TIMEOUT,
    max_connections: int = 0,
    max_connection_age: float = 0,
    security: Security | None = None,
    metrics: observing.Metrics | None = None,
    traces: Traces | None = None,
    reflection: bool = False,
    shares_ports: bool = False,
    balance: Balance | None = None,
) -> Server:
    """Starts a server in this process.

    Args:
        servicer: What answers.
        listen: Addresses, each ``HOST:PORT`` (port 0 takes a free one) or ``unix:PATH``. Default a free local port.
        max_streams: How many streams may be open at once; further ones are told when to come again. Default 256.
        max_streams_per_client: How many of them one host may have. Default 0: no limit but that of all.
        stall_timeout: Seconds after which a stream is ended whose client does not read; 0 for never. Default 300.
        max_connections: How many connections each address takes; further ones are closed. Default 0: no limit.
        max_connection_age: Seconds after which a connection takes no further calls, so that its client makes another
            one; streams in progress are finished. Default 0: never.
        security: What keeps strangers out. Default plaintext, for clients on this machine alone.
        metrics: What counts for Prometheus. Default nothing.
        traces: What OpenTelemetry is told. Default nothing.
        reflection: Whether clients may ask for the contract itself, as grpcurl does. Default not.
        shares_ports: Whether other processes listen on the same ports, which the kernel divides clients among.
        balance: What evens out how many streams each of these has. Default nothing.

    Raises:
        ValueError: An argument is out of range, not an address, or one that other machines reach in the clear.
        OSError: An address cannot be listened on, because it is taken or for another reason that the text tells.

    >>> server = start(InitServicer(engine.open_backend("numpy")), ["127.0.0.1:0"])
    >>> server.port > 0
    True
    >>> server.stop()
    """
    if max_streams < 1:
        raise ValueError(f"max_streams: {max_streams} is less than 1; a server needs at least one stream")
    check_limit("max_streams", max_streams)
    check_limit("max_streams_per_client", max_streams_per_client)
    check_limit("stall_timeout", stall_timeout, LONGEST_SECONDS)
    check_limit("max_connection_age", max_connection_age, LONGEST_SECONDS)
    _check_connections(max_connections)
    if not listen:
        raise ValueError("listen: no address is given; give at least one")
    security = security or Security()
    security.check(listen)
    servicer.limits.max_streams = max_streams
    servicer.limits.max_streams_per_client = max_streams_per_client
    servicer.limits.stall_timeout_seconds = stall_timeout
    servicer.limits.max_connections = max_connections
    servicer.limits.max_connection_age_seconds = max_connection_age
    return Server(servicer, listen, security, metrics, traces, reflection, shares_ports, balance)


class _Health(health.HealthServicer):
    """gRPC's health service, whose watches can be ended: they would hold up a shutdown until its grace is over."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[grpc.ServicerContext] = set()

    def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Callable[..., None] | None = None,
    ) -> object:
        self._watches.add(context)
        context.add_callback(lambda: self._watches.discard(context))
        return super().Watch(request, context, send_response_callback)

    def cancel_watches(self) -> None:
        for context in tuple(self._watches):
            context.cancel()  # type: ignore[no-untyped-call]


def _check_connections(most: int) -> None:
    check_limit("max_connections", most)
    if most and tuple(int(part) for part in grpc.__version__.split(".")[:2]) < _LIMITS_CONNECTIONS:
        needed = ".".join(map(str, _LIMITS_CONNECTIONS))
        raise ValueError(
            f"max_connections: {most} needs grpcio {needed}, and {grpc.__version__} is installed; "
            f"run: pip install 'grpcio>={needed}'"
        )


def _options(servicer: InitServicer, shares_ports: bool) -> Sequence[tuple[str, int]]:
    """What gRPC is to keep to; a connection of a certain age takes no further calls, and ends with its last one."""
    limit = servicer.limits
    options = [
        *_OPTIONS,
        # Unasked, a second server would share the port and take half of the clients, unnoticed.
        ("grpc.so_reuseport", int(shares_ports)),
        ("grpc.max_receive_message_length", limit.max_request_bytes),
    ]
    if limit.max_connections:
        options.append(("grpc.max_allowed_incoming_connections", limit.max_connections))
    if age := limit.max_connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", max(1, round(1000 * age))))
    return options


def _answering(
    servicer: InitServicer, method: str, observer: observing.Observer
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    request_type, answer = UNARY[method]

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        with observer.observed(method, context) as call, _errors_answered(context, call):
            call.request = _parsed(request_type, request)
            return call.sent(answer(servicer, call.request).SerializeToString())

    return handle


def _streaming(
    servicer: InitServicer,
    method: str,
    streams: limits.Streams,
    stall_guard: limits.StallGuard,
    observer: observing.Observer,
    balance: Balance | None,
) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
    request_type, answer = STREAMS[method]

    def handle(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if balance is not None:
            balance.enter(context)  # before anybody is told: a call that moves has not begun
        with observer.observed(method, context) as call, _errors_answered(context, call):
            streams.enter(context)
            call.request = _parsed(request_type, request)
            messages = answer(servicer, call.request, lambda: not context.is_active())
            yield from stall_guard.watched(context, map(call.sent, messages))

    return handle


def _parsed(request_type: type[Message], request: bytes) -> Message:
    # Here and not as gRPC's request_deserializer, whose failure would be told as an internal error of the server.
    try:
        return request_type.FromString(request)
    except DecodeError as error:
        raise engine.InvalidSpec("request", f"is not a valid {request_type.DESCRIPTOR.name} message") from error


@contextlib.contextmanager
def _errors_answered(context: grpc.ServicerContext, call: observing.Call) -> Iterator[None]:
    """The edge of the service: whatever goes wrong within is told to the client as a status."""
    try:
        yield
    except Exception as error:
        status = to_status(error)
        call.failed(status)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(_STATUS_CODES[status.code], status.message)
