"""From the device to the host: new values in pinned memory; the peer is a plain copy."""

from __future__ import annotations

from collections import deque
from functools import partial

import numpy as np

from benchmarks.measuring import Row, compare, gigabytes
from benchmarks.on_gpu.bench import MIB, Bench, described, ratios
from seedbed.v1 import TensorDescription
from seedbed_server.service.settings import Settings


def to_the_host(bench: Bench) -> list[Row]:
    """A tensor on the host, at once and in pieces of the size of a chunk."""
    size = bench.sizes.host_bytes
    source, out = bench.backend.cuda.allocate(size), bench.backend.buffer(size)
    rows = []
    for law in ("uniform", "normal"):
        description = described(law, "float32", (size // 4,))
        works = {
            "pinned copy": partial(bench.gpu.to_host, out, source.ptr),
            "fill": partial(bench.backend.fill, description, 0, out.view(np.float32)),
            "pieces ahead": partial(_pieces_ahead, bench, description),
        }
        timed = {name: partial(bench.gpu.host_seconds, work) for name, work in works.items()}
        found = compare("to the host", f"{law} float32", gigabytes(size), bench.sizes.runs, timed)
        rows += [*found, *ratios("fill / copy", found, "fill", "pinned copy")]
        rows += ratios("pieces / copy", found, "pieces ahead", "pinned copy")
    bench.notes.append(f"{size / MIB:.4g} MiB each; pieces of {Settings.chunk_bytes / MIB:g} MiB")
    return rows


def _pieces_ahead(bench: Bench, description: TensorDescription) -> None:
    """Samples as `InitServicer` does for a stream, without the messages: starts pieces ahead of waiting for them."""
    ahead, sampler = bench.backend.ahead, bench.backend.sampler(description)
    buffers = [bench.backend.buffer(Settings.chunk_bytes).view(np.float32) for _ in range(ahead + 1)]
    under_way: deque = deque()
    for piece, first in enumerate(range(0, description.element_count, len(buffers[0]))):
        if len(under_way) > ahead:
            under_way.popleft()()  # this frees its buffer, the next one in turn
        out = buffers[piece % len(buffers)][: description.element_count - first]
        under_way.append(sampler(first, out, lambda: False))
    for wait in under_way:
        wait()
