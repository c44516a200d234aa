"""The request log and the metrics of a server, over sockets."""

import hashlib
import json
import logging
import re
import socket
import urllib.request

import grpc
import pytest
from _helpers.fake_backend import FakeBackend
from _helpers.servers import start_here
from _helpers.waiting import wait_until
from prometheus_client.parser import text_string_to_metric_families

import seedbed
from seedbed.v1 import InitTensorRequest, TensorSpec, Zeros
from seedbed_server.service import logs, metrics_http, observer
from seedbed_server.service.metrics import Metrics
from seedbed_server.service.settings import Settings

ENDLESS = TensorSpec(shape=[1 << 40], zeros=Zeros())
FORGED = "w\n2026-01-01 00:00:00,000 INFO seedbed_server: rpc=InitTensor status=OK"


def zeros(*shape, **fields):
    return TensorSpec(shape=shape, zeros=Zeros(), **fields)


@pytest.fixture
def serve():
    """Starts servers in this process; returns a client of each."""
    running = []

    def start_one(backend=None, **options):
        server = start_here(backend, **options)
        client = seedbed.connect(server.addresses[0], timeout=20)
        running.append((server, client))
        return client

    yield start_one
    for server, client in running:
        client.close()
        server.stop(0)


@pytest.fixture
def lines(caplog):
    """The fields of the log lines of requests."""
    caplog.set_level(logging.INFO, observer.__name__)
    return lambda: [record.msg.fields for record in caplog.records if record.name == observer.__name__]


@pytest.fixture
def abandon():
    """Opens a stream and cancels it after its first message."""

    def abandon_one(target):
        with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_stream("/seedbed.v1.InitService/InitTensor")
            responses = call(InitTensorRequest(spec=ENDLESS).SerializeToString(), timeout=20)
            next(responses)
            responses.cancel()

    return abandon_one


# The log -------------------------------------------------------------------------------------------------------------


def test_the_log_line_of_a_tensor(serve, lines):
    client = serve()
    client.zeros((3, 4), name="layers.0.weight", dtype="bfloat16")
    [line] = lines()
    assert list(line) == [
        "rpc", "status", "peer", "tensors", "scheme", "dtype", "elements", "name", "bytes", "seconds",
    ]  # fmt: skip
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", line["peer"])
    assert (line["rpc"], line["status"], line["tensors"]) == ("InitTensor", "OK", 1)
    assert (line["scheme"], line["dtype"], line["elements"]) == ("zeros", "bfloat16", 12)
    assert line["name"] == "layers.0.weight"
    assert 24 < line["bytes"] < 200
    assert 0 < line["seconds"] < 5


def test_the_log_lines_of_other_requests(serve, lines):
    client = serve()
    client.describe(zeros(5))
    client.calculate_gain("relu")
    client.server_info()
    list(client.init_model([zeros(5, name="a"), zeros(6, name="b")]))
    describe, gain, info, model = lines()
    assert (describe["rpc"], describe["tensors"], describe["elements"]) == ("DescribeTensor", 1, 5)
    assert (gain["rpc"], info["rpc"]) == ("CalculateGain", "GetServerInfo")
    assert "tensors" not in gain
    assert (model["rpc"], model["tensors"]) == ("InitModel", 2)
    assert "elements" not in model
    assert model["bytes"] > 44


def test_the_elements_are_those_of_the_region(serve, lines):
    client = serve()
    client.zeros((10, 10), region=(slice(2, 4), slice(None)))
    assert lines()[0]["elements"] == 20


def test_the_log_line_of_an_invalid_request(serve, lines):
    client = serve()
    with pytest.raises(seedbed.InvalidRequest):
        client.describe(TensorSpec(shape=[3], zeros=Zeros(), algorithm_version=99))
    [line] = lines()
    assert (line["status"], line["bytes"], line["tensors"]) == ("INVALID_ARGUMENT", 0, 1)
    assert line["error"].startswith("spec.algorithm_version: ")
    assert "elements" not in line


