"""A server under mixed load for a quarter of an hour: ``python -m benchmarks.soak --minutes 15``.

Clients in a separate process request tensors of all laws and dtypes, models and descriptions, cancel streams, read
slowly, and reconnect. Each line sums up an interval. The exit code is 1 if a byte was wrong, a call failed, or the
server's memory grew by over 5 % after the warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

import seedbed
from benchmarks import servers
from benchmarks.measuring import percentile
from seedbed.v1 import TensorSpec

WARM_UP = 0.2  # of the time: the server creates its threads, buffers and matrices
MOST_GROWTH = 1.05
INTERVALS = 15
SAMPLE = 0.1  # the share of tensors that are compared with the reference
HEALTH_SECONDS = 0.1

DTYPES = ("float32", "float16", "bfloat16", "float64")
SCHEMES: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "uniform": ((1024, 1024), {}),
    "normal": ((1024, 1024), {}),
    "trunc_normal": ((512, 1024), {}),
    "constant": ((1024, 1024), {"val": 0.5}),
    "zeros": ((1 << 20,), {}),
    "eye": ((512, 512), {}),
    "dirac": ((64, 64, 3, 3), {"groups": 2}),
    "xavier_uniform": ((768, 3072), {}),
    "kaiming_normal": ((1024, 512), {"nonlinearity": "relu"}),
    "orthogonal": ((96, 64), {}),
    "sparse": ((512, 256), {"sparsity": 0.3}),
}


def specs() -> list[TensorSpec]:
    """All laws in all dtypes, with few seeds, so that each reference is computed only once."""
    return [
        seedbed.spec(scheme, shape, seed=seed, name=f"{scheme}.{dtype}.{seed}", dtype=dtype, **parameters)
        for scheme, (shape, parameters) in SCHEMES.items()
        for dtype, seed in itertools.product(DTYPES, (1, 2))
    ]


class Load:
    """Clients in threads, and their counts."""

    def __init__(self, target: str, seconds: float, streams: int) -> None:
        self._target = target
        self._streams = streams
        self._end = time.monotonic() + seconds
        self._specs = specs()
        self._reference = seedbed.connect("local:")
        self._digests: dict[str, int] = {}
        self._lock = threading.Lock()
        self.bytes = self.tensors = self.compared = self.cancelled = self.wrong = 0
        self.errors: list[str] = []

    def run(self) -> None:
        kinds = [self._endless] * self._streams
        kinds = kinds or [self._tensors] * 4 + [self._model] * 2 + [self._cancelling] * 2 + [self._slow]
        threads = [threading.Thread(target=self._repeat, args=(kind, index)) for index, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def counts(self) -> dict[str, object]:
        with self._lock:
            return {
                "bytes": self.bytes,
                "tensors": self.tensors,
                "compared": self.compared,
                "cancelled": self.cancelled,
                "wrong": self.wrong,
                "errors": self.errors[:5],
                "error_count": len(self.errors),
            }

    def _repeat(self, kind: Callable[[random.Random], None], index: int) -> None:
        chosen = random.Random(index)
        while time.monotonic() < self._end:
            try:
                kind(chosen)
            except Exception as error:
                with self._lock:
                    self.errors.append(f"{kind.__name__}: {error!r}")
                time.sleep(0.1)

    def _tensors(self, chosen: random.Random) -> None:
        """Requests some tensors, whole or by region, over one connection."""
        with seedbed.connect(self._target, timeout=60) as client:
            for spec in chosen.sample(self._specs, 20):
                client.describe(spec)
                if chosen.random() < 0.3:
                    first, last = sorted(chosen.sample(range(spec.shape[0] + 1), 2))
                    self._count(client.init(spec, region=np.s_[first:last, ...]))
                else:
                    self._receive(spec, client.init(spec), chosen)

    def _model(self, chosen: random.Random) -> None:
        sample = chosen.sample(self._specs, 12)
        with seedbed.connect(self._target, timeout=60) as client:
            for spec, (_, array) in zip(sample, client.init_model(sample), strict=True):
                self._receive(spec, array, chosen)

    def _cancelling(self, chosen: random.Random) -> None:
        with seedbed.connect(self._target, timeout=60) as client:
            for _ in range(10):
                with contextlib.closing(client.iter_chunks(_endless())) as chunks:
                    for _, values in itertools.islice(chunks, chosen.randrange(4)):
                        self._count(values)
                with self._lock:
                    self.cancelled += 1

    def _slow(self, chosen: random.Random) -> None:
        with (
            seedbed.connect(self._target, timeout=60) as client,
            contextlib.closing(client.iter_chunks(_endless())) as chunks,
        ):
            for _, values in itertools.islice(chunks, 10):
                self._count(values)
                time.sleep(chosen.random())

    def _endless(self, _: random.Random) -> None:
        with (
            seedbed.connect(self._target, timeout=None) as client,
            contextlib.closing(client.iter_chunks(_endless())) as chunks,
        ):
            for _, values in chunks:
                self._count(values)
                if time.monotonic() > self._end:
                    return

    def _receive(self, spec: TensorSpec, array: np.ndarray, chosen: random.Random) -> None:
        self._count(array)
        if chosen.random() > SAMPLE:
            return
        is_right = zlib.crc32(_bytes(array)) == self._digest(spec)
        with self._lock:
            self.compared += 1
            self.wrong += not is_right

    def _count(self, array: np.ndarray) -> None:
        with self._lock:
            self.bytes += array.nbytes
            self.tensors += 1

    def _digest(self, spec: TensorSpec) -> int:
        key = f"{spec.name} {spec.seed}"
        if key not in self._digests:
            self._digests[key] = zlib.crc32(_bytes(self._reference.init(spec)))
        return self._digests[key]


def _endless() -> TensorSpec:
    return seedbed.spec("normal", (1 << 40,), name="endless")


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def clients(target: str, seconds: float, streams: int) -> None:
    """Runs the clients, and prints a line of JSON for each interval and at the end."""
    load = Load(target, seconds, streams)
    runner = threading.Thread(target=load.run)
    runner.start()
    while runner.is_alive():
        runner.join(seconds / INTERVALS)
        print(json.dumps(load.counts()), flush=True)


class Pulse(threading.Thread):
    """Times health checks over its own connection, in a process that does nothing else."""

    def __init__(self, target: str) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._over = threading.Event()
        self._seconds: list[float] = []
        self.failures = 0

    def __enter__(self) -> Pulse:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        with grpc.insecure_channel(self._target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while not self._over.wait(HEALTH_SECONDS):
                begin = time.perf_counter()
                try:
                    check(health_pb2.HealthCheckRequest(), timeout=10)
                except grpc.RpcError:
                    self.failures += 1
                self._seconds.append(time.perf_counter() - begin)

    def taken(self) -> list[float]:
        """Returns the times since the last call."""
        seconds, self._seconds = self._seconds, []
        return seconds


def vitals(pid: int) -> tuple[float, int, int]:
    """The resident memory (MiB), threads and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    rss, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    return rss / 1024, threads, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def intervals(target: str, seconds: float, streams: int) -> Iterator[dict[str, object]]:
    command = [sys.executable, "-m", "benchmarks.soak", "--clients", target, "--minutes", str(seconds / 60)]
    command += ["--streams", str(streams)]
    with servers.running(command) as process:
        for line in process.stdout:
            yield json.loads(line)


