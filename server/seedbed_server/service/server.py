"""A gRPC server for one backend: its threads, addresses, health service, and a shutdown that drains.

It is gRPC's synchronous server, which is the fastest for a single stream. Each open stream occupies a thread, which is
cheap: while the client reads slowly, the thread sleeps and holds one message but no buffer. Streams have their own
thread pool, so health checks and unary calls never queue behind them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent import futures
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from seedbed.v1 import Limits
from seedbed_server import engine
from seedbed_server.service import listening
from seedbed_server.service.access import AccessControl
from seedbed_server.service.admission import StreamAdmission
from seedbed_server.service.balance import Balance
from seedbed_server.service.handlers import stream_handler, unary_handler
from seedbed_server.service.health import HealthServicer
from seedbed_server.service.metrics import Metrics
from seedbed_server.service.observer import Observer
from seedbed_server.service.servicer import SERVICE_NAME, STREAMS, UNARY, InitServicer
from seedbed_server.service.settings import Settings
from seedbed_server.service.stalls import StallGuard
from seedbed_server.service.tracing import Traces

_log = logging.getLogger(__name__)

_UNARY_THREADS: Final = 16
_REFUSAL_THREADS: Final = 8  # beyond one per stream: extra threads that refuse excess streams
_SLACK: Final = 5.0
_CONNECTION_LIMIT_GRPC: Final = (1, 66)  # the first version of gRPC that can limit connections
_CHANNEL_ARGUMENTS: Final = (
    # Clients ping every 10 s, with some jitter, to check idle or slow connections ...
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # ... and the server pings, so that a client whose machine has vanished does not hold a stream for hours.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class Server:
    """A running server; see `start`.

    Attributes:
        addresses: The addresses that it listens on, with the ports that were chosen.
        access: Its access control.
    """

    def __init__(
        self,
        servicer: InitServicer,
        settings: Settings,
        metrics: Metrics | None,
        traces: Traces | None,
        shares_ports: bool,
        balance: Balance | None,
    ) -> None:
        self.access = AccessControl(settings)
        self._balance = balance
        self._shares_ports = shares_ports
        self._observer = Observer(metrics, traces, self.access.client_name)
        self._admission = StreamAdmission(settings.max_streams, settings.max_streams_per_client)
        self._stall_guard = StallGuard(settings.stall_timeout)
        self._unary_pool = futures.ThreadPoolExecutor(_UNARY_THREADS, "unary")
        self._stream_pool = futures.ThreadPoolExecutor(settings.max_streams + _REFUSAL_THREADS, "stream")
        self._health = HealthServicer()
        self._health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        self._grpc = grpc.server(
            self._unary_pool,
            interceptors=self.access.interceptors(self._observer),
            options=_channel_arguments(settings, shares_ports),
        )
        self._grpc.add_generic_rpc_handlers((self._handlers(servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if settings.reflection:
            reflection.enable_server_reflection(
                (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc
            )
        self.addresses = tuple(self._bind(address) for address in settings.listen)
        if metrics is not None:
            metrics.watch(lambda: self._admission.count, self._unary_pool._work_queue.qsize)
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

    def stop(self, grace: float = Settings.grace) -> None:
        """Refuses new calls, waits for calls in progress, and cancels those that are left after the grace period.

        Returns once all calls have ended and nothing samples any more.

        Args:
            grace: The grace period, in seconds.
        """
        if self._balance is not None:
            self._balance.stop()
        self._health.enter_graceful_shutdown()
        stopped = self._grpc.stop(grace + _SLACK)  # the slack lets us log and cancel before gRPC cancels
        self._health.cancel_watches()
        if not stopped.wait(grace):
            _log.warning("cancelling the calls that did not finish within %g s", grace)
        self._grpc.stop(None)
        self._stall_guard.close()
        self._unary_pool.shutdown()
        self._stream_pool.shutdown()

    def _bind(self, address: str) -> str:
        if not self._shares_ports:
            listening.check(address)
        credentials = self.access.credentials()
        try:
            port = (
                self._grpc.add_insecure_port(address)
                if credentials is None
                else self._grpc.add_secure_port(address, credentials)
            )
        except RuntimeError as error:  # taken since the check
            raise OSError(f"listen: cannot listen on {address}; choose another address") from error
        return listening.bound(address, port)

    def _handlers(self, servicer: InitServicer) -> grpc.GenericRpcHandler[bytes, bytes]:
        handlers = {}
        for method in UNARY:
            handlers[method] = grpc.unary_unary_rpc_method_handler(unary_handler(servicer, method, self._observer))
        for method in STREAMS:
            handler = stream_handler(
                servicer, method, self._observer, self._admission, self._stall_guard, self._balance
            )
            handler.experimental_thread_pool = self._stream_pool  # type: ignore[attr-defined]
            handlers[method] = grpc.unary_stream_rpc_method_handler(handler)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)


def start(
    backend: engine.Backend,
    settings: Settings | None = None,
    *,
    metrics: Metrics | None = None,
    traces: Traces | None = None,
    shares_ports: bool = False,
    balance: Balance | None = None,
) -> Server:
    """Starts a server in this process.

    Args:
        backend: The backend that samples; see `seedbed_server.engine.open_backend`.
        settings: The settings; those about processes, the backend, metrics, traces and logs are ignored. Default
            ``Settings()``, but on a free local port.
        metrics: Prometheus metrics. Default none.
        traces: OpenTelemetry traces. Default none.
        shares_ports: Whether other processes listen on the same ports, so that the kernel distributes connections.
        balance: Evens out the numbers of streams of these processes. Default none.

    Raises:
        ValueError: A setting cannot be used, or an address that other machines reach would be served in plaintext.
        OSError: An address is in use, or cannot be bound for another reason, which the message gives.

    >>> server = start(engine.open_backend("numpy"), Settings(listen=["127.0.0.1:0"]))
    >>> server.port > 0
    True
    >>> server.stop()
    """
    settings = settings or Settings(listen=("127.0.0.1:0",))
    if not settings.listen:
        raise ValueError("listen: no address is given; give at least one")
    _check_grpc_version(settings.max_connections)
    servicer = InitServicer(backend, settings)
    servicer.limits.MergeFrom(
        Limits(
            max_streams=settings.max_streams,
            max_streams_per_client=settings.max_streams_per_client,
            stall_timeout_seconds=settings.stall_timeout,
            max_connections=settings.max_connections,
            max_connection_age_seconds=settings.max_connection_age,
        )
    )
    return Server(servicer, settings, metrics, traces, shares_ports, balance)


def _check_grpc_version(max_connections: int) -> None:
    if max_connections and tuple(int(part) for part in grpc.__version__.split(".")[:2]) < _CONNECTION_LIMIT_GRPC:
        required = ".".join(map(str, _CONNECTION_LIMIT_GRPC))
        raise ValueError(
            f"max_connections: {max_connections} needs grpcio {required}, and {grpc.__version__} is installed; "
            f"run: pip install 'grpcio>={required}'"
        )


def _channel_arguments(settings: Settings, shares_ports: bool) -> Sequence[tuple[str, int]]:
    arguments = [
        *_CHANNEL_ARGUMENTS,
        # gRPC's default is 1: a second server would silently share the port and take half of the clients.
        ("grpc.so_reuseport", int(shares_ports)),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
    ]
    if settings.max_connections:
        arguments.append(("grpc.max_allowed_incoming_connections", settings.max_connections))
    if age := settings.max_connection_age:
        arguments.append(("grpc.max_connection_age_ms", max(1, round(1000 * age))))
    return arguments
