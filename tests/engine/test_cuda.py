"""The GPU's backend, on a GPU that is emulated: its choice, its memory, and what the other tests do not reach."""

from __future__ import annotations

import functools
import math
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from _helpers.emulation import emulated_cupy

from seedbed.v1 import (
    Constant,
    DataType,
    Dirac,
    Eye,
    Normal,
    Orthogonal,
    Patch,
    Region,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
)
from seedbed_server import engine
from seedbed_server.engine import backends
from seedbed_server.engine.backends import cuda_device
from seedbed_server.engine.backends.cupy import CupyBackend

from .conftest import sample

LAWS = {
    "uniform": {"uniform": Uniform(a=-1.0)},
    "normal": {"normal": Normal(mean=1.0, std=0.5)},
    "trunc_normal": {"trunc_normal": TruncNormal(a=-1.0, b=3.0)},
    "sparse": {"sparse": Sparse(sparsity=0.4)},
    "constant": {"constant": Constant(val=-0.1)},
    "eye": {"eye": Eye()},
    "orthogonal": {"orthogonal": Orthogonal(gain=2.0)},
    "patched": {"normal": Normal(), "patches": [Patch(region=Region(start=[9, 2], stop=[51, 7]), val=3.0)]},
}


@pytest.fixture
def cupy() -> Iterator[ModuleType]:
    with emulated_cupy() as module:
        yield module


@pytest.fixture
def gpu(cupy: ModuleType) -> CupyBackend:
    return engine.open_cupy()


# Memory of the device, written in place.


def written(gpu: CupyBackend, description, first: int, count: int, shift: int = 0) -> bytes:
    """Elements as they arrive in device memory, ``shift`` elements after an address that suits all stores."""
    dtype = engine.numpy_dtype(description.spec.dtype)
    memory = gpu.cuda.allocate((count + shift + 1) * dtype.itemsize)
    gpu.writer(description)(first, count, memory.ptr + shift * dtype.itemsize, None)
    host = np.empty(count + shift + 1, dtype)
    stream = gpu.cuda.cupy.cuda.get_current_stream()
    gpu.cuda.copy_to_host(host, memory.ptr, stream)
    stream.synchronize()
    around = np.concatenate([host[:shift], host[shift + count :]])
    assert set(around.tobytes()) <= {0xA5}, "something was written beyond the elements asked for"
    return host[shift : shift + count].tobytes()


@pytest.mark.parametrize("dtype", DataType.values()[1:], ids=DataType.keys()[1:])
@pytest.mark.parametrize("law", LAWS)
def test_any_part_at_any_address(law: str, dtype: int, gpu: CupyBackend, reference: engine.Backend) -> None:
    spec = TensorSpec(name="w", shape=[61, 83], dtype=dtype, seed=2**63 + 5, **LAWS[law])
    draw = random.Random(f"{law} {dtype}")
    for region in (None, Region(start=[3, 5], stop=[60, 82]), Region(start=[0, 4], stop=[61, 80])):
        description = engine.describe(spec, region)
        whole = np.empty(description.element_count, engine.numpy_dtype(dtype))
        reference.fill(description, 0, whole)
        for _ in range(10):
            first = draw.randrange(len(whole))
            count = draw.randint(1, len(whole) - first)
            expected = whole[first : first + count].tobytes()
            assert written(gpu, description, first, count, shift=draw.randrange(5)) == expected, (region, first, count)


def test_dirac_in_any_region(gpu: CupyBackend, reference: engine.Backend) -> None:
    spec = TensorSpec(shape=[12, 4, 3, 5], dirac=Dirac(groups=3), dtype=DataType.DATA_TYPE_FLOAT16)
    whole = sample(reference, spec)
    assert whole.sum() == 12
    draw = random.Random(1)
    for _ in range(200):
        start = [draw.randrange(size) for size in spec.shape]
        stop = [draw.randint(low + 1, size) for low, size in zip(start, spec.shape, strict=True)]
        description = engine.describe(spec, Region(start=start, stop=stop))
        assert (
            written(gpu, description, 0, description.element_count) == whole[tuple(map(slice, start, stop))].tobytes()
        )


def test_as_many_dimensions_as_a_region_can_have(gpu: CupyBackend, reference: engine.Backend) -> None:
    """Two of three in each dimension: none can be merged with another."""
    spec = TensorSpec(shape=[3] * 38, normal=Normal())
    description = engine.describe(spec, Region(start=[1] * 38, stop=[3] * 38))
    for first in (0, 12345, 2**38 - 1000):
        ours, theirs = (np.empty(1000, np.float32) for _ in range(2))
        gpu.fill(description, first, ours)
        reference.fill(description, first, theirs)
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 2), (8, 1), (9, 2), (4, 3)])
def test_the_masks_of_few_rows(shape, gpu: CupyBackend, reference: engine.Backend) -> None:
    """The last block goes on after the last row, where no permutation is defined."""
    spec = TensorSpec(name="w", shape=shape, seed=3, sparse=Sparse(sparsity=0.5))
    assert sample(gpu, spec).tobytes() == sample(reference, spec).tobytes()


