"""Writes a checkpoint with the workers of a Ray cluster, each its own files. Any of them may die.

    pip install ray
    python examples/ray_checkpoint.py examples/llama-3.1-8b.json llama --tasks 8 [--address auto] [--target HOST:PORT]

The model file and the directory must be on a file system that all nodes share, and each node needs Seedbed. A task
creates its client where it runs, so no client has to travel. A worker that dies loses only the file that it was
writing. Ray restarts its task, which keeps the complete files. The result is, bit for bit, what a single
``seedbed model`` writes.
"""

import argparse
import os
import sys
from pathlib import Path

import ray

from seedbed.cli import main as seedbed_command

UNAVAILABLE = 3  # the exit code of `seedbed` if servers are restarting or full


def write(arguments: list[str]) -> None:
    """Writes one part of the checkpoint, in the worker's own process.

    A child process could outlive the worker, and write at the same time as its replacement.

    Raises:
        ConnectionError: The servers are unreachable; a retry may succeed.
        RuntimeError: The command failed, and a retry would fail, too. The reason is on standard error.
    """
    code = seedbed_command(arguments)
    if code == UNAVAILABLE:
        raise ConnectionError(f"seedbed {' '.join(arguments)}: the service is unavailable")
    if code:
        raise RuntimeError(f"seedbed {' '.join(arguments)}: exit code {code}")


def environment(cpus: int) -> dict[str, str]:
    """The environment of the tasks: the SEEDBED_* variables of this process, and one thread for each core of a task.

    Pass a token in a file, SEEDBED_TOKEN_FILE, because Ray shows the variables of a job on its dashboard.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith("SEEDBED_")}
    variables.pop("SEEDBED_TOKEN", None)
    return {"SEEDBED_THREADS": str(cpus), **variables}


def count(text: str) -> int:
    """Parses a number of parts or cores.

    Raises:
        argparse.ArgumentTypeError: The text is not a number, or the number is below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number; pass 1 or more")
    return int(text)


def main() -> None:
    """Starts a task for each part, and reports each that is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model file")
    parser.add_argument("output", type=Path, help="directory to write")
    parser.add_argument("--tasks", type=count, default=8, help="number of parts, such as one per file")
    parser.add_argument("--cpus", type=count, default=1, help="cores per task")
    parser.add_argument("--max-shard-size", default="5GB", help="maximum size of a file")
    parser.add_argument("--target", default="local:", help="the servers; by default each task samples for itself")
    parser.add_argument("--address", help="the Ray cluster, such as auto; by default a cluster on this machine")
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: no such file; pass a model file, such as `seedbed record` writes")

    ray.init(address=arguments.address, runtime_env={"env_vars": environment(arguments.cpus)})
    task = ray.remote(write).options(
        num_cpus=arguments.cpus, max_retries=8, retry_exceptions=[ConnectionError], scheduling_strategy="SPREAD"
    )
    command = [
        "model", str(arguments.model.resolve()), "--output", str(arguments.output.resolve()),
        "--target", arguments.target, "--max-shard-size", arguments.max_shard_size, "--jobs", "1", "--no-progress",
    ]  # fmt: skip
    pending = [task.remote([*command, "--shard", f"{part}/{arguments.tasks}"]) for part in range(arguments.tasks)]
    while pending:
        done, pending = ray.wait(pending)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            sys.exit(str(getattr(error, "cause", error)))  # what the task raised, or how its workers died
        print(f"{arguments.tasks - len(pending)} of {arguments.tasks} parts written", flush=True)


if __name__ == "__main__":
    main()
