"""The batch scripts for Slurm, run by a fake `srun`, whose tasks are processes of this machine."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers import command as _command
from _helpers.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
CHECKPOINT, TRAIN = EXAMPLES / "slurm.sbatch", EXAMPLES / "slurm_train.sbatch"
TASKS = 2

# Of sbatch and srun, as their manual pages have them.
SBATCH_OPTIONS = {
    "--job-name", "--nodes", "--ntasks-per-node", "--cpus-per-task", "--mem-per-cpu", "--gpus-per-node", "--time",
    "--requeue",
}  # fmt: skip
SRUN_OPTIONS = {"--nodes", "--ntasks", "--cpus-per-task", "--kill-on-bad-exit"}

# Starts the tasks side by side; one of those named in KILL, "TRY.TASK", is killed at once. Ends as the worst of them.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
from pathlib import Path

options = {{}}
command = sys.argv[1:]
while command[0].startswith("-"):
    name, _, value = command.pop(0).partition("=")
    assert name in {SRUN_OPTIONS} and value, name
    options[name] = value
calls = Path(os.environ["CALLS"])
number = len(calls.read_text().splitlines()) if calls.exists() else 0
calls.open("a").write(" ".join(command) + "\\n")
count = int(options.get("--ntasks", os.environ["SLURM_NTASKS"]))
tasks = []
for rank in range(count):
    place = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NTASKS": str(count)}}
    tasks.append(subprocess.Popen(command, env={{**os.environ, **place}}))
    if f"{{number}}.{{rank}}" in os.environ.get("KILL", "").split():
        tasks[-1].send_signal(signal.SIGKILL)
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames node[1-2]" ] && printf 'localhost\\nnode2\\n'
"""
SEEDBED = f"""#!/bin/sh
exec {sys.executable} -m seedbed.cli "$@"
"""


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Runs a batch script as Slurm would: a copy of it, in the folder that it was submitted from."""
    monkeypatch.chdir(tmp_path)
    Path("bin").mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "seedbed": SEEDBED}.items():
        (Path("bin") / name).write_text(text)
        (Path("bin") / name).chmod(0o755)
    (Path("bin") / "python").symlink_to(sys.executable)

    def run(script, *arguments, **variables):
        shutil.copy(script, "slurm_script")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SEEDBED_TARGET"))},
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join([_command.environment()["PYTHONPATH"], *sys.path[1:]]),
            "CALLS": str(tmp_path / "calls"),
            **variables,
        }
        command = ["bash", "slurm_script", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def slurm(tasks):
    """What Slurm sets for a job of so many tasks on two nodes."""
    return {
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": str(tasks),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }


@pytest.fixture
def model(tmp_path):
    tensors = [{"name": f"t{i}", "shape": [1000], "seed": 7, "normal": {}} for i in range(6)]
    path = tmp_path / "a model.json"  # whose name has to be quoted
    path.write_text(json.dumps({"name": "m", "tensors": tensors}), encoding="utf-8")
    return path


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("script", [CHECKPOINT, TRAIN], ids=lambda path: path.name)
def test_a_script_is_bash_with_options_of_sbatch(script):
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert {re.match(r"#SBATCH (--[\w-]+)(=\S+)?$", line)[1] for line in directives} <= SBATCH_OPTIONS
    # sbatch takes no directive after the first command
    assert max(map(lines.index, directives)) < next(i for i, line in enumerate(lines) if line and line[0] != "#")


@pytest.mark.nightly
def test_the_tasks_write_one_checkpoint(batch, model, ok):
    """The first task is killed at first, and the checkpoint is whole after the second try."""
    ok("model", model, "-o", "whole", "--max-shard-size", "4KB")
    done = batch(CHECKPOINT, model, "a checkpoint", "4KB", KILL="0.0", **slurm(TASKS))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "attempt 1: some tasks failed; complete files are kept\n"
    assert "a checkpoint: verified, 6 files, 6 tensors" in done.stdout
    assert "3 files already complete" in done.stdout
    assert digests("a checkpoint") == digests("whole")


def test_a_job_whose_task_fails_every_time_fails(batch, model):
    done = batch(CHECKPOINT, model, "ckpt", "4KB", KILL="0.0 1.0 2.0", **slurm(1))
    assert done.returncode == 2
    assert done.stderr.count("some tasks failed") == 3
    assert done.stderr.endswith("seedbed: ckpt: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"), [((), "the model file, as in: sbatch"), (("m.json",), "the directory to write")]
)
def test_a_script_without_arguments_says_what_it_lacks(batch, arguments, message):
    done = batch(CHECKPOINT, *arguments, **slurm(1))
    assert done.returncode != 0
    assert message in done.stderr
    assert not Path("calls").exists()


@pytest.mark.nightly
def test_ranks_fill_their_own_shards(batch):
    """The weights are those that docs/howto/sharded-pytorch.md shows for any number of ranks that torchrun starts."""
    done = batch(TRAIN, MASTER_PORT=str(free_port()), **slurm(2))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^weights f41ec487c3c23f1c; losses 7\.160", done.stdout, re.MULTILINE)
