"""The limits of a server, over sockets; and its configuration."""

import logging
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
from _helpers.fake_backend import FakeBackend
from _helpers.servers import servers_here
from _helpers.waiting import wait_until

import seedbed
from seedbed.v1 import InitModelRequest, InitTensorRequest, Region, ResumePoint, TensorSlice, TensorSpec, Zeros
from seedbed_server import engine
from seedbed_server.service import admission, observer, stalls
from seedbed_server.service.servicer import InitServicer
from seedbed_server.service.settings import OPTIONS, Settings

ENDLESS = TensorSpec(shape=[1 << 40], zeros=Zeros())


def zeros(*shape, **fields):
    return TensorSpec(shape=shape, zeros=Zeros(), **fields)


def never():
    return False


@pytest.fixture
def serve():
    """Starts servers in this process."""
    with servers_here() as start_one:
        yield start_one


@pytest.fixture
def open_stream():
    """Opens streams, each on its own connection, and reads one message of each."""
    channels = []

    def open_one(server, spec=ENDLESS):
        channels.append(grpc.insecure_channel(server.addresses[0], [("grpc.use_local_subchannel_pool", 1)]))
        call = channels[-1].unary_stream("/seedbed.v1.InitService/InitTensor")
        responses = call(InitTensorRequest(spec=spec).SerializeToString(), timeout=60)
        next(responses)
        return responses

    yield open_one
    for channel in channels:
        channel.close()


# Bytes and tensors of a request --------------------------------------------------------------------------------------


def test_a_tensor_above_the_response_limit(serve):
    server = serve(max_response_bytes=400)
    with seedbed.connect(server.addresses[0]) as client:
        assert client.zeros((100,)).shape == (100,)
        with pytest.raises(seedbed.InvalidRequest) as error:
            client.zeros((101,))
        assert client.zeros((101,), region=np.s_[1:]).shape == (100,)
        assert client.describe(zeros(101)).byte_count == 404
    assert str(error.value) == (
        "region: is 404 bytes, over the limit of 400 for one response (max_response_bytes); "
        "request smaller regions, one after the other"
    )


def test_a_model_above_the_response_limit(serve):
    server = serve(max_response_bytes=400)
    specs = [zeros(50, name="a"), zeros(51, name="b")]
    with seedbed.connect(server.addresses[0]) as client:
        assert len(list(client.init_model([specs[0], zeros(50, name="c")]))) == 2
        with pytest.raises(seedbed.InvalidRequest) as error:
            list(client.init_model(specs))
    assert str(error.value) == (
        "tensors: is 404 bytes, over the limit of 400 for one response (max_response_bytes); "
        "request fewer tensors at a time, or regions of them"
    )


def test_bytes_before_the_resume_point_do_not_count():
    servicer = InitServicer(FakeBackend(), Settings(max_response_bytes=8))
    assert list(servicer.init_tensor(InitTensorRequest(spec=zeros(100), first_element=98), never))
    tensors = [TensorSlice(spec=zeros(9)), TensorSlice(spec=zeros(9)), TensorSlice(spec=zeros(1))]
    for resume, byte_count in [((1, 8), 8), ((1, 7), 12), ((2, 0), 4), ((0, 9), 40), ((3, 0), 0)]:
        point = ResumePoint(tensor_index=resume[0], first_element=resume[1])
        request = InitModelRequest(tensors=tensors, resume=point)
        if byte_count <= 8:
            list(servicer.init_model(request, never))
            continue
        with pytest.raises(engine.InvalidSpec, match=f"is {byte_count} bytes, over the limit of 8"):
            servicer.init_model(request, never)


def test_only_the_region_counts():
    servicer = InitServicer(FakeBackend(), Settings(max_response_bytes=8))
    part = TensorSlice(spec=zeros(1000), region=Region(start=[5], stop=[7]))
    assert list(servicer.init_model(InitModelRequest(tensors=[part]), never))


def test_a_model_above_the_tensor_limit(serve):
    server = serve(max_tensors=2)
    with seedbed.connect(server.addresses[0]) as client:
        assert len(list(client.init_model([zeros(1, name="a"), zeros(1, name="b")]))) == 2
        with pytest.raises(seedbed.InvalidRequest) as error:
            list(client.init_model([zeros(1, name="a"), zeros(1, name="b"), zeros(1, name="c")]))
    assert str(error.value) == (
        "tensors: are 3, over the limit of 2 for one model (max_tensors); request fewer at a time"
    )


