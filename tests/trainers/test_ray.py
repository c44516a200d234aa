"""A checkpoint that Ray's tasks write is the one that one process writes, whatever is killed on the way."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.waiting import wait_until

# Read when ray is imported, by all of its processes: no token in the home directory, nothing sent to anybody.
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.nightly
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ray_checkpoint.py"
FILES = 8
SIZE = "16MB"
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
FAST = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a core each; that one is dead is known after 2 s in place of 20."""
    found = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "_system_config": FAST}
    )
    found.add_node(**NODE)
    yield found
    found.shutdown()


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = [{"name": f"t{i}", "shape": [4_000_000], "seed": 7, "normal": {}} for i in range(FILES)]
    Path("model.json").write_text(json.dumps({"name": "m", "tensors": tensors}), encoding="utf-8")
    return Path("model.json")


def is_stopped(server, output, nodes):
    """Tells whether the server is stopped while each node writes a file; lets it go on if not."""
    if len(list(output.glob(".*.part"))) < len(nodes):
        return False
    server.process.send_signal(signal.SIGSTOP)
    if {node_of(pid) for pid in writers(output)} == nodes:
        return True
    server.process.send_signal(signal.SIGCONT)
    return False


def writers(output):
    """The processes that have files under construction open, with the files."""
    found = {}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            path = descriptor.readlink()
            if path.parent == output.resolve() and path.suffix == ".part":
                found[int(descriptor.parts[2])] = path
    return found


def node_of(pid):
    """The process that stands for a worker's node, which started it."""
    return int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def test_what_is_killed_is_done_again(cluster, model, start_server, ok):
    """A worker is killed amidst a file, and so is the node of the other: the server they ask has stopped for that."""
    ok("model", model, "-o", "whole", "--max-shard-size", SIZE)
    whole = digests("whole")
    assert len(whole) == FILES + 1

    server, output = start_server(), Path("ckpt")
    head, other = (node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes())
    command = [sys.executable, EXAMPLE, model, output, "--address", cluster.address, "--target", server.target]
    options = ["--tasks", str(FILES), "--max-shard-size", SIZE]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        try:
            assert wait_until(lambda: is_stopped(server, output, {head, other}), 60)
            half_written = writers(output)
            os.kill(next(pid for pid in half_written if node_of(pid) == head), signal.SIGKILL)
            cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)
            assert all(path.exists() for path in half_written.values())
            assert not (output / "model.safetensors.index.json").exists()
            server.process.send_signal(signal.SIGCONT)
            out, _ = driver.communicate(timeout=120)
        finally:
            driver.kill()
    assert driver.returncode == 0, out
    assert f"{FILES} of {FILES} parts written" in out
    assert digests(output) == whole  # and nothing beside them
    ok("verify", output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "none.json: no such file; pass a model file"),
        ([EXAMPLE, "--tasks", "0"], "argument --tasks: '0' is not a positive number; pass 1 or more"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, arguments, message):
    command = [sys.executable, EXAMPLE, *arguments, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
