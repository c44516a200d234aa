"""Worker processes behind the same ports: started together, stopped together, and replaced when one dies.

Python's interpreter lock limits a process to a few cores. The kernel distributes connections among the processes that
listen on a port (SO_REUSEPORT), so each worker has its own clients, limits, metrics and log lines; `balance` evens out
how many streams each of them has.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from seedbed_server.service import signals

_MIN_LIFETIME: Final = 5.0  # seconds; a worker that dies sooner would be restarted for ever

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """What a server reports once it accepts connections.

    Attributes:
        addresses: The addresses that it listens on.
        backend: The backend's name, device, and the reason it was chosen.
        metrics: The URL of its metrics, or "".
    """

    addresses: Sequence[str]
    backend: str
    metrics: str


def supervise(
    code: str, inputs: Sequence[bytes], announce: Callable[[Sequence[Ready]], None], files: Sequence[int] = ()
) -> None:
    """Runs workers until SIGTERM or SIGINT, and then sends them SIGTERM. Forwards SIGHUP to them.

    Args:
        code: The Python code that each worker runs. It reads its input from standard input, and then enters
            `reporting_to_head`.
        inputs: The input of each worker; there are as many workers as inputs.
        announce: Called once all workers accept connections.
        files: File descriptors that each worker inherits, under the same numbers.

    Raises:
        ValueError: A worker cannot use its settings.
        OSError: A worker cannot listen on its addresses, or workers die soon after they start.
    """
    crew: list[_Worker] = []
    try:
        with signals.awaited(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD) as wait:
            with signals.ending(signal.SIGTERM, signal.SIGINT):  # the workers end when their standard input closes
                crew.append(_Worker(code, inputs[0], files))
                ready = [crew[0].ready()]  # first alone: it compiles for all, and reports a mistake once
                crew += [_Worker(code, worker_input, files) for worker_input in inputs[1:]]
                ready += [worker.ready() for worker in crew[1:]]
            announce(ready)
            while (number := wait()) not in (signal.SIGTERM, signal.SIGINT):
                if number == signal.SIGHUP:
                    for worker in crew:
                        worker.process.send_signal(number)
                else:
                    crew = [worker if worker.is_alive() else worker.successor() for worker in crew]
    finally:
        for worker in crew:
            worker.process.terminate()
        for (
            worker
        ) in crew:  # a second signal ends this process; then the workers' standard input closes, which ends them
            worker.process.wait()


class _Worker:
    """A process in its own session: Ctrl-C in a terminal reaches only the head, which then stops its workers."""

    def __init__(self, code: str, worker_input: bytes, files: Sequence[int]) -> None:
        self._code, self._input, self._files = code, worker_input, files
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=files,
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has already died, as `ready` and `is_alive` will find
            self.process.stdin.write(worker_input)
            self.process.stdin.flush()  # left open, because closing it ends the worker

    def ready(self) -> Ready:
        """Waits until the worker accepts connections."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"workers: one exited with code {self.process.wait()} before it was ready; see the log")
        report = json.loads(line)
        if "error" in report:
            raise (OSError if report["error"] == "OSError" else ValueError)(report["message"])
        return Ready(**report)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def successor(self) -> _Worker:
        """Starts a worker with the same input."""
        if time.monotonic() - self._started < _MIN_LIFETIME:
            raise OSError(
                f"workers: one exited with code {self.process.returncode} within {_MIN_LIFETIME:g} s of its start; "
                "see the log"
            )
        _log.error("worker %d exited with code %d; starting another", self.process.pid, self.process.returncode)
        return _Worker(self._code, self._input, self._files)


@contextlib.contextmanager
def reporting_to_head() -> Iterator[Callable[[Ready], None]]:
    """Within a worker: yields a function that reports to the head that the worker is ready.

    An error in the block is reported to the head, too. The worker ends when its head does, however the head dies.
    """
    threading.Thread(target=_end_with_head, daemon=True).start()
    try:
        yield lambda ready: _report(asdict(ready))
    except (ValueError, OSError) as error:
        _report({"error": "OSError" if isinstance(error, OSError) else "ValueError", "message": str(error)})
        raise SystemExit(1) from None


def _end_with_head() -> None:
    while os.read(sys.stdin.fileno(), 1):  # blocks until the head closes the pipe, or the kernel does after its death
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _report(report: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the head has died
        print(json.dumps(report), flush=True)