# Streams -------------------------------------------------------------------------------------------------------------


def test_an_orthogonal_matrix_above_the_limit(serve):
    server = serve(max_orthogonal_elements=100)
    with seedbed.connect(server.addresses[0]) as client:
        client.orthogonal((10, 10))
        client.normal((11, 10))
        for refused in (client.orthogonal, lambda shape: client.describe(seedbed.spec("orthogonal", shape))):
            with pytest.raises(seedbed.InvalidRequest, match="110 elements, over this server's limit of 100") as error:
                refused((11, 10))
            assert error.value.field == "spec.shape"
        model = [seedbed.spec("zeros", (3,), name="a"), seedbed.spec("orthogonal", (11, 10), name="b")]
        with pytest.raises(seedbed.InvalidRequest) as error:
            list(client.init_model(model))
        assert error.value.field == "tensors[1].spec.shape"


def test_a_request_above_the_limit(serve):
    server = serve(max_request_bytes=4096)
    with seedbed.connect(server.addresses[0]) as client:
        client.describe(zeros(3, name="n" * 1000))
        with pytest.raises(seedbed.ResourceExhausted, match="max_request_bytes"):
            list(client.init_model([zeros(3, name=f"{'n' * 100}{index}") for index in range(100)]))


def test_more_streams_than_the_limit_per_client(serve, open_stream, tmp_path):
    server = serve(listen=["127.0.0.1:0", f"unix:{tmp_path}/s.sock"], max_streams_per_client=2)
    streams = [open_stream(server) for _ in range(2)]
    with seedbed.connect(server.addresses[0]) as client, seedbed.connect(server.addresses[1]) as other:
        with pytest.raises(seedbed.DeadlineExceeded) as error:
            client.uniform((3,), timeout=0.5)
        assert client.describe(zeros(3)).element_count == 3
        assert other.zeros((3,)).shape == (3,)
        streams[0].cancel()
        assert wait_until(lambda: server._admission.count == 1)
        assert client.zeros((3,)).shape == (3,)
    assert str(error.value).endswith(
        "(the server was full: ipv4:127.0.0.1 is at the limit of 2 streams per client (max_streams_per_client); "
        "retry once one of them has ended)"
    )
    streams[1].cancel()
    assert wait_until(lambda: not server._admission._count_per_client)


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:10.0.0.7:41234", "ipv4:10.0.0.7"), ("ipv6:%5B::1%5D:4", "ipv6:%5B::1%5D"), ("unix:", "unix:")],
)
def test_the_host_of_a_peer(peer, host):
    assert admission._host(peer) == host


def test_the_stream_of_a_client_that_does_not_read_is_ended(serve, open_stream, caplog):
    server = serve(stall_timeout=0.3, max_streams=1)
    responses = open_stream(server)
    assert wait_until(lambda: server._admission.count == 0)
    [record] = [record for record in caplog.records if record.name == stalls.__name__]
    assert record.levelno == logging.WARNING
    assert "the client read nothing for 0.3 s (stall_timeout)" in record.getMessage()
    assert "127.0.0.1" in record.getMessage()
    with seedbed.connect(server.addresses[0]) as client:
        assert client.zeros((3,)).shape == (3,)
    with pytest.raises(grpc.RpcError) as error:
        list(responses)
    assert error.value.code() is grpc.StatusCode.CANCELLED  # clients treat it as a broken connection, and resume
    began = time.monotonic()
    server.stop(20)  # waits for the threads
    assert time.monotonic() - began < 5
    assert server._stall_guard._sending_since == {}


def test_a_client_that_reads_on_after_a_stall_receives_everything(serve, caplog):
    server = serve(stall_timeout=0.2)
    specs = [zeros(10_000_000, name=str(index)) for index in range(3)]
    with seedbed.connect(server.addresses[0]) as client:
        models = client.init_model(specs)
        arrays = [next(models)[1]]
        assert wait_until(lambda: "stall_timeout" in caplog.text)
        arrays += [array for _, array in models]
    expected = (np.arange(10_000_000) % 2048).astype(np.float32)
    assert all((array == expected).all() for array in arrays)
    assert len(arrays) == 3


def test_a_slow_reader_is_not_stalled(serve, open_stream, caplog):
    server = serve(stall_timeout=0.5)
    responses = open_stream(server)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        next(responses)
        time.sleep(0.01)
    assert server._admission.count == 1
    assert "stall_timeout" not in caplog.text


