"""Over loopback: our service in its own process; the peer is gRPC alone.

The code of the other processes is below: ``python -m benchmarks.on_gpu.wire NAME [ARGUMENT ...]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial

import grpc
import numpy as np

import seedbed
from benchmarks import peers
from benchmarks.measuring import MILLISECONDS, Row, compare, gigabytes, row
from benchmarks.on_gpu import ROOT
from benchmarks.on_gpu.bench import MIB, Bench, described, ratios, say, whole
from benchmarks.servers import read_line, running, serving
from seedbed._wire.transport import keep_freed_memory
from seedbed.v1 import InitTensorRequest
from seedbed_server import engine
from seedbed_server.service.servicer import InitServicer
from seedbed_server.service.settings import Settings

ENDLESS_BYTES = 4 << 40
ENDLESS = seedbed.spec("normal", (ENDLESS_BYTES // 4,))


def one_stream(bench: Bench) -> list[Row]:
    """A tensor into the caller's array; the ceiling sends a constant message repeatedly, without checks."""
    out = np.zeros(bench.sizes.socket_bytes // 4, np.float32)
    rows = []
    with _servers() as target, seedbed.connect(target["seedbed"]) as client, peers.Ceiling(target["ceiling"]) as other:
        for law in ("uniform", "normal"):
            description = described(law, "float32", out.shape)
            works = {"seedbed": partial(client.init, description.spec, out=out), "ceiling": partial(other.fill, out)}
            found = compare("loopback", f"{law} float32", gigabytes(out.nbytes), bench.sizes.runs, works)
            rows += [*found, *ratios("seedbed / ceiling", found, "seedbed", "ceiling")]
            bench.check(whole(description), {"loopback": client.init(description.spec, out=out)})
        for name, size in {"1 KiB": 1024, "1 MiB": MIB}.items():
            small, spec = out[: size // 4], seedbed.spec("normal", (size // 4,))
            works = {"seedbed": partial(client.init, spec, out=small), "ceiling": partial(other.fill, small)}
            rows += compare("round trip", f"normal float32, {name}", MILLISECONDS, bench.sizes.latency_runs, works)
    bench.notes.append(f"loopback: {out.nbytes / MIB:g} MiB in messages of {Settings.chunk_bytes / MIB:g} MiB")
    return rows


def many_streams(bench: Bench) -> list[Row]:
    """Several clients at once, each in its own process: their total, and how evenly they share it."""
    rows = []
    with _servers() as targets:
        for count in bench.sizes.streams:
            for name, target in targets.items():
                received = concurrently(f"pull_{name}", target, count, bench.sizes.stream_seconds)
                total, share = sum(received) / bench.sizes.stream_seconds / 1e9, min(received) / max(1, *received)
                rows.append(Row("streams", f"{count} streams", f"{name}, all together", "GB/s", [total], count))
                rows.append(Row("streams", f"{count} streams", f"{name}, slowest / fastest", "", [share], count))
    bench.notes.append("streams: normal float32; received, checked and dropped")
    return rows


def concurrently(kind: str, target: str, count: int, seconds: float) -> list[int]:
    """The bytes that each of several clients receives in the same seconds."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running(child(kind, [target]))) for _ in range(count)]
        for client in clients:
            read_line(client)
        begin = time.perf_counter() + 0.5  # until then all get up to speed
        for client in clients:
            client.stdin.write(f"{begin} {begin + seconds}\n")
        return [int(read_line(client)) for client in clients]


def first_chunk(bench: Bench) -> list[Row]:
    """From the start of a process to the first chunk of a tensor of 4 TiB, with kernels compiled or cached."""
    with tempfile.TemporaryDirectory() as folder:
        cold = [_start(f"{folder}/{index}") for index in range(bench.sizes.cold_starts)]
        warm = [_start(f"{folder}/0") for _ in range(bench.sizes.warm_starts)]
    return [
        row("first chunk", case, stage, MILLISECONDS, [start[stage] for start in starts])
        for case, starts in {"kernels compiled": cold, "kernels kept": warm}.items()
        for stage in starts[0]
    ]


def _start(cache: str) -> dict[str, float]:
    """The times that a fresh process took to reach each stage."""
    begin = time.perf_counter()
    command, env = child("make_first_chunk", []), {**os.environ, "CUPY_CACHE_DIR": cache}
    output = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, cwd=ROOT, timeout=120).stdout
    return {stage: at - begin for stage, at in json.loads(output).items()}


@contextlib.contextmanager
def _servers() -> Iterator[dict[str, str]]:
    with serving(partial(child, "serve_seedbed")) as ours, serving(partial(child, "serve_ceiling")) as ceiling:
        yield {"seedbed": ours.tcp, "ceiling": ceiling.tcp}


def child(name: str, arguments: list[str]) -> list[str]:
    """The command of a process that runs one of the functions below."""
    return [sys.executable, "-m", "benchmarks.on_gpu.wire", name, *arguments]


# The code of the other processes.


def serve_seedbed(*arguments: str) -> None:
    _serve("cupy", arguments)


def serve_seedbed_on_cpu(*arguments: str) -> None:
    _serve("numba", arguments)


def _serve(backend: str, arguments: tuple[str, ...]) -> None:
    """Serves `InitServicer` with gRPC's own server, because ours needs grpc_health, which may be missing."""
    servicer = InitServicer(engine.open_backend(backend))

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from servicer.init_tensor(InitTensorRequest.FromString(request), lambda: not context.is_active())

    handlers = {"InitTensor": grpc.unary_stream_rpc_method_handler(stream)}
    peers._serve_grpc("seedbed.v1.InitService", handlers, list(arguments[1::2]))


def serve_ceiling(*arguments: str) -> None:
    peers.Ceiling.serve(list(arguments[1::2]), Settings.chunk_bytes)


def pull_seedbed(target: str) -> None:
    with seedbed.connect(target) as client, contextlib.closing(client.iter_chunks(ENDLESS)) as chunks:
        _count(values.nbytes for _, values in chunks)


def pull_ceiling(target: str) -> None:
    keep_freed_memory()  # as our client does
    with peers.Ceiling(target) as client, contextlib.closing(client.messages(ENDLESS_BYTES)) as messages:
        _count(len(message) for message in messages)


def _count(sizes: Iterator[int]) -> None:
    """Prints how many bytes arrive between two times, which the first line of the input has."""
    next(sizes)
    say("ready")
    begin, end = map(float, sys.stdin.readline().split())
    received = 0
    while (now := time.perf_counter()) < end:  # a clock that all processes of a machine share
        size = next(sizes)
        received += size if now >= begin else 0  # bytes that piled up before do not count
    say(received)


def make_first_chunk() -> None:
    """Prints the time of each stage."""
    stages = {"imports done": time.perf_counter()}
    backend = engine.open_backend("cupy")
    stages["GPU open, its bits checked"] = time.perf_counter()
    next(InitServicer(backend).init_tensor(InitTensorRequest(spec=ENDLESS), lambda: False))
    stages["first chunk"] = time.perf_counter()
    say(json.dumps(stages))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
