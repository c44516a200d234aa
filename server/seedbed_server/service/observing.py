"""What operators see of a server: a line in the log for each request, metrics for Prometheus, and traces.

A line tells what a request was and how it ended. Whatever a client chose is quoted, so that no request can forge a
line. Metrics never have names of tensors or of clients as labels: their number is as small as the contract is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from seedbed import __version__
from seedbed.v1 import (
    DataType,
    DescribeTensorRequest,
    InitModelRequest,
    InitTensorRequest,
    TensorSlice,
)
from seedbed_server.service import listening
from seedbed_server.service.servicer import STREAMS, InitServicer
from seedbed_server.service.tracing import Traces

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")

_METRICS_HOST: Final = "127.0.0.1"
_LONGEST_NAME: Final = 80
_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)

_log = logging.getLogger(__name__)


class Call:
    """A request while it is answered.

    Args:
        method: The RPC, such as ``InitTensor``.
        peer: Where it comes from, as gRPC writes addresses; "" if nobody wants to know.
        client: Whose it is, by its token or certificate; "" if that is not known, or nobody wants to know.
        count_bytes: Told of bytes as they are sent, because a stream may take long.

    Attributes:
        request: What was asked, once it has been parsed.
        byte_count: Bytes of messages that were sent.
        status: How it ended, as the name of a ``google.rpc.Code``.
        error: What the client was told of its failure.
    """

    def __init__(self, method: str, peer: str, client: str, count_bytes: Callable[[float], None] | None) -> None:
        self.method = method
        self.request: Message | None = None
        self.byte_count = 0
        self.status = "CANCELLED"  # until it has ended otherwise: of a client that goes away, nobody tells
        self.error = ""
        self._peer = peer
        self._client = client
        self._count_bytes = count_bytes
        self._began = time.perf_counter()

    def sent(self, message: bytes) -> bytes:
        """Counts a message, and gives it back."""
        self.byte_count += len(message)
        if self._count_bytes is not None:
            self._count_bytes(len(message))
        return message

    def failed(self, status: status_pb2.Status) -> None:
        """The client is told of a failure."""
        self.status, self.error = code_pb2.Code.Name(status.code), status.message

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self._began

    def fields(self) -> dict[str, str | int | float]:
        """What the log tells of it."""
        fields: dict[str, str | int | float] = {"rpc": self.method, "status": self.status}
        fields["peer"] = self._peer
        if self._client:
            fields["client"] = self._client
        tensors = _tensors(self.request)
        if tensors:
            fields["tensors"] = len(tensors)
        if len(tensors) == 1 and self.byte_count:
            fields |= _tensor_fields(tensors[0])
        fields |= {"bytes": self.byte_count, "seconds": round(self.seconds(), 6)}
        return fields | ({"error": self.error} if self.error else {})

    def elements(self) -> dict[str, int]:
        """How many elements of each scheme were asked for; none before the request was found to be valid."""
        if self.method not in STREAMS or not self.byte_count:
            return {}
        elements: Counter[str] = Counter()
        first, already = _beginning(self.request)
        tensors = _tensors(self.request)
        for index in range(first, len(tensors)):
            elements[tensors[index].spec.WhichOneof("scheme")] += _element_count(tensors[index]) - already
            already = 0
        return elements


class Observer:
    """Tells the log, the metrics and the traces of each request.

    Args:
        metrics: What counts for Prometheus. Default nothing.
        traces: What OpenTelemetry is told. Default nothing.
        client_of: Whose a call is, by its token or certificate. Default nobody knows.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        traces: Traces | None = None,
        client_of: Callable[[grpc.ServicerContext], str] = lambda _: "",
    ) -> None:
        self._metrics = metrics
        self._traces = traces
        self._client_of = client_of

    @contextlib.contextmanager
    def observed(self, method: str, context: grpc.ServicerContext) -> Iterator[Call]:
        """Watches over a request: whatever way the block ends, it is told.

        Args:
            method: The RPC, such as ``InitTensor``.
            context: gRPC's side of it.
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
                _log.info(_Line(fields))

    def _begin(self, method: str, context: grpc.ServicerContext) -> Call:
        count_bytes = None
        if self._metrics:
            self._metrics.begin(method)
            count_bytes = self._metrics.byte_counter(method)
        if not self._traces and not _log.isEnabledFor(logging.INFO):
            return Call(method, "", "", count_bytes)
        # Now, for gRPC does not know it any more once the client has gone.
        return Call(method, context.peer(), self._client_of(context), count_bytes)


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        servicer: What answers.

    Attributes:
        registry: All of them.
        url: Where they can be read, once they can.

    Raises:
        ImportError: ``prometheus_client`` is not installed.

    >>> from seedbed_server import engine
    >>> metrics = Metrics(InitServicer(engine.open_backend("numpy")))
    >>> metrics.registry.get_sample_value("seedbed_open_streams")
    0.0
    """

    def __init__(self, servicer: InitServicer) -> None:
        import prometheus_client as prometheus  # noqa: PLC0415 - a tenth of a second, for those only who measure

        self.url = ""
        self.registry = registry = prometheus.CollectorRegistry()
        requests = prometheus.Counter(
            "seedbed_requests", "Requests that have ended, by RPC and status.", ["rpc", "status"], registry=registry
        )
        running = prometheus.Gauge(
            "seedbed_requests_running", "Requests that are being answered.", ["rpc"], registry=registry
        )
        seconds = prometheus.Histogram(
            "seedbed_request_seconds", "How long requests took.", ["rpc"], registry=registry, buckets=_SECONDS
        )
        sent_bytes = prometheus.Counter(
            "seedbed_sent_bytes", "Bytes of messages sent, by RPC.", ["rpc"], registry=registry
        )
        elements = prometheus.Counter(
            "seedbed_elements", "Elements that ended requests had asked for, by scheme.", ["scheme"], registry=registry
        )
        self._open_streams = prometheus.Gauge("seedbed_open_streams", "Streams that are open.", registry=registry)
        self._answers_waiting = prometheus.Gauge(
            "seedbed_answers_waiting", "Requests, other than streams, that wait for a thread.", registry=registry
        )
        backend = prometheus.Info("seedbed_backend", "What samples.", registry=registry)
        backend.info(
            {
                "version": __version__,
                "backend": servicer.backend.name,
                "device": servicer.backend.device,
                "threads": str(servicer.backend.threads),
            }
        )
        # Labels are looked up at each request, and few.
        self._requests = functools.cache(requests.labels)
        self._running = functools.cache(running.labels)
        self._seconds = functools.cache(seconds.labels)
        self._bytes = functools.cache(sent_bytes.labels)
        self._elements = functools.cache(elements.labels)

    def watch(self, open_streams: Callable[[], int], answers_waiting: Callable[[], int]) -> None:
        """Tells what a server counts itself, whenever the metrics are read."""
        self._open_streams.set_function(open_streams)
        self._answers_waiting.set_function(answers_waiting)

    def byte_counter(self, method: str) -> Callable[[float], None]:
        """What counts the bytes sent by an RPC."""
        return self._bytes(method).inc

    def begin(self, method: str) -> None:
        """A request begins."""
        self._running(method).inc()

    def end(self, call: Call) -> None:
        """A request has ended."""
        self._running(call.method).dec()
        self._requests(call.method, call.status).inc()
        self._seconds(call.method).observe(call.seconds())
        for scheme, count in call.elements().items():
            self._elements(scheme).inc(count)