# Pieces under way.


def test_pieces_may_be_waited_for_in_any_order(gpu: CupyBackend, reference: engine.Backend) -> None:
    spec = TensorSpec(name="w", shape=[300_000], normal=Normal())
    whole = sample(reference, spec)
    sampler = gpu.sampler(engine.describe(spec))
    parts = [gpu.buffer(400_000).view(np.float32) for _ in range(3)]
    waits = [sampler(100_000 * i, part, lambda: False) for i, part in enumerate(parts)]
    for wait in reversed(waits):
        wait()
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_threads_share_the_device(gpu: CupyBackend, reference: engine.Backend) -> None:
    specs = [TensorSpec(name=str(i), shape=[200, 301], seed=i, uniform=Uniform()) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(lambda spec: sample(gpu, spec, chunk=7001), specs))
    for spec, array in zip(specs, arrays, strict=True):
        assert array.tobytes() == sample(reference, spec).tobytes()


def test_cancelling_ends_long_work(gpu: CupyBackend) -> None:
    description = engine.describe(TensorSpec(shape=[20_000_000], constant=Constant(val=1.0)))
    asked: list[int] = []
    with pytest.raises(engine.Cancelled):
        gpu.fill(description, 0, np.empty(20_000_000, np.float32), lambda: len(asked) > 2 or asked.append(0))
    assert len(gpu._idle) == 2  # both lanes came back


# Memory.


def test_device_memory_is_bounded(cupy: ModuleType, gpu: CupyBackend) -> None:
    """A copy to the host takes two pieces of 4 MiB, however large the tensor is."""
    before = cupy.cuda.used[0]
    cupy.cuda.most_used[0] = 0
    gpu.fill(engine.describe(TensorSpec(shape=[10_000_000], uniform=Uniform())), 0, np.empty(10_000_000, np.float32))
    assert cupy.cuda.most_used[0] - before <= 8 << 20


def test_idle_memory_is_given_back(cupy: ModuleType, gpu: CupyBackend) -> None:
    sampler = gpu.sampler(engine.describe(TensorSpec(shape=[1 << 24], uniform=Uniform())))
    parts = [np.empty(1 << 18, np.float32) for _ in range(64)]
    before = cupy.cuda.used[0]
    waits = [sampler(i << 18, part, lambda: False) for i, part in enumerate(parts)]
    assert cupy.cuda.used[0] - before >= 63 << 20
    for wait in waits:
        wait()
    del waits, wait
    assert cupy.cuda.used[0] - before <= 16 << 20


def test_too_little_memory_is_an_error_of_that_call_alone(cupy: ModuleType, gpu: CupyBackend) -> None:
    description = engine.describe(TensorSpec(shape=[1 << 20], uniform=Uniform()))
    out = np.empty(1 << 20, np.float32)
    with cupy.cuda.limited(cupy.cuda.used[0] + 1000), pytest.raises(MemoryError, match="the GPU is out of memory"):
        gpu.fill(description, 0, out)
    gpu.fill(description, 0, out)
    assert out.any()


# Choosing.


def test_auto_takes_a_gpu_that_works(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: None)
    backend = engine.open_backend()
    assert (backend.name, backend.reason) == ("cupy", "the fastest, since there is a GPU")
    assert backend.device == "Emulated GPU (device 0, compute capability 9.0)"


def test_auto_says_why_it_did_not_take_one(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: "there is no NVIDIA driver")
    backend = engine.open_backend("auto")
    assert (backend.name, backend.reason) == ("numba", "the fastest without a GPU: there is no NVIDIA driver")
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: None)
    monkeypatch.setenv("EMULATED_GPUS", "0")
    backend = engine.open_backend("auto")
    assert backend.name == "numba"
    assert "there is no GPU; see that nvidia-smi lists a device" in backend.reason


def test_auto_without_numba_takes_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: "cupy is not installed")
    monkeypatch.setitem(sys.modules, "seedbed_server.engine.backends.numba", None)
    backend = engine.open_backend("auto")
    assert backend.name == "numpy"
    assert "numba cannot be imported" in backend.reason
    assert "cupy is not installed" in backend.reason