def test_without_a_stall_timeout_nothing_is_watched(serve, open_stream):
    server = serve(stall_timeout=0)
    open_stream(server)
    assert server._stall_guard._sending_since == {}


def test_more_connections_than_the_limit(serve):
    server = serve(max_connections=2)
    target = server.addresses[0]
    with seedbed.connect(target) as one, seedbed.connect(target) as other:
        assert one.ones((3,)).sum() == other.ones((3,)).sum() == 3
        with seedbed.connect(target, timeout=1) as further, pytest.raises(seedbed.SeedbedError) as refused:
            further.server_info()
        assert isinstance(refused.value, seedbed.errors.Unavailable | seedbed.errors.DeadlineExceeded)
        assert one.ones((3,)).sum() == 3

    def is_served():
        with seedbed.connect(target, timeout=1) as late:
            try:
                return late.ones((3,)).sum() == 3
            except seedbed.SeedbedError:
                return False

    assert wait_until(is_served)


def test_a_grpc_that_cannot_limit_connections(serve, monkeypatch):
    monkeypatch.setattr("grpc.__version__", "1.65.5")
    serve()
    with pytest.raises(ValueError, match=r"^max_connections: 2 needs grpcio 1.66, and 1.65.5 is installed; run: pip"):
        serve(max_connections=2)


def test_an_old_connection_is_replaced_and_finishes_its_stream(serve, caplog):
    caplog.set_level(logging.INFO, observer.__name__)
    server = serve(max_connection_age=0.3)
    with grpc.insecure_channel(server.addresses[0], [("grpc.use_local_subchannel_pool", 1)]) as channel:
        init = channel.unary_stream("/seedbed.v1.InitService/InitTensor")
        info = channel.unary_unary("/seedbed.v1.InitService/GetServerInfo")
        responses = init(InitTensorRequest(spec=zeros(10_000_000)).SerializeToString(), timeout=20)
        received = len(next(responses))
        info(b"", timeout=5)
        time.sleep(0.8)
        info(b"", timeout=5, wait_for_ready=True)
        received += sum(map(len, responses))
    assert received > 40_000_000
    peers = [record.msg.fields["peer"] for record in caplog.records if record.msg.fields["rpc"] == "GetServerInfo"]
    assert len(set(peers)) == 2


# Reporting and configuring -------------------------------------------------------------------------------------------


def test_limits_are_reported(serve):
    server = serve(
        max_response_bytes=1 << 30, max_tensors=1000, max_streams=7, max_streams_per_client=3, stall_timeout=2.5,
        max_connection_age=60, max_connections=9, max_request_bytes=1 << 16, max_orthogonal_elements=100,
    )  # fmt: skip
    with seedbed.connect(server.addresses[0]) as client:
        limits = client.server_info().limits
    assert (limits.max_response_bytes, limits.max_tensors, limits.max_streams) == (1 << 30, 1000, 7)
    assert (limits.max_streams_per_client, limits.stall_timeout_seconds, limits.max_connection_age_seconds) == (
        3,
        2.5,
        60,
    )
    assert (limits.max_connections, limits.max_request_bytes, limits.max_orthogonal_elements) == (9, 1 << 16, 100)


def test_in_process_there_are_no_such_limits():
    with seedbed.connect("local:") as client:
        limits = client.server_info().limits
    assert limits.max_response_bytes == limits.max_tensors == limits.max_streams == limits.stall_timeout_seconds == 0


@pytest.mark.parametrize("name", ["max_streams_per_client", "stall_timeout", "max_connections", "max_connection_age"])
@pytest.mark.parametrize("value", [-1, 2**40, float("inf"), float("nan")])
def test_limits_out_of_range(serve, name, value):
    with pytest.raises(ValueError, match=rf"^{name}: \S+ is not between 0 and \d+; give 0 for no limit"):
        serve(**{name: value})


