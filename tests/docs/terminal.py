"""A terminal: one shell, which runs what a page tells its reader to type."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

_END = "\x01"


class Terminal:
    """A shell in a folder; ``with`` ends it and all that it has started.

    Args:
        folder: where it begins.
        environment: its environment.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        self._unread = ""
        self._write("set -m")  # job control, so that %1 is the first server

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("exec 2>/dev/null; jobs -p | while read -r pid; do kill -9 -- -$pid; done; exit")
        self._shell.communicate(timeout=10)

    def run(self, command: str, timeout: float) -> tuple[int, str]:
        """Gives the exit code and the output of a command; of a server in the background, its first line."""
        self._write(f"{command}\nprintf '{_END}%s\\n' $?")
        deadline = time.monotonic() + timeout
        output = self._read_to(_END, deadline)
        code = int(self._read_to("\n", deadline))
        if command.startswith("seedbed serve") and command.endswith("&"):
            output += self._read_to("\n", deadline) + "\n"
        return code, output

    def _write(self, text: str) -> None:
        assert self._shell.stdin
        self._shell.stdin.write(f"{text}\n".encode())
        self._shell.stdin.flush()

    def _read_to(self, mark: str, deadline: float) -> str:
        while mark not in self._unread:
            self._unread += self._read(deadline)
        found, _, self._unread = self._unread.partition(mark)
        return found

    def _read(self, deadline: float) -> str:
        assert self._shell.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._shell.stdout, selectors.EVENT_READ)
            if not selector.select(deadline - time.monotonic()):
                raise TimeoutError(f"the command goes on; so far it wrote:\n{self._unread}")
        data = os.read(self._shell.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError(f"the shell ended; it wrote:\n{self._unread}")
        return data.decode()


def environment(**further: str) -> dict[str, str]:
    """The environment, with this Python's commands first and nobody's settings of Seedbed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEEDBED_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return own | {"PATH": path, "COLUMNS": "120", "PYTHONWARNINGS": "ignore"} | further
