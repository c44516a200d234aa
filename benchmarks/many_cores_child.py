"""A worker process of ``benchmarks/many_cores.py``: ``python -m benchmarks.many_cores_child THREADS``.

It reads some work and its arguments per line, as JSON, and prints the seconds that the work took. It keeps what it
allocated for the work, such as an array, for the next time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import benchmarks.on_gpu  # noqa: F401 - first, because it installs stand-ins for missing packages

# isort: split
import seedbed
from seedbed.v1 import TensorDescription
from seedbed_server import engine

Work = Callable[[], object]

TORCH_SHARE = 8
"""torch is slower, so it makes only this fraction, and its time is multiplied; the rate does not depend on it."""
PIECE = np.ones(1 << 20, np.uint8).data


@functools.cache
def threads() -> int:
    return int(os.environ["SEEDBED_THREADS"])


@functools.cache
def local() -> seedbed.Client:
    return seedbed.connect("local:")


@functools.cache
def backend() -> engine.Backend:
    return engine.open_backend("numba", threads=threads())


@functools.cache
def memory(byte_count: int) -> np.ndarray:
    """Memory whose pages are all mapped."""
    return np.ones(byte_count, np.uint8)


def array(dtype: str, byte_count: int) -> np.ndarray:
    return memory(byte_count).view(seedbed.dtypes.numpy_dtype(seedbed.spec("zeros", (), dtype=dtype).dtype))


def describe(law: str, dtype: str, count: int) -> TensorDescription:
    return engine.describe(seedbed.spec(law, (count,), dtype=dtype))


# The kinds of work. The functions that they return are timed.


def fill(law: str, dtype: str, byte_count: int) -> Work:
    """The engine, into mapped memory."""
    out = array(dtype, byte_count)
    description = describe(law, dtype, len(out))
    return lambda: backend().fill(description, 0, out)


def through_local(law: str, dtype: str, byte_count: int) -> Work:
    """``local:``, into the caller's array."""
    out = array(dtype, byte_count)
    spec = seedbed.spec(law, out.shape, dtype=dtype)
    return lambda: local().init(spec, out=out)


def through_torch(law: str, dtype: str, byte_count: int) -> Work:
    import torch  # noqa: PLC0415 - not every process needs it

    torch.set_num_threads(threads())
    tensor = torch.ones(byte_count // TORCH_SHARE // getattr(torch, dtype).itemsize, dtype=getattr(torch, dtype))

    def run() -> float:
        begin = time.perf_counter()
        getattr(tensor, f"{law}_")()
        return TORCH_SHARE * (time.perf_counter() - begin)

    return run


def memset(_law: str, _dtype: str, byte_count: int) -> Work:
    """The C library's, on as many threads."""
    address, step = memory(byte_count).ctypes.data, -(-byte_count // threads())
    pool = ThreadPoolExecutor(threads())

    def clear(begin: int) -> None:
        ctypes.memset(address + begin, 1, min(step, byte_count - begin))

    return lambda: list(pool.map(clear, range(0, byte_count, step)))


def small_tensors(count: int) -> Work:
    """``count`` normals of 1,000 elements each, through ``local:``."""
    specs = [seedbed.spec("normal", (1000,), name=f"t{index}") for index in range(count)]
    return lambda: sum(1 for _ in local().init_model(specs))


def small_tensors_of_engine(count: int) -> Work:
    """The same with the engine alone, which describes and fills each."""
    specs = [seedbed.spec("normal", (1000,), name=f"t{index}") for index in range(count)]
    return lambda: [backend().fill(engine.describe(spec), 0, np.empty(1000, np.float32)) for spec in specs]


def small_tensors_of_torch(count: int) -> Work:
    import torch  # noqa: PLC0415 - as above

    torch.set_num_threads(1)
    return lambda: [torch.empty(1000).normal_() for _ in range(count)]


def fill_again(law: str, dtype: str, byte_count: int, times: int) -> Work:
    """The engine, several times into the same memory."""
    once = fill(law, dtype, byte_count)
    return lambda: [once() for _ in range(times)]


def write_plainly(path: str, byte_count: int) -> Work:
    """Writes 1 MiB at a time, one after another."""

    def run() -> float:
        begin = time.perf_counter()
        with Path(path).open("wb") as file:
            for _ in range(byte_count >> 20):
                file.write(PIECE)
        elapsed = time.perf_counter() - begin
        Path(path).unlink()
        return elapsed

    return run


def command(*arguments: str) -> Work:
    """A command of ``seedbed``, without the start of Python."""
    from seedbed.cli import main  # noqa: PLC0415 - needs packages that may be missing

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(arguments)
        if code:
            raise RuntimeError(f"seedbed {' '.join(arguments)} ended with exit code {code}")

    return run


WORKS: dict[str, Callable[..., Work]] = {
    function.__name__: function
    for function in (
        fill, through_local, through_torch, memset, small_tensors, small_tensors_of_engine, small_tensors_of_torch,
        fill_again, write_plainly, command,
    )
}  # fmt: skip


@functools.cache
def prepared(line: str) -> Work:
    name, *arguments = json.loads(line)
    return WORKS[name](*arguments)


def main() -> None:
    os.environ["SEEDBED_THREADS"] = sys.argv[1]  # `local:` obeys it
    backend().prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        work = prepared(line)
        begin = time.perf_counter()
        result = work()
        elapsed = time.perf_counter() - begin
        print(result if isinstance(result, float) else elapsed, flush=True)


if __name__ == "__main__":
    main()