@contextlib.contextmanager
def served(address: str | None, servicer: InitServicer) -> Iterator[Metrics | None]:
    """Serves metrics over HTTP within the block.

    Args:
        address: ``HOST:PORT``, or a port of this machine alone; port 0 takes a free one. None for no metrics.
        servicer: What answers.

    Raises:
        ValueError: It is not an address.
        OSError: It cannot be listened on, because it is taken or for another reason that the text tells.
    """
    if address is None:
        yield None
        return
    from prometheus_client import start_http_server  # noqa: PLC0415

    host, port = _host_and_port(address)
    metrics = Metrics(servicer)
    try:
        server, thread = start_http_server(port, host.removeprefix("[").removesuffix("]"), metrics.registry)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"metrics: {address}: cannot be listened on ({reason}); choose another address") from error
    metrics.url = f"http://{host}:{server.server_port}/metrics"
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def address_of(address: str | None, index: int) -> str | None:
    """Where one of several workers serves its metrics: each at the next port, or each at a free one.

    Args:
        address: What `served` takes, for the first.
        index: Which worker, counted from 0.

    Raises:
        ValueError: It is not an address.

    >>> address_of("9464", 2), address_of("0.0.0.0:0", 2)
    ('127.0.0.1:9466', '0.0.0.0:0')
    """
    if address is None:
        return None
    host, port = _host_and_port(address)
    return f"{host}:{port + index if port else 0}"


