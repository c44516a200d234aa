"""Runs servers, ours and the peers', in their own processes, and always ends them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Server:
    """A running server."""

    pid: int
    tcp: str
    unix: str = ""


Command = Callable[[list[str]], list[str]]


def seedbed(arguments: list[str]) -> list[str]:
    """The command of our server, as users type it."""
    return [sys.executable, "-m", "seedbed.cli", "serve", *arguments]


def peer(name: str) -> Command:
    """The command of a peer's server."""
    return lambda arguments: [sys.executable, "-m", "benchmarks.peers", name, *arguments]


@contextlib.contextmanager
def serving(command: Command, chunk_bytes: int | None = None, stderr: IO[str] | None = None) -> Iterator[Server]:
    """Runs a server on a free port and a Unix socket, and waits until it is ready.

    Its log goes to ``stderr``, by default to that of this process.

    Raises:
        RuntimeError: The server ended before it was ready.
    """
    with tempfile.TemporaryDirectory() as directory:
        arguments = ["--listen", "127.0.0.1:0", "--listen", f"unix:{directory}/socket"]
        if chunk_bytes:
            arguments += ["--chunk-bytes", str(chunk_bytes)]
        with running(command(arguments), stderr) as process:
            banner = read_line(process)
            yield Server(process.pid, *re.search(r"serving on ([^;]+);", banner)[1].split(", "))


@contextlib.contextmanager
def running(command: list[str], stderr: IO[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Runs a child process with pipes, until the block ends."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdin.close()
        process.stdout.close()


def read_line(process: subprocess.Popen[str]) -> str:
    """Reads the next line that a child prints.

    Raises:
        RuntimeError: The child has ended.
    """
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{' '.join(process.args[1:])} ended with exit code {process.wait()}")
    return line


def run_python(code: str) -> str:
    """Runs code in a fresh Python process, and returns its output."""
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def seconds_until(command: Command, answered: Callable[[str], object]) -> float:
    """Returns the seconds from the start of a server's process to its first response, which ``answered`` requests."""
    begin = time.perf_counter()
    with serving(command) as server:
        answered(server.tcp)
        return time.perf_counter() - begin
