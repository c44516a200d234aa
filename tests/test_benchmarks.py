"""The benchmarks run and tell what they promise. How fast anything is, is not tested."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"engine", "transport", "latency", "scale", "training", "operation"}
PLOTS = {"engine", "transport", "chunk-sizes", "elements", "streams", "memory"}
TABLES = {
    "engine": {"laws", "large arrays", "shards", "small tensors", "other schemes", "parts", "expressions"},
    "transport": {"transport", "chunk sizes"},
    "latency": {"latency", "model", "import", "start"},
    "scale": {"elements", "streams", "fairness", "one tensor", "memory above idle"},
    "training": {"record", "module", "checkpoint", "checkpoint in memory", "replicas"},
    "operation": {"operation", "operation, small tensors"},
}
MAY_BE_ZERO = {"memory above idle", "fairness"}
OPTIONAL = {"jax": ("engine", "JAX"), "pyarrow": ("transport", "Flight + NumPy TCP")}


def run(*arguments, out):
    command = [sys.executable, "-m", "benchmarks", *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "benchmarks.json").read_text(encoding="utf-8")), done.stdout


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks")
    report, printed = run("--tiny", out=out)
    return report, printed, out


@pytest.mark.nightly
def test_every_part_has_its_figures(small_run):
    report, printed, _ = small_run
    assert report["parts"].keys() == PARTS
    for name, part in report["parts"].items():
        assert {row["table"] for row in part["rows"]} == TABLES[name]
        for row in part["rows"]:
            assert row["unit"]
            assert len(row["runs"]) >= 1
            for value in [row["median"], *row["runs"]]:
                assert math.isfinite(value), row
                assert value > 0 or (value == 0 and row["table"] in MAY_BE_ZERO), row
        assert name in printed
    assert {series["stage"] for series in report["parts"]["scale"]["series"]} == {"elements", "streams", "one tensor"}


@pytest.mark.nightly
def test_a_peer_is_measured_or_said_to_be_left_out(small_run):
    report, _, _ = small_run
    for package, (part, name) in OPTIONAL.items():
        measured = name in {row["name"] for row in report["parts"][part]["rows"]}
        left_out = any("skipped" in note and "not installed" in note for note in report["parts"][part]["notes"])
        assert (measured, left_out) == ((True, False) if importlib.util.find_spec(package) else (False, True))


@pytest.mark.nightly
def test_every_aim_that_the_sizes_allow_is_judged(small_run):
    report, printed, _ = small_run
    allowed_to_lack = {"64 streams"}
    if not importlib.util.find_spec("pyarrow"):
        allowed_to_lack.add("Flight")
    if report["machine"]["cores"] < 2:
        allowed_to_lack.add("2 threads")
    for aim in report["aims"]:
        assert aim["what"] in printed
        if not any(text in aim["what"] for text in allowed_to_lack):
            assert aim["reached"] in (True, False)
            assert math.isfinite(aim["measured"]), aim


@pytest.mark.nightly
def test_plots_come_from_the_file_alone(small_run):
    report, _, out = small_run
    first = {path.stem: path.read_bytes() for path in out.glob("*.svg")}
    assert first.keys() == PLOTS
    for path in out.glob("*.svg"):
        path.unlink()
    assert run("plots", out=out)[0] == report
    assert {path.stem: path.read_bytes() for path in out.glob("*.svg")} == first
