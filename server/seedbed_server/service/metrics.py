"""Prometheus metrics.

No label holds the name of a tensor or a client, so the number of time series is bounded by the contract.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from seedbed._version import __version__
from seedbed_server import engine
from seedbed_server.service.call import Call

_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """The metrics of one server, in their own registry.

    Args:
        backend: The backend that the server samples with.

    Attributes:
        registry: The Prometheus registry.
        url: Where the metrics are served; "" if they are not.

    Raises:
        ImportError: ``prometheus_client`` is not installed.

    >>> metrics = Metrics(engine.open_backend("numpy"))
    >>> metrics.registry.get_sample_value("seedbed_open_streams")
    0.0
    """

    def __init__(self, backend: engine.Backend) -> None:
        import prometheus_client as prometheus  # noqa: PLC0415 - takes 0.1 s; only servers with metrics pay for it

        self.url = ""
        self.registry = registry = prometheus.CollectorRegistry()
        requests = prometheus.Counter(
            "seedbed_requests", "Completed requests by RPC and status.", ["rpc", "status"], registry=registry
        )
        running = prometheus.Gauge("seedbed_requests_running", "Requests in progress.", ["rpc"], registry=registry)
        seconds = prometheus.Histogram(
            "seedbed_request_seconds", "Duration of requests.", ["rpc"], registry=registry, buckets=_SECONDS
        )
        sent_bytes = prometheus.Counter(
            "seedbed_sent_bytes", "Bytes of messages sent, by RPC.", ["rpc"], registry=registry
        )
        elements = prometheus.Counter(
            "seedbed_elements", "Elements requested by completed requests, by scheme.", ["scheme"], registry=registry
        )
        self._open_streams = prometheus.Gauge("seedbed_open_streams", "Open streams.", registry=registry)
        self._unary_waiting = prometheus.Gauge(
            "seedbed_answers_waiting", "Unary requests that wait for a thread.", registry=registry
        )
        info = prometheus.Info("seedbed_backend", "The backend that samples.", registry=registry)
        info.info(
            {
                "version": __version__,
                "backend": backend.name,
                "device": backend.device,
                "threads": str(backend.threads),
            }
        )
        # Looking up a label takes a lock and a dictionary; there are few, and each request needs several.
        self._requests = functools.cache(requests.labels)
        self._running = functools.cache(running.labels)
        self._seconds = functools.cache(seconds.labels)
        self._bytes = functools.cache(sent_bytes.labels)
        self._elements = functools.cache(elements.labels)

    def watch(self, open_streams: Callable[[], int], unary_waiting: Callable[[], int]) -> None:
        """Registers functions that return the server's own counts whenever the metrics are read."""
        self._open_streams.set_function(open_streams)
        self._unary_waiting.set_function(unary_waiting)

    def byte_counter(self, method: str) -> Callable[[float], None]:
        """The function that counts the bytes sent by an RPC."""
        return self._bytes(method).inc

    def begin(self, method: str) -> None:
        """Counts a request that begins."""
        self._running(method).inc()

    def end(self, call: Call) -> None:
        """Counts a request that has ended."""
        self._running(call.method).dec()
        self._requests(call.method, call.status).inc()
        self._seconds(call.method).observe(call.seconds())
        for scheme, count in call.elements().items():
            self._elements(scheme).inc(count)