def soak(seconds: float, streams: int) -> int:
    """Runs the load, prints a table, and returns the exit code."""
    print("    s      GB/s   tensors  compared  wrong  errors  health p99 ms  RSS MiB  threads  files", flush=True)
    steady, health = [], []
    with servers.serving(servers.seedbed) as server, Pulse(server.tcp) as pulse:
        begin = time.monotonic()
        for counts in intervals(server.tcp, seconds, streams):
            rss, threads, files = vitals(server.pid)
            elapsed, times = time.monotonic() - begin, pulse.taken()
            health += times
            print(
                f"{elapsed:5.0f} {counts['bytes'] / elapsed / 1e9:9.2f} {counts['tensors']:9,} {counts['compared']:9,} "
                f"{counts['wrong']:6} {counts['error_count']:7} {_p99(times):14.1f} {rss:8.0f} {threads:8} {files:6}",
                flush=True,
            )
            if elapsed > WARM_UP * seconds:
                steady.append(rss)
    counts["error_count"] += pulse.failures
    return _verdict(counts, steady, health)


def _verdict(counts: dict[str, object], steady: list[float], health: list[float]) -> int:
    third = max(1, len(steady) // 3)
    first, last = (sorted(part)[len(part) // 2] for part in (steady[:third], steady[-third:]))
    has_grown = last > first * MOST_GROWTH
    print(
        f"{counts['bytes'] / 1e9:.1f} GB, {counts['cancelled']} streams cancelled; "
        f"{counts['wrong']} of {counts['compared']} tensors compared were wrong; {counts['error_count']} errors; "
        f"{len(health)} health checks, "
        f"p99 {_p99(health):.1f} ms"
    )
    print(f"memory after the warm-up: {first:.0f} MiB at the start, {last:.0f} MiB at the end; threads and files above")
    for error in counts["errors"]:  # type: ignore[attr-defined]
        print(error)
    return int(has_grown or counts["wrong"] > 0 or counts["error_count"] > 0)


def _p99(seconds: list[float]) -> float:
    """Milliseconds."""
    return percentile(seconds, 0.99) * 1000 if seconds else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--streams", type=int, default=0, help="run this many endless streams instead of the mix")
    parser.add_argument("--clients", metavar="TARGET", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    if arguments.clients:
        clients(arguments.clients, seconds, arguments.streams)
        return 0
    return soak(seconds, arguments.streams)


if __name__ == "__main__":
    sys.exit(main())
