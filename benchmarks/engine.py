"""The engine on one core, beside torch and NumPy doing the same on one core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.measuring import Row, compare
from seedbed.v1 import DataType, Normal, TensorSpec, TruncNormal, Uniform
from seedbed_server import engine

ELEMENTS = 1 << 22  # 16 MiB of float32: beyond the caches
RUNS = 15

LAWS = {
    "uniform": ({"uniform": Uniform()}, torch.Tensor.uniform_, np.random.Generator.random),
    "normal": ({"normal": Normal()}, torch.Tensor.normal_, np.random.Generator.standard_normal),
    "trunc_normal": ({"trunc_normal": TruncNormal()}, torch.nn.init.trunc_normal_, None),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def ours(backend: engine.Backend, scheme: dict, dtype: str) -> Callable[[], None]:
    spec = TensorSpec(shape=[ELEMENTS], dtype=f"DATA_TYPE_{dtype.upper()}", **scheme)
    description = engine.describe(spec)
    out = np.empty(ELEMENTS, engine.numpy_dtype(DataType.Value(f"DATA_TYPE_{dtype.upper()}")))
    return partial(backend.fill, description, 0, out)


def measure() -> list[Row]:
    torch.set_num_threads(1)
    numba, numpy = engine.open_backend("numba", 1), engine.open_backend("numpy", 1)
    generator = np.random.default_rng(0)
    rows: list[Row] = []
    for law, (scheme, torch_fill, numpy_draw) in LAWS.items():
        for dtype, torch_dtype in DTYPES.items():
            competitors: dict[str, Callable[[], object]] = {"seedbed numba": ours(numba, scheme, dtype)}
            if dtype == "float32":
                competitors["seedbed numpy"] = ours(numpy, scheme, dtype)
            if numpy_draw and dtype in ("float32", "float64"):
                competitors["NumPy Generator"] = partial(numpy_draw, generator, ELEMENTS, dtype=dtype)
            competitors["torch"] = partial(torch_fill, torch.empty(ELEMENTS, dtype=torch_dtype))
            rows += compare(f"{law} {dtype}", ELEMENTS, RUNS, competitors)
    return rows
