"""Several processes behind the same ports: started together, stopped together, and replaced when one dies.

Python's lock lets one process use a few cores at most. The kernel divides the connections among the processes that
listen on a port (SO_REUSEPORT), so each worker has its own clients, limits, metrics and logs; `balance` tells how they
share clients evenly.
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

_SHORTEST_LIFE: Final = 5.0  # seconds; workers that live no longer would only be started for ever

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """What a server tells when it can be reached.

    Attributes:
        addresses: Where it listens.
        backend: What samples, on what, and why.
        metrics: Where its metrics are read, or "".
    """

    addresses: Sequence[str]
    backend: str
    metrics: str


def supervise(
    code: str, told: Sequence[bytes], announce: Callable[[Sequence[Ready]], None], files: Sequence[int] = ()
) -> None:
    """Runs workers until SIGTERM or SIGINT, which they then get too. SIGHUP is passed on to them.

    Args:
        code: What each runs: Python that reads what it is told from its standard input, and then calls `told_to_head`.
        told: What each is told; as many workers as there are items.
        announce: Called once all can be reached.
        files: File descriptors that each gets, under the same numbers.

    Raises:
        ValueError: A worker was told something that it cannot do.
        OSError: A worker cannot listen where it was told to, or workers end as soon as they are started.
    """
    crew: list[_Worker] = []
    try:
        with signals.awaited(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD) as wait:
            with signals.ending(signal.SIGTERM, signal.SIGINT):  # the workers see their standard input end
                crew.append(_Worker(code, told[0], files))
                ready = [crew[0].ready()]  # it compiles for all, and tells of a mistake once
                crew += [_Worker(code, text, files) for text in told[1:]]
                ready += [worker.ready() for worker in crew[1:]]
            announce(ready)
            while (number := wait()) not in (signal.SIGTERM, signal.SIGINT):
                if number == signal.SIGHUP:
                    for worker in crew:
                        worker.process.send_signal(number)
                else:
                    crew = [worker if worker.lives() else worker.successor() for worker in crew]
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:  # a second signal ends this process, and with their standard input the workers
            worker.process.wait()


class _Worker:
    """A process, in a group of its own: Ctrl-C in a terminal is for the head, which passes it on once."""

    def __init__(self, code: str, told: bytes, files: Sequence[int]) -> None:
        self._code, self._told, self._files = code, told, files
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=files,
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; `ready` and `lives` tell
            self.process.stdin.write(told)
            self.process.stdin.flush()  # and not closed, for that would end it

    def ready(self) -> Ready:
        """Waits until it can be reached."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"workers: one ended with {self.process.wait()} before it served; the log tells more")
        answer = json.loads(line)
        if "error" in answer:
            raise (OSError if answer["error"] == "OSError" else ValueError)(answer["text"])
        return Ready(**answer)

    def lives(self) -> bool:
        return self.process.poll() is None

    def successor(self) -> _Worker:
        """Another one in its place."""
        if time.monotonic() - self._began < _SHORTEST_LIFE:
            raise OSError(
                f"workers: one ended with {self.process.returncode} within {_SHORTEST_LIFE:g} s of its start; "
                "the log tells more"
            )
        _log.error("worker %d ended with %d; starting another", self.process.pid, self.process.returncode)
        return _Worker(self._code, self._told, self._files)


@contextlib.contextmanager
def told_to_head() -> Iterator[Callable[[Ready], None]]:
    """Within a worker: gives what tells the head that it is ready; an error in the block is told, too.

    The worker ends with its head, whatever that dies of.
    """
    threading.Thread(target=_end_with_head, daemon=True).start()
    try:
        yield lambda ready: _tell(asdict(ready))
    except (ValueError, OSError) as error:
        _tell({"error": "OSError" if isinstance(error, OSError) else "ValueError", "text": str(error)})
        raise SystemExit(1) from None


def _end_with_head() -> None:
    while os.read(sys.stdin.fileno(), 1):  # until the head's end of the pipe is closed, by itself or by the kernel
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _tell(answer: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the head has gone
        print(json.dumps(answer), flush=True)
