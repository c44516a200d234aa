"""Bytes into the caller's array over loopback; the peers are gRPC alone, a tutorial's server, Flight and torch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import seedbed
from benchmarks.engine import DTYPES, PARAMETERS, TORCH
from benchmarks.measuring import Part, Row, Say, Sizes, compare, gigabytes, in_turns, is_installed, row, timed
from benchmarks.peers import MIB, Ceiling, Flight, Tutorial
from benchmarks.servers import peer, read_line, running, serving
from benchmarks.servers import seedbed as our_server

Fill = Callable[[np.ndarray], object]

CHUNK_KIB = (64, 128, 256, 512, 1024, 2048, 3072)


def measure(sizes: Sizes, say: Say) -> Part:
    torch.set_num_threads(1)
    part = Part()
    with contextlib.ExitStack() as stack:
        laws = _Laws(stack, sizes)
        part.notes += laws.notes
        for law, dtype in itertools.product(TORCH, ("float32", "bfloat16")):
            say(f"{law} {dtype}")
            part.rows += laws.compare(law, dtype)
    say("chunk sizes")
    with contextlib.ExitStack() as stack:
        part.rows += _chunk_sizes(stack, sizes)
    return part


class _Laws:
    """All servers and their clients, which live as long as the stack, and the runs with them."""

    def __init__(self, stack: contextlib.ExitStack, sizes: Sizes) -> None:
        self._sizes = sizes
        ours = stack.enter_context(serving(our_server))
        self._ours = {
            "seedbed TCP": stack.enter_context(seedbed.connect(ours.tcp)),
            "seedbed Unix": stack.enter_context(seedbed.connect(ours.unix)),
            "seedbed local:": stack.enter_context(seedbed.connect("local:")),
        }
        info = self._ours["seedbed TCP"].server_info()
        chunk_bytes = info.limits.chunk_bytes
        ceiling = stack.enter_context(serving(peer("ceiling"), chunk_bytes))
        self._ceilings = {
            "ceiling TCP": stack.enter_context(Ceiling(ceiling.tcp)),
            "ceiling Unix": stack.enter_context(Ceiling(ceiling.unix)),
        }
        command = peer("plain-client")(["--listen", ceiling.tcp])
        self._plain_client = stack.enter_context(running(command))
        read_line(self._plain_client)
        tutorial = stack.enter_context(serving(peer("tutorial"), chunk_bytes))
        self._tutorial = stack.enter_context(Tutorial(tutorial.tcp))
        self._flight: Flight | None = None
        if is_installed("pyarrow"):
            flight = stack.enter_context(serving(peer("flight"), chunk_bytes))
            self._flight = stack.enter_context(Flight(flight.tcp))
        self.notes = [
            f"{sizes.transport_mib} MiB in chunks of {chunk_bytes} bytes; client and server share this machine's cores",
            f"our server and the tutorial's sample with {info.backend} on {info.threads} threads; torch on one",
            "the ceiling sends a constant message, without laws, dtypes or checksums",
            "its plain client is a separate process, without torch's and our side effect on the C library's memory",
        ]
        if self._flight is None:
            self.notes.append("Flight is skipped: pyarrow is not installed")

    def compare(self, law: str, dtype: str) -> list[Row]:
        spec = seedbed.spec(law, (1,), dtype=dtype, **PARAMETERS.get(law, {}))
        out = np.zeros(self._sizes.transport_mib * MIB // _itemsize(dtype), seedbed.dtypes.numpy_dtype(spec.dtype))
        spec.shape[:] = [len(out)]
        tensor = torch.zeros(len(out), dtype=DTYPES[dtype])
        competitors: dict[str, Callable[[], object]] = {
            name: partial(client.init, spec, out=out) for name, client in self._ours.items()
        }
        competitors |= {name: partial(client.fill, out) for name, client in self._ceilings.items()}
        competitors["ceiling TCP, plain client"] = partial(self._fill_plainly, out.nbytes)
        competitors["tutorial TCP"] = partial(self._tutorial.fill, spec, out)
        if self._flight and (law, dtype) == ("normal", "float32"):
            competitors["Flight + NumPy TCP"] = partial(self._flight.fill, out)
        competitors["torch, no server"] = partial(TORCH[law], tensor)
        unit = gigabytes(out.nbytes)
        return compare("transport", f"{law} {dtype}", unit, self._sizes.transport_runs, competitors)

    def _fill_plainly(self, count: int) -> float:
        self._plain_client.stdin.write(f"{count}\n")
        return float(read_line(self._plain_client))


def _chunk_sizes(stack: contextlib.ExitStack, sizes: Sizes) -> list[Row]:
    """Our server and the ceiling for each chunk size, all in the same turns."""
    out = np.zeros(sizes.transport_mib * MIB // 4, np.float32)
    spec = seedbed.spec("normal", out.shape)
    competitors: dict[tuple[int, str], Callable[[], float]] = {}
    for kib in CHUNK_KIB[: sizes.chunk_sizes]:
        ours = stack.enter_context(serving(our_server, kib << 10))
        client = stack.enter_context(seedbed.connect(ours.tcp))
        competitors[kib, "seedbed TCP"] = timed(partial(client.init, spec, out=out))
        ceiling = stack.enter_context(serving(peer("ceiling"), kib << 10))
        competitors[kib, "ceiling TCP"] = timed(partial(stack.enter_context(Ceiling(ceiling.tcp)).fill, out))
    return [
        row("chunk sizes", f"normal float32, {kib} KiB", name, gigabytes(out.nbytes), seconds, kib)
        for (kib, name), seconds in in_turns(sizes.sweep_runs, competitors).items()
    ]


def _itemsize(dtype: str) -> int:
    return DTYPES[dtype].itemsize
