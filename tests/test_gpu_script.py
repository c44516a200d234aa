"""The script for machines with a GPU runs from end to end on an emulated one, also where packages are missing."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ["benchmarks/gpu.py"]
TABLES = {
    "bits": set(),
    "engine": {"laws", "shards", "latency"},
    "tensors": {"one tensor"} | ({"a model"} if importlib.util.find_spec("torch") else set()),
    "host": {"to the host"},
    "wire": {"loopback", "round trip", "streams", "first chunk"},
}
LAWS = {
    "constant", "dirac", "disk", "eye", "expression", "literal", "normal", "orthogonal", "parts", "permutation",
    "sparse", "trunc_normal", "uniform",
}  # fmt: skip
MISSING = ("crc32c", "google.rpc", "grpc_health", "ml_dtypes", "numba", "hypothesis", "click", "rich", "matplotlib")
WITHOUT = f"""
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if any(f"{{name}}.".startswith(f"{{missing}}.") for missing in {MISSING}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder())
"""
WITH_A_WRONG_BIT = """
import sys
from benchmarks import gpu

def to_host(self, out, pointer, right=gpu.Gpu.to_host):
    right(self, out, pointer)
    if out.nbytes > 2000:
        out.view("u1")[1000] ^= 1

gpu.Gpu.to_host = to_host
sys.exit(gpu.main(gpu.parsed(sys.argv[1:])))
"""


def run(out, program, *arguments, path=""):
    command = [sys.executable, *program, "--emulated", "--quick", "--out", str(out), *arguments]
    env = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=env)
    assert (out / "gpu.json").exists(), done.stdout + done.stderr
    report = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    tables = {name: {row["table"] for row in part["rows"]} for name, part in report["parts"].items()}
    return done, report, tables


@pytest.mark.nightly
def test_every_part_runs(tmp_path):
    done, report, tables = run(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].endswith("elements compared: all bits equal")
    assert tables == TABLES
    assert {kind.split()[0] for kind in report["bits"]["compared"]} == LAWS
    assert {"normal bfloat16", "orthogonal float32"} <= report["bits"]["compared"].keys()
    not_measured = {aim["what"].split()[-1] for aim in report["aims"] if aim["reached"] is None}
    assert not_measured <= {"cupy.random", "torch", "fastest"}


@pytest.mark.nightly
def test_stand_ins_take_the_places_of_what_is_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    done, report, tables = run(tmp_path, SCRIPT, "--only", "bits", "wire", path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].endswith("elements compared: all bits equal")
    assert tables == {name: TABLES[name] for name in ("bits", "wire")}
    assert report["stand_ins"].keys() == {"crc32c", "google.rpc", "ml_dtypes", "click"}
    assert not any("bfloat16" in kind for kind in report["bits"]["compared"])


@pytest.mark.nightly
def test_a_wrong_bit_is_reported_and_ends_the_run(tmp_path):
    done, report, tables = run(tmp_path, ["-c", WITH_A_WRONG_BIT], "--only", "bits", "engine")
    assert done.returncode == 1
    assert "BITS DIFFER" in done.stdout.splitlines()[-2]
    assert tables.keys() == {"bits"}
    assert any("elements differ, the first at" in text for text in report["bits"]["mismatches"])
