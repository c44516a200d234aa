"""Replicas: load balancing, stripes, and a replica that dies, is dead, or is not serving."""

import asyncio
import contextlib
import socket
import threading
import time

import numpy as np
import pytest
from _helpers.fake_backend import FakeBackend
from _helpers.waiting import wait_until
from grpc_health.v1 import health_pb2

import seedbed
from seedbed._receive import stripes
from seedbed._wire import targets
from seedbed.common.deadline import Deadline
from seedbed.v1 import Region, TensorSlice, TensorSpec
from seedbed_server.service.server import start
from seedbed_server.service.servicer import SERVICE_NAME

LARGE = seedbed.spec("normal", (1000, 16 << 10), std=0.02, seed=3, name="large")
SMALL = seedbed.spec("zeros", (4,))
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.contextmanager
def sync_client(target, **options):
    with seedbed.connect(target, timeout=30, **options) as client:
        yield client.init


@contextlib.contextmanager
def async_client(target, **options):
    with asyncio.Runner() as runner:
        client = seedbed.aio.connect(target, timeout=30, **options)
        yield lambda spec, **options: runner.run(client.init(spec, **options))
        runner.run(client.close())


# Targets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "address", "replicas"),
    [
        ("10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2", 2),
        ("10.0.0.1:1, 10.0.0.1:1", "ipv4:10.0.0.1:1", 1),
        ("[::1]:1,10.0.0.2:2", "ipv6:[::1]:1,[::ffff:10.0.0.2]:2", 2),
        ("10.0.0.1:1", "10.0.0.1:1", 1),
        ("dns:///127.0.0.1:1", "dns:///127.0.0.1:1", 1),
        ("dns:///no-such-host.invalid:1", "dns:///no-such-host.invalid:1", 1),
        ("unix:/a,b", "unix:/a,b", 1),
    ],
)
def test_targets_become_addresses_for_grpc(target, address, replicas):
    parsed = targets.parse(target).resolved()
    assert (parsed.address, parsed.replicas()) == (address, replicas)
    assert ("round_robin" in dict(parsed.options).get("grpc.service_config", "")) == (address[:3] in ("ipv", "dns"))


def test_addresses_of_one_name_are_counted(monkeypatch):
    found = [(2, 1, 6, "", (f"10.0.0.{i}", 50051)) for i in range(3)]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert targets.parse("dns:///seedbed.default.svc:50051").replicas() == 3


@pytest.mark.parametrize("target", ["a:1,", "a:1,b", "a:1,b:0", "a:1;b:2", "a:1,unix:/b"])
def test_invalid_lists(target):
    with pytest.raises(seedbed.InvalidRequest, match=r"^target: "):
        seedbed.connect(target)


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_hosts_that_do_not_resolve(client):
    unresolved = r"none of the hosts of a\.invalid:1,b\.invalid:1 can be resolved"
    with client("a.invalid:1,b.invalid:1", wait=0) as init, pytest.raises(seedbed.Unavailable, match=unresolved):
        init(SMALL)


@pytest.fixture
def named_late(monkeypatch, server):
    """A target of names that the name service knows, but not at once: it fails four times."""
    resolve, failures = socket.getaddrinfo, iter([socket.gaierror(socket.EAI_AGAIN, "temporary failure")] * 4)

    def getaddrinfo(host, *arguments, **options):
        if host != "replica":
            return resolve(host, *arguments, **options)
        if failure := next(failures, None):
            raise failure
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    port = server.rpartition(":")[2]
    return f"replica:{port},replica:{port}"


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_calls_wait_for_the_name_service(named_late, client):
    with client(named_late) as init:
        np.testing.assert_array_equal(init(SMALL), np.zeros(4, np.float32), strict=True)


def test_the_health_check_waits_for_the_name_service(named_late, seedbed_command):
    assert seedbed_command("health", "--target", named_late, "--wait", "60") == (0, "serving\n", "")


# Stripes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 1 << 20), (1, 7, 1 << 23), (1 << 26,), (3, 1 << 25)])
@pytest.mark.parametrize("max_stripes", [1, 2, 3, 8])
def test_stripes_cover_the_slice_once_and_in_order(shape, max_stripes):
    start = [1] * len(shape)
    tensor_slice = TensorSlice(
        spec=TensorSpec(shape=[size + 2 for size in shape], zeros={}),
        region=Region(start=start, stop=[size + 1 for size in shape]),
    )
    counted = 0
    for stripe, index in stripes.split(tensor_slice, max_stripes):
        extents = [high - low for low, high in zip(stripe.region.start, stripe.region.stop, strict=True)]
        place = [range(size)[cut] for size, cut in zip(shape, index, strict=False)]
        assert [len(cut) for cut in place] == extents[: len(place)]
        assert stripe.region.start[len(place) - 1] == 1 + place[-1].start
        assert place[-1].start * np.prod(shape[len(place) :], dtype=int) == counted
        counted += int(np.prod(extents))
    assert counted == np.prod(shape)