def test_the_log_line_names_the_owner_of_the_token(lines, tmp_path):
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens = tmp_path / "tokens"
    tokens.write_text(f"alice:{digest}\n")
    metrics = Metrics(FakeBackend())
    server = start_here(tokens=tokens, metrics=metrics)
    try:
        with seedbed.connect(server.addresses[0], token="secret") as client:
            client.zeros((3,))
        for token in (None, "wrong"):
            with seedbed.connect(server.addresses[0], token=token) as client:
                with pytest.raises(seedbed.Unauthenticated):
                    client.zeros((3,))
                with pytest.raises(seedbed.Unauthenticated):
                    client.describe(zeros(3))
        with grpc.insecure_channel(server.addresses[0]) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/any/Thing")(b"", timeout=10)
    finally:
        server.stop(0)
    served, *refused = lines()
    assert (served["client"], served["status"]) == ("alice", "OK")
    assert [(line["rpc"], line["status"]) for line in refused] == [
        *[("InitTensor", "UNAUTHENTICATED"), ("DescribeTensor", "UNAUTHENTICATED")] * 2,
        ("unknown", "UNAUTHENTICATED"),
    ]
    assert not any("client" in line for line in refused)
    assert [line["error"].split(" token")[0] for line in refused[::2]] == [
        "this server requires a",
        "the",
        "this server requires a",
    ]

    def counted(rpc):
        return metrics.registry.get_sample_value("seedbed_requests_total", {"rpc": rpc, "status": "UNAUTHENTICATED"})

    assert [counted(rpc) for rpc in ("InitTensor", "DescribeTensor", "unknown")] == [2, 2, 1]
    assert metrics.registry.get_sample_value("seedbed_requests_running", {"rpc": "InitTensor"}) == 0


def test_the_log_line_of_a_cancelled_stream(serve, lines, abandon):
    client = serve()
    abandon(client.target)
    assert wait_until(lines)
    [line] = lines()
    assert (line["rpc"], line["status"]) == ("InitTensor", "CANCELLED")
    assert line["bytes"] > 0
    assert line["peer"].startswith("ipv4:127.0.0.1:")


def test_the_log_line_of_an_error_has_only_its_id(serve, lines, caplog):
    client = serve(FakeBackend(error=RuntimeError("the secret")))
    with pytest.raises(seedbed.InternalError):
        client.zeros((3,))
    [line] = lines()
    assert line["status"] == "INTERNAL"
    error_id = re.match(r"internal error (\w{8});", line["error"])[1]
    assert f"internal error {error_id}" in [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "secret" not in str(line)


@pytest.mark.parametrize("name", ["", "x" * 81, "a\x1b[2Jb", "a\u2028b", "a\u202eb", FORGED])
def test_long_or_unprintable_names_are_omitted(serve, lines, name):
    serve().zeros((3,), name=name)
    assert "name" not in lines()[0]


def record_of(fields):
    return logging.LogRecord("x", logging.INFO, "", 0, logs.Fields(fields), (), None)


@pytest.mark.parametrize("value", [FORGED, 'a" status="OK', "a b", "a=b", "é", "", "a\rb", "a\u0085b", "back\\slash"])
def test_no_value_can_forge_a_line_or_a_field(value):
    fields = {"rpc": "InitTensor", "name": value, "bytes": 7}
    [text] = logs.TextFormatter().format(record_of(fields)).splitlines()
    name = re.search(r"rpc=InitTensor name=(\".*\") bytes=7$", text)[1]
    assert json.loads(name) == value
    [text] = logs.JsonFormatter().format(record_of(fields)).splitlines()
    assert json.loads(text).items() >= fields.items()


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_no_exception_can_forge_a_line(formatter):
    try:
        raise RuntimeError(FORGED)
    except RuntimeError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed: %s", (error,), (RuntimeError, error, None))
    first, *others = formatter.format(record).splitlines()
    assert "RuntimeError" not in first or first.startswith("{")
    assert all(line.startswith("    ") for line in others)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_of_a_process(start_server, log_format):
    handle = start_server(log_level="info", log_format=log_format)
    with seedbed.connect(handle.target) as client:
        client.zeros((3,), name="a name")
        client.zeros((3,), name=FORGED)
    code, errors = handle.terminate()
    assert code == 0
    lines = errors.splitlines()
    assert len(lines) == 2
    if log_format == "json":
        entry = json.loads(lines[0])
        assert entry.items() >= {"level": "INFO", "rpc": "InitTensor", "status": "OK", "name": "a name"}.items()
        return
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \S+ INFO seedbed_server\S+: rpc=InitTensor status=OK peer=", x) for x in lines
    )
    assert 'name="a name"' in lines[0]
    assert "2026-01-01" not in errors


def test_a_process_logs_nothing_by_default(start_server):
    handle = start_server()
    with seedbed.connect(handle.target) as client:
        client.zeros((3,))
    assert handle.terminate() == (0, "")


def test_unknown_log_settings():
    with pytest.raises(ValueError, match="log_level: 'loud' is unknown; give one of debug, info"):
        Settings(log_level="loud")
    with pytest.raises(ValueError, match="log_format: 'xml' is unknown; give one of text, json"):
        Settings(log_format="xml")


# Metrics -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(serve):
    """A client of a server, and a function that reads its metrics over HTTP."""
    with metrics_http.serve_metrics("0", FakeBackend()) as metrics:

        def read():
            with urllib.request.urlopen(metrics.url, timeout=5) as response:
                families = list(text_string_to_metric_families(response.read().decode()))
            return {(sample.name, *sample.labels.values()): sample.value for f in families for sample in f.samples}

        yield serve(metrics=metrics), read


