"""The engine into the device's memory; the peers are torch, CuPy and plain writes."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from benchmarks.measuring import Row, Unit, compare, gigabytes
from benchmarks.on_gpu.bench import DTYPES, GIB, MIB, Bench, described, ratios
from benchmarks.on_gpu.device import Work
from seedbed.v1 import Region

LAWS = [
    *((law, dtype, {}) for law in ("uniform", "normal", "trunc_normal") for dtype in DTYPES if dtype != "complex64"),
    *(("trunc_normal", dtype, {"std": 0.02}) for dtype in ("float32", "bfloat16")),
    *((law, "complex64", {}) for law in ("uniform", "normal", "disk")),
    ("sparse", "float32", {"sparsity": 0.9}),
    ("constant", "float32", {"val": 0.5}),
    ("eye", "float32", {}),
]
MICROSECONDS = Unit("µs", lambda seconds: seconds * 1e6)


def laws(bench: Bench) -> list[Row]:
    """All laws and types, in turns with memset, a plain fill, torch and CuPy, by the device's clock."""
    size = bench.sizes.output_bytes
    memory = bench.backend.cuda.allocate(size)
    writes = bench.usable(
        {"memset": partial(bench.gpu.memset, memory, 0xA5), "CuPy's fill": partial(bench.gpu.fill, memory)}
    )
    for _ in range(200):  # until the GPU has raised its clocks
        bench.gpu.seconds(writes["memset"], memory)
    rows = []
    for law, dtype, options in LAWS:
        count = size // {"complex64": 8, "float64": 8, "float32": 4}.get(dtype, 2)
        side = 1 << count.bit_length() // 2
        shape = (side, count // side) if law in ("sparse", "eye") else (count,)
        works = {"seedbed": bench.writing(described(law, dtype, shape, **options), memory), **writes}
        works |= bench.peers(law, dtype, count)
        case = " ".join([law, dtype, *(f"{name} {value}" for name, value in options.items())])
        found = _compare(bench, "laws", case, size, works, memory)
        rows += [
            *found,
            *ratios("/ write bandwidth", found, "seedbed", "memset", "CuPy's fill"),
            *ratios("/ torch", found, "seedbed", "torch"),
            *ratios("/ cupy.random", found, "seedbed", "cupy.random.Generator", "cupy.random (cuRAND)"),
        ]
    bench.notes.append(f"laws: {size / GIB:.3g} GiB each")
    return rows


def _compare(bench: Bench, table: str, case: str, size: int, works: dict[str, Work], memory: Any) -> list[Row]:
    timed = {name: partial(bench.gpu.seconds, work, memory) for name, work in works.items()}
    return compare(table, case, gigabytes(size), bench.sizes.runs, timed)


def shards(bench: Bench) -> list[Row]:
    """Columns of a matrix, as tensor parallelism shards them; as many rows."""
    side = 1 << (bench.sizes.output_bytes // 4).bit_length() // 2
    memory = bench.backend.cuda.allocate(side * side * 2)
    rows = []
    for law, parts in itertools.product(("uniform", "normal"), (2, 64)):
        width = side // parts
        regions = {
            "rows": Region(start=[width, 0], stop=[2 * width, side]),
            "columns": Region(start=[0, width], stop=[side, 2 * width]),
            "columns, misaligned": Region(start=[0, 1], stop=[side, width + 1]),
        }
        works = {
            name: bench.writing(described(law, "float32", (side, side), region), memory)
            for name, region in regions.items()
        }
        case = f"{law} float32, 1/{parts} of {side} × {side}"
        found = _compare(bench, "shards", case, side * width * 4, works, memory)
        rows += [*found, *ratios("columns / rows", found, "columns", "rows")]
    return rows


def latency(bench: Bench) -> list[Row]:
    """One small tensor until it is complete, by the host's clock."""
    memory = bench.backend.cuda.allocate(MIB)
    rows = []
    for name, size in {"1 KiB": 1024, "1 MiB": MIB}.items():
        works = {"seedbed": bench.writing(described("normal", "float32", (size // 4,)), memory)}
        works |= bench.peers("normal", "float32", size // 4)
        timed = {peer: partial(bench.gpu.host_seconds, work) for peer, work in works.items()}
        rows += compare("latency", f"normal float32, {name}", MICROSECONDS, bench.sizes.latency_runs, timed)
    return rows