def test_devices_are_chosen_by_number(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATED_GPUS", "2")
    assert engine.open_cupy(device=1).cuda.number == 1
    with cupy.cuda.Device(1):
        assert engine.open_cupy().cuda.number == 1
    with pytest.raises(ValueError, match=r"there is no device 2; give one of 0 \.\. 1"):
        engine.open_backend("cupy", device=2)
    with pytest.raises(ValueError, match="device: -1 is less than 0"):
        engine.open_backend("cupy", device=-1)
    monkeypatch.setenv("SEEDBED_DEVICE", "1")
    assert "device 1" in engine.open_backend("cupy").device
    monkeypatch.setenv("SEEDBED_DEVICE", "the big one")
    with pytest.raises(ValueError, match="SEEDBED_DEVICE: 'the big one' is not a number"):
        engine.open_backend("cupy")


def test_each_device_has_memory_and_streams_of_its_own(
    cupy: ModuleType, monkeypatch: pytest.MonkeyPatch, reference: engine.Backend
) -> None:
    monkeypatch.setenv("EMULATED_GPUS", "2")
    spec = TensorSpec(shape=[1000], normal=Normal())
    second = engine.open_cupy(device=1)
    before = dict(cupy.cuda.used)
    assert sample(second, spec).tobytes() == sample(reference, spec).tobytes()
    assert cupy.cuda.used.get(0) == before.get(0)
    assert {lane.stream.device for lane in second._idle} == {1}
    assert cupy.cuda.runtime.getDevice() == 0


def test_a_device_that_is_asked_for_is_not_replaced(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no device 7"):
        engine.open_backend("auto", device=7)


def test_without_cupy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ValueError, match=r"cupy is not installed; run pip install 'seedbed\[gpu\]' \(CUDA 13\) or"):
        engine.open_backend("cupy")


def test_without_a_driver_the_remedy_is_named() -> None:
    """With the real CuPy, where there is none."""
    if backends._why_no_gpu() is None:
        assert engine.open_backend("cupy").name == "cupy"
        return
    with pytest.raises(ValueError, match=r"cupy (cannot be used: CUDA does not work: .*nvidia-smi|is not installed)"):
        engine.open_backend("cupy")


def test_a_compiler_that_fails_is_told(cupy: ModuleType, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))

    def fail(*_: object) -> None:
        raise cupy.cuda.nvrtc.NVRTCError("NVRTC_ERROR_INVALID_OPTION (5)")

    monkeypatch.setattr(cupy.cuda.nvrtc, "compileProgram", fail)
    with pytest.raises(ValueError, match=r"the kernels cannot be compiled for this GPU .*INVALID_OPTION"):
        engine.open_backend("cupy")
    assert list(tmp_path.iterdir()) == []


def test_a_device_with_other_bits_is_refused(gpu: CupyBackend, reference: engine.Backend) -> None:
    gpu.check(reference)

    class Wrong(type(reference)):  # type: ignore[misc]
        def fill(self, description, first, out, cancelled=None):
            super().fill(description, first, out)
            out[-1] = np.nextafter(out[-1], np.float32(math.inf))

    with pytest.raises(cuda_device.NoDevice, match="makes other bits of uniform than the reference"):
        gpu.check(Wrong(1))


def test_a_device_without_memory_is_refused(cupy: ModuleType) -> None:
    with (
        cupy.cuda.limited(cupy.cuda.used.get(0, 0) + 100),
        pytest.raises(ValueError, match=r"out of memory .*; stop whoever"),
    ):
        engine.open_backend("cupy")


def test_a_device_whose_kernels_fail_is_refused(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise cupy.cuda.driver.CUDADriverError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")

    monkeypatch.setattr(cuda_device.CudaDevice, "launch", fail)
    with pytest.raises(ValueError, match=r"Emulated GPU .* fails: CUDA_ERROR_LAUNCH_FAILED"):
        engine.open_backend("cupy")


def test_the_emulated_cupy_has_nothing_that_the_real_one_lacks(cupy: ModuleType) -> None:
    """Else the tests would pass with names that are not there."""
    root = Path(__file__).parents[2]
    sources = "".join(
        (root / path).read_text(encoding="utf-8")
        for path in (
            "server/seedbed_server/engine/backends/cuda_device.py",
            "server/seedbed_server/engine/backends/cuda_kernels.py",
            "client/seedbed/_cuda.py",
        )
    )
    names = set(re.findall(r"(?<!\w)_?cupy\.((?:cuda\.)?\w+(?:\.[A-Z]\w+)?)", sources))
    names |= {f"cuda.runtime.{name}" for name in re.findall(r"_runtime\.(\w+)", sources)}
    names |= {f"cuda.nvrtc.{name}" for name in re.findall(r"nvrtc\.(\w+)", sources)}
    assert len(names) > 20
    missing = [name for name in sorted(names) if not _has(cupy, name)]
    real = subprocess.run(
        [sys.executable, "-c", HAS_NAMES, *sorted(names)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (missing, real) == ([], [])


HAS_NAMES = """
import functools, sys, cupy
for name in sys.argv[1:]:
    try:
        functools.reduce(getattr, name.split("."), cupy)
    except AttributeError:
        print(name)
"""


def _has(module: ModuleType, name: str) -> bool:
    try:
        functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        return False
    return True


# The cache of compiled kernels.


def test_kernels_are_compiled_once(cupy: ModuleType, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "not" / "yet"))
    before = cupy.cuda.nvrtc.compilations
    engine.open_cupy()
    engine.open_cupy()
    assert cupy.cuda.nvrtc.compilations == before + 1
    [kept] = (tmp_path / "not" / "yet").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    engine.open_cupy()  # a damaged file counts as none
    assert cupy.cuda.nvrtc.compilations == before + 2


def test_a_cache_that_cannot_be_written_is_done_without(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", "/dev/null/cache")
    assert engine.open_cupy().name == "cupy"