def configure_logging(level: str = "warning", log_format: str = "text") -> None:
    """Sends the log of this process to standard error, unless the process does something with it already.

    Args:
        level: One of `LEVELS`. From ``info`` on there is a line for each request.
        log_format: One of `FORMATS`.

    Raises:
        ValueError: There is no such level or format.
    """
    if level not in LEVELS:
        raise ValueError(f"log_level: {level!r} is unknown; give one of {', '.join(LEVELS)}")
    if log_format not in FORMATS:
        raise ValueError(f"log_format: {log_format!r} is unknown; give one of {', '.join(FORMATS)}")
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    # Of libraries only warnings: compilers tell their every step.
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("seedbed_server").setLevel(level.upper())


class _Line:
    """The fields of a line; text only if some handler wants text."""

    def __init__(self, fields: dict[str, str | int | float]) -> None:
        self.fields = fields

    def __str__(self) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in self.fields.items())


class _TextFormatter(logging.Formatter):
    """One line, and whatever follows it, such as an exception, is indented: nothing else begins like a line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(super().format(record).splitlines())


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, however many lines an exception has."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
        }
        told |= record.msg.fields if isinstance(record.msg, _Line) else {"message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def _host_and_port(address: str) -> tuple[str, int]:
    """The two parts of an address to read metrics at.

    >>> _host_and_port("0.0.0.0:9464"), _host_and_port("9464")
    (('0.0.0.0', 9464), ('127.0.0.1', 9464))
    """
    parts = listening.host_and_port(address if ":" in address else f"{_METRICS_HOST}:{address}")
    if parts is None:
        raise ValueError(f"metrics: {address!r} is not an address; give HOST:PORT, or a port of this machine alone")
    return parts


def _quoted(value: str | float) -> str:
    r"""A value in a line of text: in quotes, with escapes, unless it is a plain word.

    >>> print(_quoted("InitTensor"), _quoted(7), _quoted('two\nlines of "text"'))
    InitTensor 7 "two\nlines of \"text\""
    """
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return text if text and is_plain else json.dumps(text)


def _tensors(request: Message | None) -> Sequence[InitTensorRequest | DescribeTensorRequest | TensorSlice]:
    if isinstance(request, InitModelRequest):
        return request.tensors
    return (request,) if isinstance(request, InitTensorRequest | DescribeTensorRequest) else ()


def _tensor_fields(tensor: InitTensorRequest | DescribeTensorRequest | TensorSlice) -> dict[str, str | int | float]:
    """What the log tells of a tensor; its name only if that is short enough to be read, and nothing but text."""
    spec = tensor.spec
    dtype = DataType.Name(spec.dtype or DataType.DATA_TYPE_FLOAT32)
    fields: dict[str, str | int | float] = {
        "scheme": str(spec.WhichOneof("scheme")),
        "dtype": dtype.removeprefix("DATA_TYPE_").lower(),
        "elements": _element_count(tensor),
    }
    is_legible = spec.name.isprintable() and 0 < len(spec.name) <= _LONGEST_NAME
    return fields | ({"name": spec.name} if is_legible else {})


def _element_count(tensor: InitTensorRequest | DescribeTensorRequest | TensorSlice) -> int:
    """The elements of a valid request for a tensor; an invalid one may have too many dimensions to multiply."""
    if not tensor.HasField("region"):
        return math.prod(tensor.spec.shape)
    region = tensor.region
    return math.prod(stop - start for start, stop in zip(region.start, region.stop, strict=True))


def _beginning(request: Message | None) -> tuple[int, int]:
    """The tensor, and the element of it, at which an answer begins."""
    if isinstance(request, InitModelRequest):
        return request.resume.tensor_index, request.resume.first_element
    return 0, request.first_element if isinstance(request, InitTensorRequest) else 0
