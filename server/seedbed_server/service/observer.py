"""Reports every RPC to the log, the metrics and the traces."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import grpc

from seedbed_server.service.call import Call
from seedbed_server.service.logs import Fields
from seedbed_server.service.metrics import Metrics
from seedbed_server.service.tracing import Traces

_log = logging.getLogger(__name__)


class Observer:
    """Reports RPCs.

    Args:
        metrics: Prometheus metrics. Default none.
        traces: OpenTelemetry traces. Default none.
        client_name: Returns the name of a call's client, from its token or certificate. Default unknown.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        traces: Traces | None = None,
        client_name: Callable[[grpc.ServicerContext], str] = lambda _: "",
    ) -> None:
        self._metrics = metrics
        self._traces = traces
        self._client_name = client_name

    @contextlib.contextmanager
    def observed(self, method: str, context: grpc.ServicerContext) -> Iterator[Call]:
        """Reports the RPC that runs in the block, however the block ends.

        Args:
            method: The RPC, such as ``InitTensor``.
            context: Its gRPC context.
        """
        call = self._begin(method, context)
        span = self._traces.begin(method, context) if self._traces else None
        try:
            yield call
            call.status = "OK"
        finally:
            if self._metrics:
                self._metrics.end(call)
            is_logged = _log.isEnabledFor(logging.INFO)
            fields = call.fields() if span or is_logged else {}
            if self._traces and span:
                self._traces.end(span, call.status, fields)
            if is_logged:
                _log.info(Fields(fields))

    def _begin(self, method: str, context: grpc.ServicerContext) -> Call:
        count_bytes = None
        if self._metrics:
            self._metrics.begin(method)
            count_bytes = self._metrics.byte_counter(method)
        if not self._traces and not _log.isEnabledFor(logging.INFO):
            return Call(method, "", "", count_bytes)
        # Read the peer now: gRPC forgets it once the client has disconnected.
        return Call(method, context.peer(), self._client_name(context), count_bytes)