@pytest.mark.parametrize("name", ["max_response_bytes", "max_tensors"])
@pytest.mark.parametrize("value", [-1, 2**63])
def test_limits_of_requests_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"^{name}: {value} is not between 0 and"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_orthogonal_elements", (1 << 26) + 1), ("max_orthogonal_elements", -1), ("max_request_bytes", 100)],
)
def test_limits_with_other_bounds(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: {value} is not between \d+ and \d+"):
        Settings(**{name: value})


@pytest.fixture
def served_with(monkeypatch):
    """The settings that ``seedbed serve`` would run with."""
    settings = {}
    monkeypatch.setattr("seedbed_server.service.process.run", lambda chosen: settings.update(vars(chosen)))
    monkeypatch.delenv("SEEDBED_WORKERS", raising=False)
    return settings


def test_flags_override_variables_and_variables_override_the_file(ok, served_with, monkeypatch, tmp_path):
    file = tmp_path / "seedbed.toml"
    file.write_text(
        'listen = ["127.0.0.1:1", "127.0.0.1:2"]\nmax-streams = 1\nmax-tensors = 1\nstall-timeout = 1.5\n'
        'log-format = "json"\nbackend = "numpy"\n'
    )
    monkeypatch.setenv("SEEDBED_MAX_STREAMS", "2")
    monkeypatch.setenv("SEEDBED_MAX_TENSORS", "2")
    ok("serve", "--config", file, "--max-streams", "3")
    assert (served_with["max_streams"], served_with["max_tensors"], served_with["stall_timeout"]) == (3, 2, 1.5)
    assert served_with["listen"] == ("127.0.0.1:1", "127.0.0.1:2")
    assert (served_with["log_format"], served_with["backend"]) == ("json", "numpy")
    assert served_with["grace"] == Settings().grace


def example(option):
    """A valid value that is not the default, as text."""
    if option.choices:
        return option.choices[-1 if option.choices[-1] == "json" else 0]
    if option.parse is bool:
        return "true"
    return "seedbed" if option.least is None else str(int(option.least) + 1)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_setting_has_a_flag_a_variable_and_a_key(ok, served_with, monkeypatch, tmp_path, name):
    option, text = OPTIONS[name], example(OPTIONS[name])
    value = option.parse(text)
    expected = (value,) if option.repeated else value
    assert expected != getattr(Settings(), name)

    flag = f"--{name.replace('_', '-')}"
    ok("serve", *([flag] if option.parse is bool else [flag, text]))
    assert served_with[name] == expected

    file = tmp_path / "seedbed.toml"
    file.write_text(f"{flag.removeprefix('--')} = '{text}'\n")
    ok("serve", "--config", file)
    assert served_with[name] == expected

    monkeypatch.setenv(option.envvar or f"SEEDBED_{name.upper()}", text)
    ok("serve")
    assert served_with[name] == expected


def test_without_options_the_command_has_the_defaults_of_the_settings(ok, served_with):
    ok("serve")
    assert served_with == vars(Settings())


def test_every_default_is_in_range():
    for name, option in OPTIONS.items():
        option.check(name, getattr(Settings, name))
    assert Settings.max_orthogonal_elements == OPTIONS["max_orthogonal_elements"].most
    assert Settings.max_orthogonal_elements == engine.MAX_ORTHOGONAL_ELEMENTS


def test_without_the_server_the_command_says_what_to_install():
    code = """
import sys
sys.modules["seedbed_server"] = None
from seedbed.cli import main
sys.exit(main(["serve", "--listen", "127.0.0.1:0"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "the server is not installed" in result.stderr
    assert "pip install 'seedbed[server]'" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-stream = 1\nmax_tensors = 2\n", "unknown keys: max-stream, max_tensors; known are backend,"),
        ("max-streams = 0\n", "--max-streams"),
        ("max-streams = 1.5\n", "--max-streams"),
        ('config = "other.toml"\n', "unknown keys: config"),
        ("max-streams = \n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_an_unusable_configuration_file(seedbed_command, served_with, tmp_path, text, message):
    file = tmp_path / "seedbed.toml"
    if text is not None:
        file.write_text(text)
    code, _, err = seedbed_command("serve", "--config", file)
    assert code == 2
    assert message in " ".join(err.split())
    assert not served_with


def test_a_single_address_in_the_file_needs_no_list(ok, served_with, tmp_path):
    file = tmp_path / "seedbed.toml"
    file.write_text('listen = "127.0.0.1:1"\n')
    ok("serve", "--config", file)
    assert served_with["listen"] == ("127.0.0.1:1",)


def test_info_shows_the_limits(ok, serve):
    server = serve(max_tensors=1000, stall_timeout=2.5)
    rows = dict(line.split("   ", 1) for line in ok("info", "--target", server.addresses[0]).splitlines())
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    assert rows["max tensors per model"] == "1,000"
    assert rows["stall timeout"] == "2.5 s"
    assert rows["max response"] == rows["max connection age"] == "no limit"
