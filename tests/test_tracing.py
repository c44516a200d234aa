"""Spans of requests, over sockets, exported to a collector in this process."""

import re
import subprocess
import sys
import time
from concurrent import futures

import grpc
import pytest
from _helpers.command import process
from _helpers.fake_backend import FakeBackend
from _helpers.servers import start_here
from _helpers.waiting import wait_until
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import seedbed
from seedbed.v1 import TensorSpec, Zeros
from seedbed_server.service import tracing


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def serve(exporter):
    """Starts servers whose spans go to the exporter; returns a client of each."""
    running = []

    def start_one(backend=None):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        server = start_here(backend, traces=tracing.Traces(provider))
        client = seedbed.connect(server.addresses[0], timeout=20)
        running.append((server, client))
        return client

    yield start_one
    for server, client in running:
        client.close()
        server.stop(0)


def spans(exporter, count=1):
    assert wait_until(lambda: len(exporter.get_finished_spans()) >= count)
    return exporter.get_finished_spans()


def test_the_span_of_a_tensor(serve, exporter):
    serve().zeros((3, 4), name="w", dtype="bfloat16")
    [span] = spans(exporter)
    assert span.name == "seedbed.v1.InitService/InitTensor"
    assert span.kind is trace.SpanKind.SERVER
    assert span.status.status_code is trace.StatusCode.UNSET
    attributes = dict(span.attributes)
    assert attributes.pop("seedbed.peer").startswith("ipv4:127.0.0.1:")
    assert 24 < attributes.pop("seedbed.bytes") < 200
    assert attributes == {
        "rpc.system": "grpc", "rpc.service": "seedbed.v1.InitService", "rpc.method": "InitTensor",
        "rpc.grpc.status_code": 0, "seedbed.tensors": 1, "seedbed.scheme": "zeros", "seedbed.dtype": "bfloat16",
        "seedbed.elements": 12, "seedbed.name": "w",
    }  # fmt: skip
    assert 0 < span.end_time - span.start_time < 5e9


def test_a_client_error_is_not_an_error_of_the_span(serve, exporter):
    with pytest.raises(seedbed.InvalidRequest):
        serve().describe(TensorSpec(shape=[3], zeros=Zeros(), algorithm_version=99))
    [span] = spans(exporter)
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert span.status.status_code is trace.StatusCode.UNSET


def test_a_server_error_is_an_error_of_the_span(serve, exporter):
    with pytest.raises(seedbed.InternalError):
        serve(FakeBackend(error=RuntimeError("a secret"))).zeros((3,))
    [span] = spans(exporter)
    assert span.status.status_code is trace.StatusCode.ERROR
    assert re.fullmatch(r"internal error [0-9a-f]{8}; .*", span.status.description)


def test_the_span_is_a_child_of_the_callers(serve, exporter):
    """OpenTelemetry's own gRPC instrumentation makes the caller's span."""
    provider = TracerProvider()
    GrpcInstrumentorClient().instrument(tracer_provider=provider)
    try:
        client = serve()
        with provider.get_tracer("trainer").start_as_current_span("initialise") as outer:
            client.describe(TensorSpec(shape=[3], zeros=Zeros()))
    finally:
        GrpcInstrumentorClient().uninstrument()
    [span] = spans(exporter)
    assert span.context.trace_id == outer.get_span_context().trace_id
    assert span.parent is not None


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.requests = []

    def Export(self, request, context):
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector():
    service = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)
    service.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"  # type: ignore[attr-defined]
    server.start()
    yield service
    server.stop(0)


def test_a_process_exports_spans_to_a_collector(collector):
    child = process("serve", "--listen", "127.0.0.1:0", "--backend", "numpy", "--traces", collector.url)
    target = re.search(r"serving on ([^;]+);", child.stdout.readline())[1]
    with seedbed.connect(target, timeout=20) as client:
        client.normal((100,), name="w")
    child.terminate()  # exports the remaining spans
    assert child.communicate(timeout=30)[1] == ""
    [resource] = [spans for request in collector.requests for spans in request.resource_spans]
    named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert (named["service.name"], named["service.version"]) == ("seedbed", seedbed.__version__)
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == [
        "seedbed.v1.InitService/InitTensor"
    ]


@pytest.mark.nightly
def test_a_missing_collector_delays_no_call(start_server):
    handle = start_server(traces="http://127.0.0.1:1")
    with seedbed.connect(handle.target, timeout=20) as client:
        begin = time.monotonic()
        client.ones((3,))
        assert time.monotonic() - begin < 5
    code, log = handle.terminate()
    assert code == 0
    assert "Traceback" not in log


def start_exporting(endpoint):
    with tracing.export_traces(endpoint):
        pass


def test_malformed_endpoints():
    with pytest.raises(
        ValueError, match=r"^traces: 'localhost:4317' is not a URL; give the collector's, such as http:"
    ):
        start_exporting("localhost:4317")


def test_without_the_extra_the_error_names_it():
    code = """
import sys
sys.modules["opentelemetry"] = None
from seedbed_server.service import tracing
try:
    tracing.export_traces("http://localhost:4317").__enter__()
except ValueError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(
        r"traces: OpenTelemetry is not installed \(.*\); run: pip install 'seedbed\[traces\]'\n", output
    )