def test_small_tensors_are_not_divided():
    assert not stripes.is_large(TensorSlice(spec=TensorSpec(shape=[(32 << 20) // 4 - 1])))
    assert len(stripes.split(TensorSlice(spec=TensorSpec(shape=[48 << 18])), 8)) == 3
    assert len(stripes.split(TensorSlice(spec=TensorSpec()), 8)) == 1


# Servers in this process, which record their requests -----------------------------------------------------------------


@pytest.fixture
def servers():
    """Start servers with these backends; return the target of all, and the servers."""
    started = []

    def begin(*backends):
        started.extend(start(backend) for backend in backends)
        return ",".join(server.addresses[0] for server in started), started

    yield begin
    for server in started:
        server.stop(0)


def counting(count):
    """The values of fake backends: element i of each stripe is i mod 2048."""
    return np.arange(count, dtype=np.float32) % 2048


def connect_to_all(init, backends):
    """Make calls until all servers are connected; the first calls go to whichever connects first."""
    assert wait_until(lambda: init(SMALL) is None or all(backend.fills for backend in backends))
    for backend in backends:
        backend.fills.clear()


def test_calls_are_distributed_round_robin(servers):
    backends = FakeBackend(), FakeBackend()
    target, _ = servers(*backends)
    with sync_client(target) as init:
        connect_to_all(init, backends)
        for _ in range(10):
            init(SMALL)
    assert [len(backend.fills) for backend in backends] == [5, 5]


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_a_large_tensor_comes_from_all_replicas_at_once(servers, client):
    backends = FakeBackend(), FakeBackend()
    target, _ = servers(*backends)
    done = []
    out = np.empty((1000, 32 << 10), np.float32)[:, ::2]
    with client(target) as init:
        connect_to_all(init, backends)
        assert init(LARGE, out=out, progress=lambda *bytes_: done.append(bytes_)) is out
    half = counting(500 * (16 << 10)).reshape(500, -1)
    assert (out[:500] == half).all()
    assert (out[500:] == half).all()
    assert [sum(count for _, _, count in backend.fills) for backend in backends] == [500 * (16 << 10)] * 2
    assert done[-1] == (out.nbytes, out.nbytes)
    assert [total for total, _ in done] == sorted(total for total, _ in done)


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_an_error_of_one_stripe_ends_the_others(servers, client):
    slow, failing = backends = FakeBackend(), FakeBackend()
    target, _ = servers(*backends)
    with client(target) as init:
        connect_to_all(init, backends)
        slow.seconds, failing.error = 30, RuntimeError("a bug")
        began = time.monotonic()
        with pytest.raises(seedbed.InternalError):
            init(LARGE)
    assert time.monotonic() - began < 10
    assert slow.cancelled.wait(5) or not slow.fills  # its stripe may not have begun


def test_a_call_that_begins_after_a_failure_ends_at_once():
    deadline, ended = Deadline(None), []
    deadline.end()
    with deadline.ending(lambda: ended.append("late")):
        assert ended == ["late"]
    with Deadline(None).ending(lambda: ended.append("never")):
        pass
    assert ended == ["late"]


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_an_invalid_request_is_refused_before_any_stripe(servers, client):
    backends = FakeBackend(), FakeBackend()
    target, _ = servers(*backends)
    spec = seedbed.spec("normal", (1000, 16 << 10), std=-1.0)
    with client(target) as init, pytest.raises(seedbed.InvalidRequest) as error:
        init(spec)
    assert error.value.field == "spec.normal.std"
    assert not any(backend.fills for backend in backends)


def test_a_server_that_is_not_serving_is_skipped(servers):
    backends = FakeBackend(), FakeBackend()
    target, (first, _) = servers(*backends)
    first._health.set(SERVICE_NAME, NOT_SERVING)
    with seedbed.connect(target) as client:
        for _ in range(20):
            client.zeros((4,))
            time.sleep(0.01)
    assert not backends[0].fills


# Server processes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(start_server):
    return start_server(backend="numba"), start_server(backend="numba", chunk_bytes=100_000)


def target_of(*handles):
    return ",".join(handle.target for handle in handles)


@pytest.fixture(scope="module")
def large():
    with seedbed.connect("local:") as client:
        return client.init(LARGE)


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_stripes_of_different_servers_fit_together(pair, large, client):
    region = np.s_[7:990, 3:]
    with client(target_of(*pair)) as init:
        assert init(LARGE).tobytes() == large.tobytes()
        assert init(LARGE, region=region).tobytes() == large[region].tobytes()


def test_a_replica_that_was_never_there(pair, large):
    pair[0].kill()
    with sync_client(target_of(*pair)) as init:
        assert init(LARGE).tobytes() == large.tobytes()


def test_all_replicas_are_dead(pair):
    for handle in pair:
        handle.kill()
    with sync_client(target_of(*pair), wait=0) as init, pytest.raises(seedbed.Unavailable):
        init(LARGE)


@pytest.mark.parametrize("client", [sync_client, async_client])
def test_a_replica_killed_in_the_middle_of_a_tensor(pair, large, client):
    kill = killer(pair[0])
    with client(target_of(*pair)) as init:
        array = init(LARGE, progress=lambda done, total: done > total / 4 and kill())
    assert array.tobytes() == large.tobytes()
    assert pair[0].process.returncode is not None


@pytest.mark.parametrize("which", [0, 1])
def test_a_replica_killed_in_the_middle_of_a_model(pair, which):
    """The other replica resumes the stream where it broke."""
    specs = [seedbed.spec("normal", (200, 1000), name=f"layers.{i}.weight") for i in range(30)]
    kill = killer(pair[which])
    with seedbed.connect("local:") as local, seedbed.connect(target_of(*pair), timeout=30) as client:
        expected = local.init_model(specs)
        for index, (name, array) in enumerate(client.init_model(specs)):
            assert (name, array.tobytes()) == (lambda pair: (pair[0], pair[1].tobytes()))(next(expected))
            if index == 10:
                kill()
    assert index == 29


def killer(handle):
    once = threading.Lock()
    return lambda: once.acquire(blocking=False) and handle.kill()