def test_metrics_of_requests(measured):
    client, read = measured
    client.zeros((3, 4))
    client.normal((10,))
    client.describe(zeros(1000))
    client.calculate_gain("relu")
    with pytest.raises(seedbed.InvalidRequest):
        client.describe(TensorSpec(shape=[3], zeros=Zeros(), algorithm_version=99))
    list(client.init_model([zeros(5, name="a"), zeros(6, name="b"), TensorSpec(shape=[2], ones={}, name="c")]))
    samples = read()
    assert samples["seedbed_requests_total", "InitTensor", "OK"] == 2
    assert samples["seedbed_requests_total", "DescribeTensor", "OK"] == 1
    assert samples["seedbed_requests_total", "DescribeTensor", "INVALID_ARGUMENT"] == 1
    assert samples["seedbed_requests_total", "CalculateGain", "OK"] == 1
    assert samples["seedbed_request_seconds_count", "InitModel"] == 1
    assert 0 < samples["seedbed_request_seconds_sum", "InitModel"] < 5
    assert 88 < samples["seedbed_sent_bytes_total", "InitTensor"] < 400
    assert samples["seedbed_elements_total", "zeros"] == 12 + 11
    assert samples["seedbed_elements_total", "normal"] == 10
    assert samples["seedbed_elements_total", "ones"] == 2
    assert samples["seedbed_requests_running", "InitTensor"] == 0
    assert samples["seedbed_answers_waiting",] == 0
    [backend] = [key for key in samples if key[0] == "seedbed_backend_info"]
    assert set(backend) > {"fake", "nothing"}
    assert not any("'a'" in str(key) for key in samples)


def test_metrics_of_open_streams(measured, abandon):
    client, read = measured
    with grpc.insecure_channel(client.target) as channel:
        call = channel.unary_stream("/seedbed.v1.InitService/InitTensor")
        responses = call(InitTensorRequest(spec=ENDLESS).SerializeToString(), timeout=20)
        next(responses)
        samples = read()
        assert (samples["seedbed_open_streams",], samples["seedbed_requests_running", "InitTensor"]) == (1, 1)
        assert samples["seedbed_sent_bytes_total", "InitTensor"] >= 1 << 20  # while it runs
        responses.cancel()
    assert wait_until(lambda: read().get(("seedbed_requests_total", "InitTensor", "CANCELLED")) == 1)
    samples = read()
    assert (samples["seedbed_open_streams",], samples["seedbed_requests_running", "InitTensor"]) == (0, 0)


def test_metrics_of_an_internal_error(serve):
    metrics = Metrics(FakeBackend())
    client = serve(FakeBackend(error=RuntimeError("x")), metrics=metrics)
    with pytest.raises(seedbed.InternalError):
        client.zeros((3,))
    labels = {"rpc": "InitTensor", "status": "INTERNAL"}
    assert metrics.registry.get_sample_value("seedbed_requests_total", labels) == 1


def test_a_resumed_stream_counts_only_the_remaining_elements(serve):
    metrics = Metrics(FakeBackend())
    client = serve(metrics=metrics)
    with grpc.insecure_channel(client.target) as channel:
        call = channel.unary_stream("/seedbed.v1.InitService/InitTensor")
        list(call(InitTensorRequest(spec=zeros(10), first_element=7).SerializeToString(), timeout=20))
    assert metrics.registry.get_sample_value("seedbed_elements_total", {"scheme": "zeros"}) == 3


def test_metrics_of_a_process(start_server):
    handle = start_server(metrics="0")
    url = re.search(r"; metrics on (http://127\.0\.0\.1:\d+/metrics)$", handle.banner.strip())[1]
    with urllib.request.urlopen(url, timeout=5) as response:
        assert b"seedbed_open_streams 0.0" in response.read()
    assert handle.terminate() == (0, "")


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(OSError, match=rf"metrics: cannot listen on {port} \(Address already in use\)"),
            metrics_http.serve_metrics(str(port), FakeBackend()),
        ):
            pass


@pytest.mark.parametrize("address", ["", "localhost:", ":9464", "localhost:x", "localhost:65536", "host", "-1"])
def test_malformed_addresses(address):
    with pytest.raises(ValueError, match=r"metrics: .* is not an address; give HOST:PORT, or a port"):
        metrics_http._host_and_port(address)


def test_an_unknown_host():
    with (
        pytest.raises(OSError, match=r"metrics: cannot listen on no-such-host\.invalid:0"),
        metrics_http.serve_metrics("no-such-host.invalid:0", FakeBackend()),
    ):
        pass
