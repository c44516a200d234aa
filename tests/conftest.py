"""Fixtures that run a real server in a separate process.

``server`` is the target of one server that all tests share. ``start_server(**options)`` starts another one. Its options
are those of `seedbed_server.service.settings.Settings`::

    def test_resume(start_server):
        handle = start_server(backend="numpy", chunk_bytes=4096)
        with seedbed.connect(handle.target) as client:
            ...
            handle.kill()

With ``backend="cupy"``, the server uses the emulated GPU.
"""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # for _helpers, however pytest imports the test modules

from _helpers import emulation  # noqa: E402
from _helpers.command import environment  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with SIGINT ignored
START_SECONDS = 60.0
os.environ.setdefault("KERAS_BACKEND", "jax")  # also for doctests; Keras's default backend is not installed
os.environ.setdefault("SEEDBED_WORKERS", "1")  # for `seedbed serve`: tests count in one process
collect_ignore = ["_helpers/emulated"]  # doctests would import its package as cupy
RUN = "import json, sys; from seedbed_server.service.process import *; run(Settings(**json.loads(sys.argv[1])))"


class ServerHandle:
    """A server process."""

    def __init__(self, options: dict[str, Any], code: str = RUN) -> None:
        options = {"listen": ["127.0.0.1:0"], "backend": "numpy", "workers": 1, **options}
        paths = [emulation.FOLDER] if options["backend"] == "cupy" else []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(*paths, CUPY_CACHE_DIR=str(emulation.CACHE)),
        )
        self.banner = self._read_banner()
        self.targets = re.search(r"serving on ([^;]+);", self.banner)[1].split(", ")
        self.target = self.targets[0]

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """Sends SIGKILL: connections break without notice."""
        self.process.kill()
        self.wait()

    def terminate(self, timeout: float = 30.0) -> tuple[int, str]:
        """Sends SIGTERM and waits; returns the exit code and the output to stderr."""
        self.process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> tuple[int, str]:
        self.process.communicate(timeout=timeout)
        return self.process.returncode, self.errors()

    def errors(self) -> str:
        """The server's output to stderr so far."""
        self._errors.seek(0)
        return self._errors.read()

    def rss(self) -> int:
        """Resident memory of the process, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def _read_banner(self) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(START_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if "serving on" in line:
            return line
        self.kill()
        raise RuntimeError(f"the server did not start; it wrote {line!r} and, to stderr:\n{self.errors()}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs fast tests first, so that mistakes show early."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerHandle]]:
    """A function that starts servers, which are killed after the test."""
    handles: list[ServerHandle] = []

    def start(*, code: str = RUN, **options: Any) -> ServerHandle:
        handles.append(ServerHandle(options, code))
        return handles[-1]

    yield start
    for handle in handles:
        handle.kill()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The target of a server with default settings and the numpy backend."""
    handle = ServerHandle({})
    yield handle.target
    handle.kill()


@pytest.fixture
def seedbed_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs a command and returns its exit code, output and error output."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from seedbed.cli import main

        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def ok(seedbed_command: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """A function that runs a command, which must succeed, and returns its output."""

    def run(*arguments: object) -> str:
        code, out, err = seedbed_command(*arguments)
        assert (code, err) == (0, "")
        return out

    return run
