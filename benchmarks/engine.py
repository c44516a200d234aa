"""The engine alone; the peers are torch, NumPy and JAX, and memset, which is the upper limit."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

import seedbed
from benchmarks.measuring import Part, Row, Say, Sizes, Unit, compare, is_installed, rate
from benchmarks.servers import read_line, running
from seedbed.v1 import DataType, Expression, Function, Normal, Parts, Recipe, Region, Step, TensorSpec, Uniform
from seedbed.v1 import Part as Placed
from seedbed_server import engine

Fill = Callable[[], object]

LAWS = ("uniform", "normal", "trunc_normal", "constant")
PARAMETERS = {"constant": {"val": 0.5}}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
TORCH: dict[str, Callable[[torch.Tensor], object]] = {
    "uniform": torch.Tensor.uniform_,
    "normal": torch.Tensor.normal_,
    "trunc_normal": torch.nn.init.trunc_normal_,
    "constant": lambda tensor: tensor.fill_(0.5),
}
NUMPY = {"uniform": np.random.Generator.random, "normal": np.random.Generator.standard_normal}
CHUNK_BYTES = 1 << 20
MILLIONS = "million a second"


def measure(sizes: Sizes, say: Say) -> Part:
    part = Part(notes=["'2 threads' means our threads or torch's; everything else runs on one thread"])
    part.notes.append("laws: repeatedly into a buffer of 1 MiB, as the service samples; JAX makes new arrays")
    if engine.usable_cores() < 2:
        part.notes.append("2 threads are skipped: there is only one core")
    with contextlib.ExitStack() as stack:
        jax = stack.enter_context(_jax()) if is_installed("jax") else None
        part.notes.append("JAX: a process bound to one core" if jax else "JAX is skipped: it is not installed")
        for law, dtype in itertools.product(LAWS, DTYPES):
            say(f"{law} {dtype}")
            part.rows += _laws(law, dtype, sizes, jax)
    for law in LAWS:
        say(f"{law}, a large array")
        part.rows += _large(law, sizes)
    for scheme in ("uniform", "normal"):
        say(f"column shard, {scheme}")
        part.rows += _column_shard(scheme, sizes)
    say("small tensors")
    part.rows += _small_tensors(sizes)
    say("sparse and orthogonal")
    part.rows += _sparse(sizes)
    part.rows += _orthogonal(sizes)
    say("parts and expressions")
    part.rows += _parts(sizes)
    part.rows += _expression(sizes)
    return part


def _laws(law: str, dtype: str, sizes: Sizes, jax: Callable[[str, str, int], Fill] | None) -> list[Row]:
    """Samples like the service: chunk after chunk into one buffer."""
    numpy_dtype = engine.numpy_dtype(DataType.Value(f"DATA_TYPE_{dtype.upper()}"))
    out = np.zeros(min(CHUNK_BYTES // numpy_dtype.itemsize, sizes.engine_elements), numpy_dtype)
    chunks = sizes.engine_elements // len(out)
    competitors = _competitors(law, dtype, out, chunks)
    if jax and law != "constant":
        competitors["JAX"] = jax(law, dtype, sizes.engine_elements)
    unit = rate(MILLIONS, chunks * len(out) / 1e6)
    return compare("laws", f"{law} {dtype}", unit, sizes.engine_runs, competitors)


def _large(law: str, sizes: Sizes) -> list[Row]:
    """Fills an array that is larger than the caches, once."""
    out = np.zeros(sizes.large_elements, np.float32)
    unit = rate(MILLIONS, len(out) / 1e6)
    case = f"{law} float32, {out.nbytes / (1 << 20):g} MiB"
    return compare("large arrays", case, unit, sizes.engine_runs, _competitors(law, "float32", out, 1))


def _competitors(law: str, dtype: str, out: np.ndarray, chunks: int) -> dict[str, Fill]:
    """The competitors. All fill the array ``chunks`` times, except JAX, which cannot fill arrays."""
    spec = seedbed.spec(law, (chunks * len(out),), dtype=dtype, **PARAMETERS.get(law, {}))
    tensor = torch.zeros(len(out), dtype=DTYPES[dtype])
    competitors: dict[str, Fill] = {}
    for backend, threads in itertools.product(("numba", "numpy"), _thread_counts()):
        sampler = engine.open_backend(backend, threads).sampler(engine.describe(spec))
        competitors[_named(f"seedbed {backend}", threads)] = partial(_sample, sampler, out, chunks)
    for threads in _thread_counts():
        fill = partial(_torch, threads, TORCH[law], tensor)
        competitors[_named("torch", threads)] = partial(_repeat, fill, chunks)
    if law in NUMPY and dtype in ("float32", "float64"):
        fill = partial(NUMPY[law], np.random.default_rng(0), dtype=out.dtype, out=out)
        competitors["NumPy"] = partial(_repeat, fill, chunks)
    competitors["memset"] = partial(_repeat, partial(ctypes.memset, out.ctypes.data, 0, out.nbytes), chunks)
    return competitors


def _sample(sampler: engine.Sampler, out: np.ndarray, chunks: int) -> None:
    for chunk in range(chunks):
        sampler(chunk * len(out), out, lambda: False)


def _repeat(fill: Fill, times: int) -> None:
    for _ in range(times):
        fill()


def _column_shard(scheme: str, sizes: Sizes) -> list[Row]:
    """A narrow slice of columns, as tensor parallelism shards them; as many contiguous elements."""
    size = sizes.shard_columns
    begin = size // 8
    spec = seedbed.spec(scheme, (size, size))
    competitors = {
        "columns": _ours("numba", 1, spec, region=Region(start=[0, begin], stop=[size, begin + 128])),
        "rows": _ours("numba", 1, spec, region=Region(start=[begin, 0], stop=[begin + 128, size])),
        "torch, rows": partial(_torch, 1, TORCH[scheme], torch.empty(128, size)),
    }
    case = f"{scheme} float32, {size} × 128 of {size} × {size}"
    return compare("shards", case, rate(MILLIONS, size * 128 / 1e6), 2 * sizes.engine_runs, competitors)


def _small_tensors(sizes: Sizes) -> list[Row]:
    count = sizes.small_tensors
    shapes = {"equal shapes": [(1000,)] * count, "different shapes": [(1000 - count // 2 + i,) for i in range(count)]}
    each = Unit("µs a tensor", lambda seconds: seconds / count * 1e6)
    rows = []
    with seedbed.connect("local:") as client:
        for kind, wanted in shapes.items():
            specs = [seedbed.spec("normal", shape, name=f"t{i}") for i, shape in enumerate(wanted)]
            competitors: dict[str, Fill] = {
                "seedbed local:": lambda specs=specs: sum(1 for _ in client.init_model(specs)),
                "torch": partial(_torch, 1, lambda shapes: [torch.empty(s).normal_() for s in shapes], wanted),
                "NumPy": partial(_numpy_tensors, np.random.default_rng(0), wanted),
            }
            case = f"{count} normals of 1,000 elements, {kind}"
            rows += compare("small tensors", case, each, 2 * sizes.engine_runs, competitors)
    return rows


def _sparse(sizes: Sizes) -> list[Row]:
    size = sizes.shard_columns // 4
    spec = seedbed.spec("sparse", (size, size), sparsity=0.9)
    competitors = {
        "seedbed numba": _ours("numba", 1, spec),
        "torch": partial(_torch, 1, partial(torch.nn.init.sparse_, sparsity=0.9), torch.empty(size, size)),
    }
    return compare("other schemes", f"sparse {size} × {size}", rate(MILLIONS, size**2 / 1e6), 1, competitors)


def _orthogonal(sizes: Sizes) -> list[Row]:
    size = sizes.orthogonal_rows
    seeds = itertools.count()

    def ours() -> None:
        _ours("numba", 1, seedbed.spec("orthogonal", (size, size), seed=next(seeds)))()  # finished matrices are cached

    competitors: dict[str, Fill] = {
        "seedbed numba": ours,
        "torch": partial(_torch, 1, torch.nn.init.orthogonal_, torch.empty(size, size)),
    }
    return compare("other schemes", f"orthogonal {size} × {size}", rate(MILLIONS, size**2 / 1e6), 1, competitors)


def _parts(sizes: Sizes) -> list[Row]:
    """Normals in 64 boxes with their own streams, as in fused and stacked parameters."""
    size = sizes.shard_columns // 2
    rows, side = size // 64, size // 8
    blocks = [Region(start=[row, 0], stop=[row + rows, size]) for row in range(0, size, rows)]
    grid = [
        Region(start=[row, column], stop=[row + side, column + side])
        for row, column in itertools.product(range(0, size, side), repeat=2)
    ]
    competitors = {
        "the scheme alone": _ours("numba", 1, seedbed.spec("normal", (size, size))),
        "64 row blocks": _ours("numba", 1, _boxes(size, blocks)),
        "8 × 8 boxes": _ours("numba", 1, _boxes(size, grid)),
    }
    case = f"normal float32, {size} × {size}"
    return compare("parts", case, rate(MILLIONS, size**2 / 1e6), 2 * sizes.engine_runs, competitors)


def _boxes(size: int, regions: list[Region]) -> TensorSpec:
    parts = [Placed(region=region, recipe=Recipe(normal=Normal())) for region in regions]
    return TensorSpec(name="parts", shape=[size, size], parts=Parts(parts=parts))


def _expression(sizes: Sizes) -> list[Row]:
    """The logarithm of a uniform, as in Mamba, on one thread."""
    count = sizes.engine_elements
    uniform = Step(recipe=Recipe(uniform=Uniform(a=1.0, b=16.0)))
    steps = [uniform, Step(function=Function.FUNCTION_LOG, arguments=[0])]
    tensor = torch.empty(count)
    competitors: dict[str, Fill] = {
        "seedbed numba": _ours("numba", 1, TensorSpec(shape=[count], expression=Expression(steps=steps))),
        "torch": partial(_torch, 1, lambda: tensor.uniform_(1.0, 16.0).log_()),
    }
    case = "log of a uniform float32"
    return compare("expressions", case, rate(MILLIONS, count / 1e6), sizes.engine_runs, competitors)


def _ours(
    backend: str, threads: int, spec: TensorSpec, out: np.ndarray | None = None, region: Region | None = None
) -> Fill:
    description = engine.describe(spec, region)
    if out is None:
        out = np.empty(description.element_count, engine.numpy_dtype(description.spec.dtype))
    return partial(engine.open_backend(backend, threads).fill, description, 0, out)


def _torch(threads: int, function: Callable[..., object], *arguments: object) -> None:
    torch.set_num_threads(threads)
    function(*arguments)


def _numpy_tensors(generator: np.random.Generator, shapes: list[tuple[int]]) -> list[np.ndarray]:
    return [generator.standard_normal(shape, np.float32) for shape in shapes]


def _thread_counts() -> tuple[int, ...]:
    return (1, 2) if engine.usable_cores() > 1 else (1,)


def _named(name: str, threads: int) -> str:
    return name if threads == 1 else f"{name}, {threads} threads"


@contextlib.contextmanager
def _jax() -> Iterator[Callable[[str, str, int], Fill]]:
    with running([sys.executable, "-m", "benchmarks.peers", "jax"]) as process:
        read_line(process)

        def ask(law: str, dtype: str, elements: int) -> None:
            process.stdin.write(f"{law} {dtype} {elements}\n")
            read_line(process)

        yield lambda *arguments: partial(ask, *arguments)
