"""Writes a checkpoint by the workers of a Ray cluster, each its own files, and outlives the death of any of them.

    pip install ray
    python examples/ray_checkpoint.py examples/llama-3.1-8b.json llama --tasks 8 [--address auto] [--target HOST:PORT]

Model file and directory have to be on a file system that all nodes share, and Seedbed installed on each. No client is
sent to a task: it connects where it runs, to the servers or to none. A worker that dies takes the file with it that it
was writing, and nothing else; Ray starts its task again, which keeps the files that are complete. The result is, bit
for bit, what ``seedbed model`` writes alone.
"""

import argparse
import os
import sys
from pathlib import Path

import ray

from seedbed.cli import main as seedbed_command

UNAVAILABLE = 3  # an exit code of `seedbed`: servers that are restarted, or full


def write(arguments: list[str]) -> None:
    """Writes one part of the checkpoint, in the process of a worker.

    No process is started for it: it could outlive the worker, and write beside the one that takes its place.

    Raises:
        ConnectionError: The servers cannot be reached; another try may succeed.
        RuntimeError: The command failed, as any other try would; it has told why on standard error.
    """
    code = seedbed_command(arguments)
    if code == UNAVAILABLE:
        raise ConnectionError(f"seedbed {' '.join(arguments)}: the service is unavailable")
    if code:
        raise RuntimeError(f"seedbed {' '.join(arguments)}: exit code {code}")


def variables(cpus: int) -> dict[str, str]:
    """The environment of the tasks: this one's SEEDBED_* variables, and as many threads as Ray gives a task cores.

    A token goes by a file, SEEDBED_TOKEN_FILE: Ray shows the variables of a job on its dashboard.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("SEEDBED_")}
    given.pop("SEEDBED_TOKEN", None)
    return {"SEEDBED_THREADS": str(cpus), **given}


def count(text: str) -> int:
    """A number of parts or cores.

    Raises:
        argparse.ArgumentTypeError: It is none, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them; give 1 or more")
    return int(text)


def main() -> None:
    """Starts a task for each part, and tells of each that is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model file")
    parser.add_argument("output", type=Path, help="directory to write")
    parser.add_argument("--tasks", type=count, default=8, help="parts; with as many as files, each task writes one")
    parser.add_argument("--cpus", type=count, default=1, help="cores of a task")
    parser.add_argument("--max-shard-size", default="5GB", help="the most bytes of a file")
    parser.add_argument("--target", default="local:", help="the servers; default none, each task samples by itself")
    parser.add_argument("--address", help="the Ray cluster, such as auto; default one within this machine")
    given = parser.parse_args()
    if not given.model.is_file():
        parser.error(f"{given.model}: there is no such file; give a model file, such as `seedbed record` writes")

    ray.init(address=given.address, runtime_env={"env_vars": variables(given.cpus)})
    task = ray.remote(write).options(
        num_cpus=given.cpus, max_retries=8, retry_exceptions=[ConnectionError], scheduling_strategy="SPREAD"
    )
    arguments = [
        "model", str(given.model.resolve()), "--output", str(given.output.resolve()), "--target", given.target,
        "--max-shard-size", given.max_shard_size, "--jobs", "1", "--no-progress",
    ]  # fmt: skip
    pending = [task.remote([*arguments, "--shard", f"{part}/{given.tasks}"]) for part in range(given.tasks)]
    while pending:
        done, pending = ray.wait(pending)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            sys.exit(str(getattr(error, "cause", error)))  # what the task raised, or what became of its workers
        print(f"{given.tasks - len(pending)} of {given.tasks} parts written", flush=True)


if __name__ == "__main__":
    main()
