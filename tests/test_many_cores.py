"""The script for machines with many cores runs from end to end, also where packages are missing."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RATIOS = {"engine / 1 thread", "engine / memset", "engine / torch", "local: / engine", "local: / torch"}
NAMES = {
    "threads": {"engine", "local:", "torch", "memset", *RATIOS},
    "small tensors": {"local:", "engine", "torch", "local: / engine", "local: / torch"},
    "files": {
        "engine", "plain write", "seedbed model", "seedbed verify", "engine + plain write", "model / engine + write",
        "verify / engine",
    },
    "connections": {"gRPC alone", "by default, 1", "by default, 1 / gRPC alone"},
    "streams": {"gRPC alone", "by default", "by default / gRPC alone"},
    "fairness": {"gRPC alone", "by default"},
}  # fmt: skip
MAY_BE_ZERO = {"fairness"}
MISSING = (
    "click", "crc32c", "google.rpc", "grpc_health", "grpc_reflection", "matplotlib", "ml_dtypes", "prometheus_client",
    "rich", "torch",
)  # fmt: skip
WITHOUT = f"""
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if any(f"{{name}}.".startswith(f"{{missing}}.") for missing in {MISSING}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder())
"""


def run(out, *arguments, path=""):
    command = [sys.executable, *arguments, "--tiny", "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "many_cores.json").read_text(encoding="utf-8"))
    rows = [row for part in report["parts"].values() for row in part["rows"]]
    for row in rows:
        assert len(row["runs"]) >= 1
        for value in [row["median"], *row["runs"]]:
            assert math.isfinite(value), row
            assert value > 0 or (value == 0 and row["table"] in MAY_BE_ZERO), row
    return report, rows, done.stdout


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="files are written there")
def test_every_measure_has_its_figures(tmp_path):
    report, rows, printed = run(tmp_path, "benchmarks/many_cores.py")
    assert not report["failures"]
    assert {row["table"] for row in rows} == NAMES.keys()
    for table, names in NAMES.items():
        assert names <= {row["name"] for row in rows if row["table"] == table}
        assert table in printed
    threads = [row for row in rows if row["table"] == "threads"]
    assert {row["x"] for row in threads} >= {1, report["machine"]["cores"]}
    assert len({row["case"].split(",")[0] for row in threads}) == 3
    for name in RATIOS - {"engine / 1 thread"}:
        ours, theirs = name.split(" / ")
        check_ratios(threads, name, ours, theirs)
    assert {"measured", "commit", "processor", "machine"} <= report.keys()
    assert (tmp_path / "many_cores.svg").exists()
    for left_out in report["left_out"]:
        assert left_out.split()[0] in ("--workers", "several")


def check_ratios(rows, name, ours, theirs):
    found = {(row["case"], row["name"]): row["runs"] for row in rows}
    for case in {row["case"] for row in rows}:
        pairs = zip(found[case, ours], found[case, theirs], found[case, name], strict=True)
        assert all(math.isclose(one / other, ratio, rel_tol=1e-4) for one, other, ratio in pairs)


@pytest.mark.nightly
def test_it_tells_what_is_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    report, rows, printed = run(tmp_path, "-m", "benchmarks.many_cores", path=tmp_path)
    assert {row["table"] for row in rows} == NAMES.keys() - {"files"}
    assert {"plain server", "gRPC alone"} == {row["name"] for row in rows if row["table"] == "fairness"}
    assert report["stand_ins"].keys() == {"crc32c", "google.rpc", "ml_dtypes", "click"}
    left_out = "\n".join(report["left_out"])
    for what in ("torch", "seedbed's commands", "workers", "files", "matplotlib"):
        assert what in left_out
        assert what in printed


@pytest.mark.nightly
def test_it_ends_when_its_time_is_up(tmp_path):
    report, rows, printed = run(tmp_path, "benchmarks/many_cores.py", "--seconds", "0")
    assert not rows
    assert len(report["left_out"]) == 5
    assert printed.count("skipped: ") == 5
