"""TLS, tokens and the refusal to serve in plaintext, with real certificates and sockets."""

import asyncio
import datetime
import hashlib
import json
import logging
import os
import pickle
import re
import signal
import socket
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from _helpers.command import process
from _helpers.ports import free_port
from _helpers.servers import servers_here
from _helpers.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

import seedbed
from seedbed import errors
from seedbed._wire import credentials as _credentials
from seedbed._wire import targets
from seedbed_server import engine
from seedbed_server.service import listening, observer
from seedbed_server.service.access import AccessControl
from seedbed_server.service.process import run
from seedbed_server.service.settings import Settings
from seedbed_server.service.tokens import Tokens

TOKEN, OTHER_TOKEN = "seedbed_one", "seedbed_other"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SEEDBED_")]:
        monkeypatch.delenv(name)


class Files:
    """PEM files of an authority and of the certificates that it issues."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = self.write("ca.pem", self.authority.cert_pem)

    def write(self, name, *blobs):
        """Replaces a file atomically, as tools that rotate certificates do."""
        path = self.folder / name
        new = path.with_suffix(".new")
        new.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return new.replace(path)

    def issue(self, name, *hosts, **options):
        """The arguments ``cert`` and ``key`` of a certificate."""
        leaf = self.authority.issue_cert(*(hosts or ("localhost", "127.0.0.1")), **options)
        return {
            "cert": self.write(f"{name}.pem", *leaf.cert_chain_pems),
            "key": self.write(f"{name}.key", leaf.private_key_pem),
        }

    def server(self, **options):
        """The settings of a server with a certificate."""
        return {f"tls_{name}": path for name, path in self.issue("server", **options).items()}


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens", one=TOKEN)


def write_tokens(path, **named):
    lines = [f"{name}:{hashlib.sha256(token.encode()).hexdigest()}  # {name}'s" for name, token in named.items()]
    path.write_text("\n".join(["# the team", "", *lines]))
    return path


@pytest.fixture
def serve():
    """Starts servers in this process; returns their address."""
    with servers_here() as start_one:
        yield lambda listen="127.0.0.1:0", **settings: start_one(
            engine.open_backend("numpy"), listen=[listen], **settings
        ).addresses[0]


@pytest.fixture
def serve_process():
    """Starts ``seedbed serve``; returns the process and its address."""
    children = []

    def start_one(*arguments):
        child = process("serve", "--listen", "127.0.0.1:0", "--backend", "numpy", *arguments)
        children.append(child)
        banner = child.stdout.readline()
        return child, re.search(r"serving on ([^;]+);", banner)[1]

    yield start_one
    for child in children:
        child.kill()
        child.communicate()


def works(client):
    """Whether unary and streaming calls succeed."""
    return client.server_info().version == seedbed.__version__ and client.ones((3,)).tolist() == [1, 1, 1]


def refusals(client, error):
    """The error messages of a unary and a streaming call."""
    messages = []
    for call in (client.server_info, lambda: client.ones((3,))):
        with pytest.raises(error) as caught:
            call()
        messages.append(str(caught.value))
    return messages


# TLS -----------------------------------------------------------------------------------------------------------------


def test_tls_with_a_private_authority(serve, files):
    address = serve(**files.server())
    with seedbed.connect(address, ca=files.ca) as client, seedbed.connect("local:") as local:
        assert works(client)
        assert (client.normal((700, 700), seed=7) == local.normal((700, 700), seed=7)).all()


def test_tls_over_a_unix_socket(serve, files, tmp_path):
    address = serve(f"unix:{tmp_path}/s.sock", **files.server())
    with seedbed.connect(address, ca=files.ca) as client:
        assert works(client)


def test_tls_with_coroutines(serve, files, tokens):
    address = serve(**files.server(), tokens=tokens)

    async def ask(**security):
        async with seedbed.aio.connect(address, ca=files.ca, **security) as client:
            return (await client.server_info()).version, (await client.ones((3,))).tolist()

    assert asyncio.run(ask(token=TOKEN)) == (seedbed.__version__, [1, 1, 1])
    with pytest.raises(seedbed.Unauthenticated, match="the token is unknown"):
        asyncio.run(ask(token=OTHER_TOKEN))


def test_a_pickled_client_keeps_its_credentials(serve, files, tokens, tmp_path, monkeypatch):
    address = serve(**files.server(), tls_client_ca=files.ca, tokens=tokens)
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDBED_TLS_CA", str(files.ca.relative_to(tmp_path)))
    monkeypatch.setenv("SEEDBED_TOKEN_FILE", "token")
    with seedbed.connect(address, **files.issue("client")) as client:
        assert works(client)
        sent = pickle.dumps(client)
    for variable in ("SEEDBED_TLS_CA", "SEEDBED_TOKEN_FILE"):
        monkeypatch.delenv(variable)  # they may differ where it arrives
    monkeypatch.chdir("/")
    with pickle.loads(sent) as arrived:
        assert works(arrived)
    assert TOKEN.encode() not in sent
    assert b"PRIVATE KEY" not in sent


def test_grpcs_own_credentials(serve, files):
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
    with seedbed.connect(serve(**files.server()), credentials=credentials) as client:
        assert works(client)
    with pytest.raises(seedbed.InvalidRequest, match="token: is given together with credentials="):
        seedbed.connect("localhost:1", credentials=credentials, token=TOKEN)


def date(days):
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)


@pytest.mark.parametrize(
    ("issue", "ask", "text"),
    [
        (
            {},
            {"ca": None, "tls": True},
            r"an authority that is not trusted here; give the authority's with ca= \(SEEDBED_TLS_CA\)",
        ),
        ({"not_before": date(-9), "not_after": date(-1)}, {}, "has expired; renew it"),
        ({"not_before": date(5), "not_after": date(9)}, {}, "is not valid yet; check the clocks"),
        ({}, {"server_name": "elsewhere.example"}, "is for another name; correct the address, or give that name with"),
    ],
)
def test_untrusted_certificates(serve, files, issue, ask, text):
    address = serve(**files.server(**issue))
    with seedbed.connect(address, **{"ca": files.ca, **ask}) as client:
        for message in refusals(client, seedbed.Unavailable):
            assert re.search(f"the certificate of {address} .*{text}", message)


def test_an_authority_that_did_not_issue_it(serve, files, tmp_path):
    address = serve(**files.server())
    (tmp_path / "other").mkdir()
    with seedbed.connect(address, ca=Files(tmp_path / "other").ca) as client:
        refusals(client, seedbed.Unavailable)


def test_only_one_side_uses_tls(serve, files):
    with seedbed.connect(serve(**files.server()), wait=0) as client:
        assert "closes the connection; check whether it requires TLS" in refusals(client, seedbed.Unavailable)[0]
    with seedbed.connect(serve(), ca=files.ca) as client:
        assert "does not speak TLS; omit tls=, ca=" in refusals(client, seedbed.Unavailable)[0]


def test_certificate_errors_of_older_grpc():
    message = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
    failed = "Ssl handshake failed: SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
    for words, text in [
        (f"{failed}CERTIFICATE_VERIFY_FAILED", "is not trusted: it has expired, or its authority is not trusted"),
        (f"{failed}WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("Peer name foo is not in peer certificate", "for another name"),
    ]:
        assert text in errors.tls_problem(message + words, "host:1")
    assert errors.tls_problem(message + "Connection refused", "host:1") is None
    assert errors.tls_problem("Socket closed", "host:1") is None, "an established connection was lost"


def test_several_servers_share_the_name_of_the_first(serve, files):
    ports = [serve("localhost:0", **files.server()).rpartition(":")[2] for _ in range(2)]
    target = ",".join(f"localhost:{port}" for port in ports)
    with seedbed.connect(target, ca=files.ca) as client:
        assert works(client)
        assert client.uniform((3000, 3000)).shape == (3000, 3000), "one stripe from each"
    with seedbed.connect(f"ipv4:127.0.0.1:{ports[0]}", ca=files.ca) as client:
        assert works(client)


def test_the_name_that_certificates_must_match():
    def name(target, options=(), **security):
        wire = _credentials.wire(target, _credentials.Security(tls=True, **security), options)
        return dict(wire.target.options).get("grpc.ssl_target_name_override")

    assert name("one.example:1") is None, "gRPC takes it from the address"
    assert name("dns:///one.example:1") is None
    assert name("localhost:1,127.0.0.1:2") == "localhost"
    assert name("ipv6:[::1]:1") == "::1"
    assert name("unix:/tmp/s.sock") == "localhost"
    assert name("one.example:1", server_name="two.example") == "two.example"
    assert name("localhost:1,127.0.0.1:2", [("grpc.ssl_target_name_override", "mine")]) == "mine"


def test_mutual_tls(serve, files, tmp_path):
    address = serve(**files.server(), tls_client_ca=files.ca)
    with seedbed.connect(address, ca=files.ca, **files.issue("client", "trainer.example")) as client:
        assert works(client)
    (tmp_path / "other").mkdir()
    for stranger in ({}, Files(tmp_path / "other").issue("client")):
        with seedbed.connect(address, ca=files.ca, wait=0, **stranger) as client:
            messages = refusals(client, seedbed.Unavailable)
            assert all(
                "a client certificate from an authority that it trusts (cert=, key=)" in text for text in messages
            )


def test_the_log_names_the_owner_of_the_certificate(serve, files, caplog):
    caplog.set_level(logging.INFO, observer.__name__)
    address = serve(**files.server(), tls_client_ca=files.ca)
    for name, options in (("trainer.example", {}), ("the trainer", {"common_name": "the trainer"})):
        certificate = files.issue("client", "trainer.example", **options)
        with seedbed.connect(address, ca=files.ca, **certificate) as client:
            client.ones((3,))
        assert caplog.records[-1].msg.fields["client"] == name


def test_a_certificate_is_replaced_while_clients_are_connected(serve, files, tmp_path, caplog):
    caplog.set_level(logging.INFO, "seedbed_server")
    server = files.server()
    address = serve(**server)
    with seedbed.connect(address, ca=files.ca) as old, seedbed.connect(address, ca=files.ca) as late:
        chunks = old.iter_chunks(seedbed.spec("uniform", (8 << 20,)))
        next(chunks)
        (tmp_path / "new").mkdir()
        new = Files(tmp_path / "new")
        for name, path in new.server().items():
            path.replace(server[name])

        with seedbed.connect(address, ca=new.ca) as client:
            assert works(client)
        refusals(late, seedbed.Unavailable)
        assert sum(len(values) for _, values in chunks) > 0, "a stream in progress continues"
        assert works(old)
    assert f"reloaded the certificate from {server['tls_cert']}" in caplog.messages


@pytest.mark.parametrize("broken", ["text", "missing", "other key"])
def test_an_unusable_certificate_changes_nothing(serve, files, caplog, broken):
    server = files.server()
    address = serve(**server)
    key = server["tls_key"].read_bytes()
    if broken == "text":
        server["tls_key"].write_text("no key")
    elif broken == "missing":
        server["tls_key"].unlink()
    else:
        files.issue("other")["key"].replace(server["tls_key"])
    for _ in range(2):
        with seedbed.connect(address, ca=files.ca) as client:
            assert works(client)
    [message] = caplog.messages
    assert message.startswith(
        f"keeping the previous certificate: tls: {server['tls_cert']} and {server['tls_key']} cannot"
    )
    assert key.splitlines()[1].decode() not in message

    server["tls_key"].write_bytes(key)
    files.issue("server")
    with seedbed.connect(address, ca=files.ca) as client:
        assert works(client)


def test_unusable_files(files, tmp_path):
    server, other = files.server(), files.issue("other")
    (tmp_path / "text").write_text("no certificate")
    for arguments, text in [
        ({**server, "tls_key": other["key"]}, "key values mismatch"),
        ({**server, "tls_cert": tmp_path / "none"}, f"{tmp_path}/none: No such file"),
        ({**server, "tls_cert": tmp_path / "text"}, "cannot be used as certificate and key"),
        ({**server, "tls_client_ca": tmp_path / "text"}, "cannot be used as certificates of authorities"),
        ({"tls_cert": server["tls_cert"]}, "give both --tls-cert and --tls-key"),
        ({"tls_client_ca": files.ca}, "--tls-client-ca requires TLS"),
        ({**server, "insecure": True}, "omit one of them"),
    ]:
        with pytest.raises(ValueError, match=re.escape(text)):
            AccessControl(Settings(**arguments))
    for arguments, text in [
        ({"ca": tmp_path / "none"}, "No such file"),
        ({"ca": tmp_path / "text"}, "cannot be used as certificates of authorities"),
        ({"cert": other["cert"]}, "key: is missing; cert= (SEEDBED_TLS_CERT) needs it"),
        ({"cert": other["cert"], "key": server["tls_key"]}, "key values mismatch"),
        ({"tls": False, "ca": files.ca}, "tls: is False, but"),
    ]:
        for connect in (seedbed.connect, seedbed.aio.connect):
            with pytest.raises(seedbed.InvalidRequest, match=re.escape(text)):
                connect("localhost:1", **arguments)


# Tokens --------------------------------------------------------------------------------------------------------------


def test_tokens(serve, tokens):
    address = serve(tokens=tokens)
    with seedbed.connect(address, token=TOKEN) as client:
        assert works(client)
    with seedbed.connect(address) as client:
        assert (
            refusals(client, seedbed.Unauthenticated)
            == ["this server requires a token issued by its operator; pass token= to connect() or set SEEDBED_TOKEN"]
            * 2
        )
    with seedbed.connect(address, token=OTHER_TOKEN) as client:
        assert (
            refusals(client, seedbed.Unauthenticated)
            == ["the token is unknown to this server, or has been revoked; ask its operator for a new one"] * 2
        )


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_malformed_authorization_headers(serve, tokens, value):
    with grpc.insecure_channel(serve(tokens=tokens)) as channel:
        ask = channel.unary_unary("/seedbed.v1.InitService/GetServerInfo")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", metadata=[("authorization", value)], timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        ask(b"", metadata=[("authorization", f"bearer  {TOKEN}")], timeout=5)


def test_calls_without_a_token_are_refused_before_the_request_has_arrived(serve, tokens):
    with grpc.insecure_channel(serve(tokens=tokens)) as channel:
        for method in ("InitTensor", "GetServerInfo", "NoSuchMethod"):
            call = channel.stream_stream(f"/seedbed.v1.InitService/{method}")(
                iter(lambda: time.sleep(10), None), timeout=5
            )
            assert call.code() == grpc.StatusCode.UNAUTHENTICATED
            call.cancel()


def test_health_needs_no_token(serve, tokens, files, seedbed_command):
    plain = serve(tokens=tokens)
    with grpc.insecure_channel(plain) as channel:
        response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    assert seedbed_command("health", "--target", plain) == (0, "serving\n", "")
    secure = serve(tokens=tokens, **files.server())
    assert seedbed_command("health", "--target", secure, "--tls-ca", files.ca) == (0, "serving\n", "")
    code, _, err = seedbed_command("health", "--target", secure, "--tls")
    assert code == 1
    assert f"not serving: the certificate of {secure} is from an authority that is not trusted here" in err


def test_a_signal_reloads_tokens(serve_process, tokens, files):
    child, address = serve_process("--tokens", tokens, "--tls-cert", files.server()["tls_cert"], "--tls-key",
                                   files.folder / "server.key")  # fmt: skip
    with (
        seedbed.connect(address, ca=files.ca, token=TOKEN) as one,
        seedbed.connect(address, ca=files.ca, token=OTHER_TOKEN) as other,
    ):
        assert works(one)
        chunks = one.iter_chunks(seedbed.spec("uniform", (8 << 20,)))
        next(chunks)
        write_tokens(tokens, other=OTHER_TOKEN)
        assert works(one), "before the signal"
        child.send_signal(signal.SIGHUP)
        assert wait_until(lambda: is_accepted(other))
        refusals(one, seedbed.Unauthenticated)
        assert sum(len(values) for _, values in chunks) > 0, "a stream in progress continues"

        tokens.write_text(f"{TOKEN}\n")
        child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert works(other), "the previous tokens stay valid"
    child.terminate()
    _, err = child.communicate(timeout=30)
    assert child.returncode == 0
    assert f"keeping the previous tokens: tokens: line 1 of {tokens} is not name:sha256hex" in err
    assert TOKEN not in err
    assert OTHER_TOKEN not in err


def is_accepted(client):
    try:
        return works(client)
    except seedbed.Unauthenticated:
        return False


def test_token_files(tmp_path):
    file = write_tokens(tmp_path / "tokens", one=TOKEN, other=OTHER_TOKEN)
    tokens = Tokens(file)
    assert [tokens.owner(token) for token in (TOKEN, OTHER_TOKEN, "", "é", TOKEN + " ")] == [
        "one",
        "other",
        None,
        None,
        None,
    ]
    assert TOKEN not in repr(vars(tokens))
    for text, message in [
        (b"", "has no tokens; append a line"),
        (b"# nobody\n", "has no tokens"),
        (b"\xff", "it is not UTF-8"),
        (b"a:1234", "line 1 of .* is not name:sha256hex"),
        (f"\na:{'0' * 64}\na:{'1' * 64}".encode(), "line 3 of .* repeats the name a"),
    ]:
        file.write_bytes(text)
        with pytest.raises(ValueError, match=message):
            AccessControl(Settings(tokens=file))
    file.unlink()
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Tokens(file)


def test_a_token_made_by_the_command_line(seedbed_command, serve, tmp_path, monkeypatch):
    code, out, err = seedbed_command("token", "alice")
    assert code == 0
    token, line = out.splitlines()
    assert token not in err
    (tmp_path / "tokens").write_text(line)
    address = serve(tokens=tmp_path / "tokens")
    with seedbed.connect(address, token=token) as client:
        assert works(client)
    (tmp_path / "mine").write_text(token + "\n")
    assert seedbed_command("info", "--target", address, "--token-file", tmp_path / "mine")[0] == 0
    monkeypatch.setenv("SEEDBED_TOKEN", token)
    assert seedbed_command("info", "--target", address)[0] == 0
    monkeypatch.setenv("SEEDBED_TOKEN", "wrong")
    code, _, err = seedbed_command("info", "--target", address)
    assert (code, "the token is unknown" in err) == (3, True)
    assert seedbed_command("token", "a:b")[0] == 2


# Plaintext -----------------------------------------------------------------------------------------------------------


def bound(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "0"])
def test_a_server_that_others_reach_in_plaintext_does_not_start(tokens, files, host):
    port = free_port()
    with pytest.raises(ValueError, match=r"is open to other machines; give --tls-cert and --tls-key .* or --insecure"):
        run(Settings(listen=[f"127.0.0.1:{port}", f"{host}:0"], backend="numpy"))
    assert not bound(port)
    with pytest.raises(ValueError, match="would expose tokens in plaintext"):
        run(Settings(listen=[f"{host}:0"], insecure=True, tokens=tokens))
    AccessControl(Settings(listen=[f"{host}:0"], insecure=True))
    AccessControl(Settings(listen=[f"{host}:0"], **files.server(), tokens=tokens))


def test_which_addresses_are_local():
    local = ["127.0.0.1:0", "127.9.9.9:1", "localhost:1", "unix:/tmp/s.sock", "[::1]:1"]
    assert [listening.is_local(address) for address in local] == [True] * 5
    assert [listening.is_local(address) for address in ("0.0.0.0:1", "[::]:1", "192.0.2.1:1")] == [False] * 3


def test_a_client_that_would_expose_its_token(tmp_path, monkeypatch):
    for target in ("10.0.0.1:1", "localhost:1,10.0.0.1:1", "ipv4:10.0.0.1:1", "dns:///localhost.example:1"):
        for connect in (seedbed.connect, seedbed.aio.connect):
            with pytest.raises(
                seedbed.InvalidRequest, match=f"token: would be sent to {target} in plaintext"
            ) as caught:
                connect(target, token=TOKEN)
            assert TOKEN not in str(caught.value)
            connect(target, token=TOKEN, tls=True)
    for target in ("localhost:1", "127.0.0.1:1,[::1]:1", "ipv4:127.0.0.1:1", "dns:///localhost:1", "unix:/tmp/s.sock"):
        seedbed.connect(target, token=TOKEN).close()
        assert ("grpc.enable_http_proxy", 0) in targets.parse(target).options, "a proxy is another machine"
    monkeypatch.setenv("SEEDBED_TOKEN", TOKEN)
    with pytest.raises(seedbed.InvalidRequest, match="in plaintext"):
        seedbed.connect("10.0.0.1:1")
    seedbed.connect("10.0.0.1:1", token="").close()
    seedbed.connect("local:").close()


# The environment and the command line --------------------------------------------------------------------------------


def test_variables_of_the_client(serve, files, tokens, tmp_path, monkeypatch, seedbed_command):
    address = serve(**files.server(), tls_client_ca=files.ca, tokens=tokens)
    client_files = files.issue("client")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SEEDBED_TLS_CA", str(files.ca))
    monkeypatch.setenv("SEEDBED_TLS_CERT", str(client_files["cert"]))
    monkeypatch.setenv("SEEDBED_TLS_KEY", str(client_files["key"]))
    monkeypatch.setenv("SEEDBED_TOKEN_FILE", str(tmp_path / "token"))
    with seedbed.connect(address) as client:
        assert works(client)
    assert seedbed_command("health", "--target", address) == (0, "serving\n", "")
    assert seedbed_command("info", "--target", address, "--json")[0] == 0
    monkeypatch.setenv("SEEDBED_TLS_SERVER_NAME", "elsewhere.example")
    with seedbed.connect(address) as client:
        refusals(client, seedbed.Unavailable)
    with seedbed.connect(address, server_name="localhost") as client:
        assert works(client)
    plain = serve()
    for variable in ("0", "false"):
        monkeypatch.setenv("SEEDBED_TLS", variable)
        with seedbed.connect(plain) as client:
            assert works(client)
    monkeypatch.setenv("SEEDBED_TLS", "perhaps")
    with pytest.raises(seedbed.InvalidRequest, match="SEEDBED_TLS: is 'perhaps'; give 1 or 0"):
        seedbed.connect(plain)
    with seedbed.connect(plain, tls=False) as client:
        assert works(client)
    assert seedbed_command("health", "--target", plain, "--no-tls") == (0, "serving\n", "")


def test_the_system_authorities(serve, files, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    monkeypatch.setenv("SEEDBED_TLS", "1")
    with seedbed.connect(serve(**files.server())) as client:
        assert works(client)


def test_options_of_the_command_line(serve, files, tokens, tmp_path, seedbed_command):
    address = serve(**files.server(), tls_client_ca=files.ca, tokens=tokens)
    client_files = files.issue("client")
    (tmp_path / "token").write_text(TOKEN)
    options = ["--target", address, "--tls-ca", files.ca, "--tls-cert", client_files["cert"],
               "--tls-key", client_files["key"], "--token-file", tmp_path / "token"]  # fmt: skip
    out = tmp_path / "w.npy"
    assert seedbed_command("get", "ones", "--shape", "3", "-o", out, *options)[0] == 0
    assert np.load(out).tolist() == [1, 1, 1]
    assert seedbed_command("describe", "ones", "--shape", "3", *options)[0] == 0
    code, _, err = seedbed_command("info", *options, "--server-name", "elsewhere.example")
    assert (code, "is for another name" in err) == (3, True)
    code, _, err = seedbed_command("info", *options, "--token-file", tmp_path / "none")
    assert (code, "none cannot be read" in err) == (2, True)


def test_variables_of_the_server(serve_process, files, tokens, monkeypatch):
    server = files.server()
    monkeypatch.setenv("SEEDBED_SERVER_TLS_CERT", str(server["tls_cert"]))
    monkeypatch.setenv("SEEDBED_SERVER_TLS_KEY", str(server["tls_key"]))
    monkeypatch.setenv("SEEDBED_SERVER_TLS_CLIENT_CA", str(files.ca))
    monkeypatch.setenv("SEEDBED_SERVER_TOKENS", str(tokens))
    _, address = serve_process("--listen", "0.0.0.0:0")
    with seedbed.connect(address, ca=files.ca, token=TOKEN, **files.issue("client")) as client:
        assert works(client)


def test_serve_refuses_plaintext_for_other_machines(seedbed_command, tokens):
    code, _, err = seedbed_command("serve", "--listen", "0.0.0.0:0")
    assert (code, "open to other machines" in err) == (2, True)
    code, _, err = seedbed_command("serve", "--listen", "0.0.0.0:0", "--insecure", "--tokens", tokens)
    assert (code, "would expose tokens in plaintext" in err) == (2, True)


# Secrets -------------------------------------------------------------------------------------------------------------


def test_tokens_never_appear_in_output(serve, tokens, caplog, tmp_path):
    caplog.set_level(logging.DEBUG, "seedbed_server")
    address = serve(tokens=tokens)
    security = _credentials.Security(token=OTHER_TOKEN)
    wire = _credentials.wire(address, security)
    with seedbed.connect(address, token=OTHER_TOKEN) as client:
        shown = [repr(security), repr(wire), repr(client), *refusals(client, seedbed.Unauthenticated)]
        with pytest.raises(seedbed.Unauthenticated) as caught:
            client.server_info()
        shown += [repr(caught.value), repr(caught.value.__cause__), str(caught.value.__cause__), *caplog.messages]
    with pytest.raises(seedbed.InvalidRequest, match="token: has a space") as bad:
        seedbed.connect(address, token=f"{OTHER_TOKEN} x")
    assert any("status=UNAUTHENTICATED peer=ipv4:127.0.0.1:" in message for message in caplog.messages)
    digest = hashlib.sha256(OTHER_TOKEN.encode()).hexdigest()
    assert not [text for text in [*shown, str(bad.value)] if OTHER_TOKEN in text or digest in text]
    (tmp_path / "empty").write_text("")
    with pytest.raises(seedbed.InvalidRequest, match="is empty"):
        _credentials.read_token(tmp_path / "empty")


def test_the_container_serves_in_plaintext_explicitly():
    text = (Path(__file__).resolve().parent.parent / "Dockerfile").read_text(encoding="utf-8")
    command = json.loads(re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1])
    assert command == ["serve", "--listen", "0.0.0.0:50051", "--insecure"]
