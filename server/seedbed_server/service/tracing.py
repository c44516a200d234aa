"""OpenTelemetry spans of requests. Each is a child of the caller's span, if the caller sends one.

The SDK's own environment variables (``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``, ...) apply.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc import code_pb2

from seedbed._version import __version__
from seedbed_server.service.logs import Value
from seedbed_server.service.servicer import SERVICE_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: the other codes are errors of the client.
_SERVER_ERRORS: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class Traces:
    """Creates the spans of requests.

    Args:
        provider: Receives the spans; see `export_traces`.

    Raises:
        ImportError: ``opentelemetry-sdk`` is not installed.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - an optional dependency

        self._provider = provider
        self._tracer = provider.get_tracer("seedbed_server", __version__)
        self._extract = propagate.extract
        self._trace = trace

    def begin(self, method: str, context: grpc.ServicerContext) -> Span:
        """Starts the span of a request.

        Args:
            method: The RPC, such as ``InitTensor``.
            context: The call's gRPC context; its metadata may hold the caller's span.
        """
        carrier = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return self._tracer.start_span(
            f"{SERVICE_NAME}/{method}",
            self._extract(carrier),
            self._trace.SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": SERVICE_NAME, "rpc.method": method},
        )

    def end(self, span: Span, status: str, fields: Mapping[str, Value]) -> None:
        """Ends the span of a request.

        Args:
            span: The span that `begin` returned.
            status: The outcome, as the name of a ``google.rpc.Code``.
            fields: The fields of the request's log line.
        """
        span.set_attribute("rpc.grpc.status_code", code_pb2.Code.Value(status))
        for name in fields.keys() - {"rpc", "status", "seconds"}:
            span.set_attribute(f"seedbed.{name}", fields[name])
        if status in _SERVER_ERRORS:
            span.set_status(self._trace.StatusCode.ERROR, str(fields.get("error", "")))
        span.end()

    def close(self) -> None:
        """Exports the remaining spans."""
        self._provider.shutdown()


@contextlib.contextmanager
def export_traces(endpoint: str | None) -> Iterator[Traces | None]:
    """Exports spans to a collector within the block, with OTLP over gRPC.

    Args:
        endpoint: The collector's URL, such as ``http://localhost:4317``; ``https`` uses TLS. None for no traces.

    Raises:
        ValueError: The endpoint is not a URL, or OpenTelemetry is not installed.
    """
    if endpoint is None:
        yield None
        return
    traces = Traces(_exporting_provider(endpoint))
    try:
        yield traces
    finally:
        traces.close()


def _exporting_provider(endpoint: str) -> TracerProvider:
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"traces: {endpoint!r} is not a URL; give the collector's, such as http://localhost:4317")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME as NAME  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_VERSION as VERSION  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"traces: OpenTelemetry is not installed ({error}); run: pip install 'seedbed[traces]'"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME") or "seedbed"
    provider = TracerProvider(resource=Resource.create({NAME: name, VERSION: __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider
