"""Spans of requests for OpenTelemetry, each the child of the caller's span where the caller sends one.

What the SDK takes from its own variables (``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``, ...) it takes here, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc import code_pb2

from seedbed import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: with the other codes, the client erred and not the server.
_SERVERS_ERRORS: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
_SERVICE: Final = "seedbed.v1.InitService"


class Traces:
    """Makes spans.

    Args:
        provider: What takes them; see `exported`.

    Raises:
        ImportError: ``opentelemetry-sdk`` is not installed.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - an extra

        self._provider = provider
        self._tracer = provider.get_tracer("seedbed_server", __version__)
        self._extract = propagate.extract
        self._trace = trace

    def begin(self, method: str, context: grpc.ServicerContext) -> Span:
        """A request begins.

        Args:
            method: The RPC, such as ``InitTensor``.
            context: gRPC's side of it, with the caller's span in its metadata.
        """
        carrier = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return self._tracer.start_span(
            f"{_SERVICE}/{method}",
            self._extract(carrier),
            self._trace.SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": _SERVICE, "rpc.method": method},
        )

    def end(self, span: Span, status: str, fields: Mapping[str, str | int | float]) -> None:
        """A request has ended.

        Args:
            span: What `begin` gave.
            status: How it ended, as the name of a ``google.rpc.Code``.
            fields: What the log would tell of it.
        """
        span.set_attribute("rpc.grpc.status_code", code_pb2.Code.Value(status))
        for name in fields.keys() - {"rpc", "status", "seconds"}:
            span.set_attribute(f"seedbed.{name}", fields[name])
        if status in _SERVERS_ERRORS:
            span.set_status(self._trace.StatusCode.ERROR, str(fields.get("error", "")))
        span.end()

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def exported(endpoint: str) -> Traces:
    """Sends spans to a collector, over OTLP and gRPC.

    Args:
        endpoint: Where it listens, such as ``http://localhost:4317``; ``https`` for TLS.

    Raises:
        ValueError: It is not a URL, or the extra is not installed.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"traces: {endpoint!r} is not a collector's URL; give one such as http://localhost:4317")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"traces: OpenTelemetry is not installed ({error}); run: pip install 'seedbed[traces]'"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME") or "seedbed"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Traces(provider)
