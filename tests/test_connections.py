"""A client's connections: their number, when they are opened, and that stripes fit together."""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from _helpers.fake_backend import FakeBackend
from _helpers.waiting import wait_until

import seedbed
from seedbed._ask import arguments as _arguments
from seedbed._wire import targets
from seedbed.common import cores as _cores
from seedbed_server.service.server import start

LARGE = seedbed.spec("normal", (1000, 16 << 10), std=0.02, seed=3, name="large")  # 62.5 MiB: at most three stripes
SMALL = seedbed.spec("normal", (1000, 1000), seed=3, name="small")


@pytest.fixture
def peers(caplog):
    """The peers of the streams of a server in this process."""
    caplog.set_level(logging.INFO, "seedbed_server.service.observer")
    return lambda: [
        record.msg.fields["peer"] for record in caplog.records if record.msg.fields["rpc"].startswith("Init")
    ]


@pytest.fixture
def target():
    server = start(FakeBackend())
    yield server.addresses[0]
    server.stop(0)


@contextlib.contextmanager
def sync_client(target, **options):
    with seedbed.connect(target, timeout=30, **options) as client:
        yield client.init


@contextlib.contextmanager
def async_client(target, **options):
    with asyncio.Runner() as runner:
        client = seedbed.aio.connect(target, timeout=30, **options)
        yield lambda spec, **arguments: runner.run(client.init(spec, **arguments))
        runner.run(client.close())


both = pytest.mark.parametrize("client", [sync_client, async_client])


@both
@pytest.mark.parametrize(("connections", "used"), [(1, 1), (2, 2), (8, 3)])
def test_a_large_tensor_uses_several_connections(target, peers, client, connections, used):
    with client(target, connections=connections) as init:
        init(LARGE)
    assert len(peers()) == len(set(peers())) == used


@both
def test_small_tensors_open_no_further_connections(target, peers, client):
    with client(target, connections=4) as init:
        for _ in range(5):
            init(SMALL)
    assert len(peers()) == 5
    assert len(set(peers())) == 1


@both
def test_connections_are_reused(target, peers, client):
    with client(target, connections=3) as init:
        init(LARGE)
        init(LARGE)
    assert len(peers()) == 6
    assert len(set(peers())) == 3


def test_many_threads_share_the_connections(target, peers):
    with sync_client(target, connections=3) as init, ThreadPoolExecutor(4) as pool:
        list(pool.map(init, [LARGE] * 4))
    assert len(peers()) == 12
    assert len(set(peers())) == 3


@both
def test_the_stripes_fit_together(start_server, client):
    with seedbed.connect("local:") as local:
        expected = local.init(LARGE)
    region = np.s_[7:990, 3:]
    with client(start_server(backend="numba", workers=2).target, connections=3) as init:
        assert init(LARGE).tobytes() == expected.tobytes()
        assert init(LARGE, region=region).tobytes() == expected[region].tobytes()


def test_a_closed_client_opens_no_connection(target):
    client = seedbed.connect(target, connections=4)
    client.close()
    with pytest.raises(seedbed.Cancelled, match="is closed"):
        client.init(LARGE)


@both
def test_closing_the_client_closes_its_connections(client, target):
    with client(target, connections=3) as init:
        init(LARGE)
        assert open_connections(target) == 3
    assert wait_until(lambda: open_connections(target) == 0)


def open_connections(target):
    """The number of TCP connections of a server on this machine, from the kernel's table."""
    port, established = f":{int(target.rpartition(':')[2]):04X}", "01"
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    return sum(local.endswith(port) and state == established for _, local, _, state, *_ in lines)


# The number of connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "connections", "spread"),
    [
        ("a:1", 1, [0]),
        ("a:1", 3, [0, 1, 2]),
        ("10.0.0.1:1,10.0.0.2:1", 1, [0, 0]),
        ("10.0.0.1:1,10.0.0.2:1", 4, [0, 0, 1, 1]),
        ("10.0.0.1:1,10.0.0.2:1,10.0.0.3:1", 2, [0, 0, 0]),
        ("10.0.0.1:1,10.0.0.2:1,10.0.0.3:1", 4, [0, 0, 0, 1]),
    ],
)
def test_streams_spread_over_replicas_and_connections(target, connections, spread):
    assert targets.parse(target).spread(connections) == spread


@pytest.mark.parametrize(("cores", "connections"), [(1, 1), (2, 2), (64, 4)])
def test_the_default_is_four_but_at_most_the_cores(monkeypatch, cores, connections):
    monkeypatch.delenv("SEEDBED_CONNECTIONS", raising=False)
    monkeypatch.setattr(_cores, "usable_cores", lambda: cores)
    assert _arguments.connections(None) == connections


def test_the_environment_sets_the_default(monkeypatch):
    monkeypatch.setenv("SEEDBED_CONNECTIONS", "7")
    assert _arguments.connections(None) == 7
    assert _arguments.connections(2) == 2


@pytest.mark.parametrize("value", [0, -1, 65, 2.5, True, "4"])
@pytest.mark.parametrize("connect", [seedbed.connect, seedbed.aio.connect])
def test_invalid_counts(connect, value):
    with pytest.raises(seedbed.InvalidRequest) as error:
        connect("localhost:1", connections=value)
    assert error.value.field == "connections"
    assert str(value) in str(error.value)


@pytest.mark.parametrize("text", ["0", "many", "-1", "2.5"])
def test_invalid_counts_in_the_environment(monkeypatch, text):
    monkeypatch.setenv("SEEDBED_CONNECTIONS", text)
    with pytest.raises(seedbed.InvalidRequest, match=f"SEEDBED_CONNECTIONS: must be 1 to 64, not '{text}'"):
        seedbed.connect("localhost:1")


def test_a_flag_sets_the_number(monkeypatch, target, ok):
    counts = []
    connect = seedbed.connect

    def recorded(*_, connections=None, **__):
        counts.append(connections)
        return connect(target)

    monkeypatch.setattr(seedbed, "connect", recorded)
    ok("info", "--connections", "3")
    ok("info")
    assert counts == [3, None]


def test_an_invalid_flag(seedbed_command):
    code, _, err = seedbed_command("info", "--target", "localhost:1", "--connections", "0")
    assert code == 2
    assert "--connections" in err
