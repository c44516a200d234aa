"""Scaling: time with elements, throughput with streams, and memory, which should not grow with either."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import seedbed
from benchmarks.measuring import SECONDS, Part, Row, Say, Sizes, compare, gigabytes, in_turns, row
from benchmarks.peers import Ceiling
from benchmarks.servers import Server, peer, serving
from benchmarks.servers import seedbed as our_server
from seedbed.v1 import TensorSpec

ENDLESS = seedbed.spec("normal", (1 << 40,))
STREAMS = (1, 4, 16, 64, 256)
SETTLE = 0.5  # seconds: until all streams are up to speed, and until a server notices that they have ended
SAMPLE_SECONDS = 0.1

Counts = Iterator[int]
"""Yields the number of bytes of each chunk of a stream."""
OpenStream = Callable[[], contextlib.AbstractContextManager[Counts]]


def measure(sizes: Sizes, say: Say) -> Part:
    torch.set_num_threads(1)
    part = Part(notes=["client and server share this machine's cores; all streams end in one client process"])
    for stage, run in {"elements": _elements, "streams": _streams, "one tensor": _one_tensor}.items():
        with serving(our_server) as ours, serving(peer("ceiling")) as ceiling:
            processes = {"seedbed server": ours.pid, "ceiling server": ceiling.pid, "client": os.getpid()}
            with _Memory(part, stage, processes) as memory:

                def now(text: str, mark: Callable[[str], None] = memory.mark) -> None:
                    say(text)
                    mark(text)

                part.rows += run(ours, ceiling, sizes, now)
    return part


def _elements(ours: Server, ceiling: Server, sizes: Sizes, say: Say) -> list[Row]:
    """One tensor of each size, into a reused array, or chunk by chunk if it is too large."""
    rows = []
    array = np.zeros(min(sizes.elements_in_memory, sizes.elements_largest), np.float32)
    with seedbed.connect(ours.tcp) as client, Ceiling(ceiling.tcp) as peer_client:
        for count in itertools.takewhile(lambda n: n <= sizes.elements_largest, (10**e for e in itertools.count(3))):
            say(f"{count:,} elements")
            if count > len(array):
                competitors = _counted(client, peer_client, array, count)
                runs = max(1, sizes.elements_runs // 3)
            else:
                competitors = _filled(client, peer_client, array[:count])
                runs = sizes.elements_runs
            rows += compare("elements", f"{count:,} normals, float32", SECONDS, runs, competitors, x=count)
    return rows


def _filled(client: seedbed.Client, peer_client: Ceiling, out: np.ndarray) -> dict[str, Callable[[], object]]:
    spec = seedbed.spec("normal", out.shape)
    return {
        "seedbed TCP": partial(client.init, spec, out=out),
        "ceiling TCP": partial(peer_client.fill, out),
        "torch, no server": torch.from_numpy(out).normal_,
    }


def _counted(
    client: seedbed.Client, peer_client: Ceiling, array: np.ndarray, count: int
) -> dict[str, Callable[[], object]]:
    spec = seedbed.spec("normal", (count,))
    tensor = torch.from_numpy(array)
    return {
        "seedbed TCP": lambda: sum(len(values) for _, values in client.iter_chunks(spec)),
        "ceiling TCP": lambda: sum(len(message) for message in peer_client.messages(4 * count)),
        "torch, no server": lambda: sum(len(tensor.normal_()) for _ in range(count // len(array))),
    }


class _Shared(NamedTuple):
    """The throughput of streams that ran at the same time."""

    total: float
    """GB/s of all streams together."""
    fairness: float
    """The slowest stream's bytes divided by the fastest's."""


def _streams(ours: Server, ceiling: Server, sizes: Sizes, say: Say) -> list[Row]:
    """Several streams at once, each with its own connection."""
    opens: dict[str, OpenStream] = {
        "seedbed TCP": partial(_our_stream, ours.tcp, ENDLESS),
        "ceiling TCP": partial(_ceiling_stream, ceiling.tcp, 4 << 40),
    }

    def run(name: str, count: int) -> _Shared:
        say(f"{name}, {_streams_text(count)}")
        return _concurrently(opens[name], count, sizes.streams_seconds)

    competitors = {
        (name, count): partial(run, name, count) for count in STREAMS if count <= sizes.streams_most for name in opens
    }
    rows = []
    for (name, count), results in in_turns(sizes.streams_runs, competitors, warm_up=False).items():
        case = _streams_text(count)
        rows.append(Row("streams", case, name, "GB/s", [result.total for result in results], count))
        rows.append(Row("fairness", case, name, "slowest / fastest", [result.fairness for result in results], count))
    return rows


def _streams_text(count: int) -> str:
    return f"{count} stream{'s' if count > 1 else ''}"


@contextlib.contextmanager
def _our_stream(target: str, spec: TensorSpec) -> Iterator[Counts]:
    with seedbed.connect(target) as client, contextlib.closing(client.iter_chunks(spec)) as chunks:
        yield (values.nbytes for _, values in chunks)


@contextlib.contextmanager
def _ceiling_stream(target: str, count: int) -> Iterator[Counts]:
    with Ceiling(target) as client, contextlib.closing(client.messages(count)) as messages:
        yield (len(message) for message in messages)


def _concurrently(open_stream: OpenStream, count: int, seconds: float) -> _Shared:
    """Counts the bytes of each stream between a common start, after all streams have begun, and a common end.

    No stream waits for the others: bytes that pile up meanwhile would count as throughput.
    """
    settle = min(SETTLE, seconds)
    started = threading.Semaphore(0)
    window: list[float] = []

    def pull() -> int:
        received = 0
        with open_stream() as sizes:
            next(sizes)
            started.release()
            for size in sizes:
                now = time.perf_counter()
                if window and now >= window[1]:
                    break
                if window and now >= window[0]:
                    received += size
        return received

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(pull) for _ in range(count)]
        for _ in futures:
            if not started.acquire(timeout=60):
                break  # one has failed; its result has the error
        begin = time.perf_counter() + settle
        window[:] = begin, begin + seconds
        received = [future.result() for future in futures]
    time.sleep(settle)
    return _Shared(sum(received) / seconds / 1e9, min(received) / max(1, *received))


def _one_tensor(ours: Server, ceiling: Server, sizes: Sizes, say: Say) -> list[Row]:
    """One tensor, dropped chunk by chunk, and as many bytes from the ceiling; once, because this measures memory."""
    count = int(sizes.memory_gib * (1 << 30))
    spec = seedbed.spec("normal", (count // 4,))
    rows = []
    for name, open_stream in {
        "seedbed TCP": partial(_our_stream, ours.tcp, spec),
        "ceiling TCP": partial(_ceiling_stream, ceiling.tcp, count),
    }.items():
        say(f"{name}, {sizes.memory_gib:g} GiB")
        begin = time.perf_counter()
        with open_stream() as counts:
            received = sum(counts)
        unit = gigabytes(received)
        case = f"{sizes.memory_gib:g} GiB of normals, float32"
        rows.append(row("one tensor", case, name, unit, [time.perf_counter() - begin]))
    return rows


class _Memory:
    """Samples the resident memory of processes until the block ends.

    It adds the whole series to the part, and a row with the difference between each process's highest and lowest value.
    A server's lowest value is when it is idle; a client's, once it has returned memory of earlier stages.
    """

    def __init__(self, part: Part, stage: str, pids: dict[str, int]) -> None:
        self._part, self._stage, self._pids = part, stage, pids
        self._seconds: list[float] = []
        self._mib: dict[str, list[float]] = {process: [] for process in pids}
        self._marks: list[tuple[float, str]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Memory:
        self._begin = time.perf_counter()
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if error_type:
            return
        self._sample()
        for process, mib in self._mib.items():
            series = {"stage": self._stage, "process": process, "seconds": self._seconds, "mib": mib}
            self._part.series.append({**series, "marks": self._marks})
            self._part.rows.append(Row("memory above idle", self._stage, process, "MiB", [max(mib) - min(mib)]))

    def mark(self, text: str) -> None:
        """Marks the start of a step."""
        self._marks.append((round(time.perf_counter() - self._begin, 2), text))

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self._seconds.append(round(time.perf_counter() - self._begin, 2))
        for process, pid in self._pids.items():
            self._mib[process].append(round(resident_mib(pid), 1))


def resident_mib(pid: int) -> float:
    """The resident memory of a process."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text(encoding="ascii"))[1]) / 1024
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], stdout=subprocess.PIPE, text=True, check=True)
    return int(shown.stdout) / 1024
