"""Pickled clients: they connect on first use in the other process, and contain no secrets."""

import asyncio
import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import grpc
import pytest

import seedbed
from seedbed import aio
from seedbed._client import sync
from seedbed._inside import cpu

NOBODY = "127.0.0.1:1"
SPEC = seedbed.spec("normal", (30, 40), seed=7, name="w")


def unpickled(client):
    return pickle.loads(pickle.dumps(client))


def tensor_bytes(client):
    with client:
        return client.init(SPEC).tobytes()


@pytest.fixture(scope="module")
def expected():
    with seedbed.connect("local:") as client:
        return client.init(SPEC).tobytes()


@pytest.mark.parametrize("target", ["local:", "server"])
def test_a_copy_is_an_equal_client(request, target, expected):
    target = request.getfixturevalue("server") if target == "server" else target
    with seedbed.connect(target, timeout=20, wait=3) as client:
        client.timeout = 10
        arrived = unpickled(client)
        assert type(arrived) is type(client)
        assert (repr(arrived), arrived.wait) == (repr(client), 3)
        assert tensor_bytes(arrived) == expected
        assert client.init(SPEC).tobytes() == expected
    assert tensor_bytes(unpickled(client)) == expected  # closing the original does not close the copy


@pytest.mark.parametrize("target", ["local:", "server"])
def test_asyncio_clients(request, target, expected):
    target = request.getfixturevalue("server") if target == "server" else target

    async def main():
        async with aio.connect(target, timeout=20) as client, unpickled(client) as arrived:
            assert (type(arrived), repr(arrived)) == (type(client), repr(client))
            return (await arrived.init(SPEC)).tobytes()

    assert asyncio.run(main()) == expected


def test_options_and_connections_are_kept(monkeypatch):
    opened = []
    monkeypatch.setattr(sync, "GrpcTransport", lambda *arguments: opened.append(arguments) or FakeTransport())
    client = seedbed.connect("10.0.0.1:1", connections=3, options=[("grpc.max_send_message_length", 7)])
    arrived = unpickled(client)
    assert len(opened) == 1  # opened on first use
    with ThreadPoolExecutor(8) as pool:  # and only once
        list(pool.map(lambda _: arrived._transport, range(64)))
    first, second = opened
    assert first[0] == second[0] == "10.0.0.1:1"
    assert first[2:] == second[2:] == ((("grpc.max_send_message_length", 7),), 3)


class FakeTransport:
    def close(self):
        pass


def test_each_process_chooses_its_number_of_connections(monkeypatch):
    opened = []
    monkeypatch.setattr(sync, "GrpcTransport", lambda *arguments: opened.append(arguments) or FakeTransport())
    client = seedbed.connect("10.0.0.1:1")
    monkeypatch.setenv("SEEDBED_CONNECTIONS", "9")
    assert unpickled(client)._transport
    assert opened[1][3] == 9


def test_a_client_that_is_closed_before_its_first_use(monkeypatch):
    client = seedbed.connect("local:")
    monkeypatch.setattr(cpu, "open_engine", None)
    arrived = unpickled(client)
    arrived.close()
    with pytest.raises(seedbed.Cancelled, match="this client of local: is closed"):
        arrived.ones(3)


def test_a_copy_that_cannot_be_opened_raises_at_its_first_call(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("SEEDBED_TOKEN_FILE", "token")
    monkeypatch.chdir(tmp_path)
    with seedbed.connect(NOBODY) as client:
        text = pickle.dumps(client)
    assert b"secret" not in text
    monkeypatch.chdir("/")
    monkeypatch.delenv("SEEDBED_TOKEN_FILE")
    token.unlink()
    with pytest.raises(seedbed.InvalidRequest, match=f"token: {token} cannot be read"):
        pickle.loads(text).ones(3)


def test_a_token_in_the_environment_is_not_pickled(monkeypatch):
    monkeypatch.setenv("SEEDBED_TOKEN", "secret")
    with seedbed.connect(NOBODY) as client:
        text = pickle.dumps(client)
    assert b"secret" not in text
    monkeypatch.setenv("SEEDBED_TOKEN", "renewed")
    with pickle.loads(text) as arrived:
        assert arrived._transport._wire.metadata == (("authorization", "Bearer renewed"),)
    monkeypatch.delenv("SEEDBED_TOKEN")
    with pytest.raises(seedbed.InvalidRequest, match="was in SEEDBED_TOKEN where this client was pickled; set it"):
        pickle.loads(text).ones(3)


def test_a_copy_does_not_pick_up_another_token(monkeypatch):
    client = seedbed.connect(NOBODY)
    monkeypatch.setenv("SEEDBED_TOKEN", "another's")
    assert unpickled(client)._transport._wire.metadata == ()


@pytest.mark.parametrize("connect", [seedbed.connect, aio.connect])
@pytest.mark.parametrize(
    ("arguments", "field", "remedy"),
    [
        ({"token": "secret"}, "token", "would be readable in the pickle; set SEEDBED_TOKEN or"),
        ({"credentials": grpc.ssl_channel_credentials()}, "credentials", "cannot be pickled; give tls=,"),
    ],
)  # fmt: skip
def test_secrets_are_not_pickled(connect, arguments, field, remedy):
    client = connect(NOBODY, **arguments)
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(seedbed.InvalidRequest) as caught:
            send(client)
        assert caught.value.field == field
        assert caught.value.description.startswith(remedy)
        assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_workers_of_a_pool(server, expected):
    clients = [seedbed.connect("local:"), seedbed.connect(server)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(tensor_bytes, clients)) == [expected, expected]
