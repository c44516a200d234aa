"""Fixtures of the engine's tests: all backends, and one way to sample with them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from _helpers.emulation import emulated_cupy

from seedbed.v1 import Region, TensorSpec
from seedbed_server import engine

NAMES = ["numpy", "numba", "emulated"]
"""``emulated`` is cupy on an emulated GPU, whose kernels run on the CPU; set EMULATED_GPU=0 without a C++ compiler."""

if os.environ.get("EMULATED_GPU") == "0":
    NAMES.remove("emulated")

BACKENDS = [(name, threads) for name in NAMES for threads in {"numpy": [1, 2], "numba": [1, 2, 3]}.get(name, [1])]
"""Names and threads."""

_opened: dict[tuple[str, int], engine.Backend] = {}


def open_backend(name: str, threads: int) -> engine.Backend:
    """Opens each backend once, with small pieces, so that threads share small tensors too."""
    if (name, threads) not in _opened:
        if name == "emulated":
            with emulated_cupy():
                backend = engine.open_cupy(threads)
        else:
            backend = engine.open_backend(name, threads)
            backend.grain = dict.fromkeys(backend.grain, 64)  # type: ignore[attr-defined]
            backend.piece = 64  # type: ignore[attr-defined]
        _opened[name, threads] = backend
    return _opened[name, threads]


@pytest.fixture(params=BACKENDS, ids=lambda backend: f"{backend[0]}-{backend[1]}")
def backend(request: pytest.FixtureRequest) -> engine.Backend:
    return open_backend(*request.param)


@pytest.fixture
def reference() -> engine.Backend:
    return open_backend("numpy", 1)


@pytest.fixture
def fast() -> engine.Backend:
    return open_backend("numba", 2)


def sample(
    backend: engine.Backend, spec: TensorSpec, region: tuple[Any, Any] | None = None, chunk: int | None = None
) -> np.ndarray:
    """Samples a tensor, or its region (start, stop), in pieces of ``chunk`` elements."""
    message = Region(start=region[0], stop=region[1]) if region is not None else None
    description = engine.describe(spec, message)
    out = np.empty(description.element_count, engine.numpy_dtype(description.spec.dtype))
    for first in range(0, len(out), chunk or max(len(out), 1)):
        backend.fill(description, first, out[first : first + (chunk or len(out))])
    extents = [stop - start for start, stop in zip(description.region.start, description.region.stop, strict=True)]
    return out.reshape(extents)
