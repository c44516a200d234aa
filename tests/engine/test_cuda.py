"""The GPU backend on an emulated GPU: its choice, its memory, and code that the other tests do not reach."""

from __future__ import annotations

import functools
import itertools
import math
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from _helpers.emulation import FOLDER, emulated_cupy
from google.protobuf import json_format

from seedbed.v1 import (
    Constant,
    DataType,
    Dirac,
    Disk,
    Expression,
    Eye,
    Function,
    Literal,
    Model,
    Normal,
    Orthogonal,
    Part,
    Parts,
    Permutation,
    Recipe,
    Region,
    Sparse,
    Step,
    TensorSpec,
    TruncNormal,
    Uniform,
    View,
)
from seedbed_server import engine
from seedbed_server.engine import backends
from seedbed_server.engine.backends import cuda_device, cuda_pieces, cuda_tables, cuda_tasks, numba_fma
from seedbed_server.engine.backends.cuda_tables import Task
from seedbed_server.engine.backends.cupy import CupyBackend
from seedbed_server.engine.backends.numpy import NumpyBackend

from .conftest import sample

LAWS = {
    "uniform": {"uniform": Uniform(a=-1.0)},
    "normal": {"normal": Normal(mean=1.0, std=0.5)},
    "trunc_normal": {"trunc_normal": TruncNormal(a=-1.0, b=3.0)},
    "sparse": {"sparse": Sparse(sparsity=0.4)},
    "constant": {"constant": Constant(val=-0.1)},
    "eye": {"eye": Eye()},
    "orthogonal": {"orthogonal": Orthogonal(gain=2.0)},
}
COMPLEX64 = DataType.DATA_TYPE_COMPLEX64
COMPLEX_LAWS = {
    "uniform": {"uniform": Uniform(a=-1.0)},
    "normal": {"normal": Normal(std=0.5)},
    "disk": {"disk": Disk(radius=2.0)},
    "normal disk": {"disk": Disk(radius=2.0, std=1.0)},
    "constant": {"constant": Constant(val=-0.1)},
    "eye": {"eye": Eye()},
}


def box(rows: tuple[int, int], columns: tuple[int, int], **recipe) -> Part:
    """A part of a matrix, given by its rows and columns."""
    return Part(region=Region(start=[rows[0], columns[0]], stop=[rows[1], columns[1]]), recipe=Recipe(**recipe))


ALL_ROWS, ALL_COLUMNS = (0, 61), (0, 83)
GRID = [(0, 20), (20, 33), (33, 61)], [(0, 8), (8, 41), (41, 83)]
DRAWS = [
    {"normal": Normal(mean=1.0, std=0.5)},
    {"uniform": Uniform(a=-1.0)},
    {"sparse": Sparse(sparsity=0.4)},
    {"trunc_normal": TruncNormal(a=-1.0, b=3.0)},
    {"constant": Constant(val=-0.1)},
]
DRAWN_PARTS = {
    "row blocks": [box(rows, ALL_COLUMNS, **law) for rows, law in zip(GRID[0], DRAWS, strict=False)],
    "column blocks": [box(ALL_ROWS, columns, **law) for columns, law in zip(GRID[1], DRAWS, strict=False)],
    "grid": [box(*where, **law) for where, law in zip(itertools.product(*GRID), itertools.cycle(DRAWS))],
    "padding row": [Part(recipe=Recipe(normal=Normal())), box((9, 10), ALL_COLUMNS, zeros={})],
    "overlapping": [
        box((3, 50), (2, 81), normal=Normal(), stream="other"),
        box((9, 51), (2, 7), constant=Constant(val=3.0)),
        box((30, 61), (5, 60), uniform=Uniform()),
    ],
    "gaps": [box((1, 9), (3, 77), uniform=Uniform()), box((40, 41), (82, 83), normal=Normal()), box((50, 50), (0, 9))],
    "none": [],
}
COMPLEX_PARTS = {
    "grid": [
        box(*where, **law)
        for where, law in zip(itertools.product(*GRID), itertools.cycle(COMPLEX_LAWS.values()))
        if "eye" not in law
    ],
    **{name: DRAWN_PARTS[name] for name in ("padding row", "overlapping", "gaps", "none")},
}
DRAWN_PARTS["gaps"][2].recipe.ones.SetInParent()
ON_CPU_PARTS = {
    "transposed": [Part(view=View(shape=[83, 61], strides=[1, 83]), recipe=Recipe(normal=Normal()))],
    "broadcast": [box((2, 40), (3, 70), normal=Normal(), shape=[1, 67]), box((50, 61), ALL_COLUMNS, uniform=Uniform())],
    "identity": [box((2, 40), (3, 70), eye=Eye())],
    "of another dtype": [box((2, 40), (3, 70), normal=Normal(), dtype=DataType.DATA_TYPE_FLOAT64)],
}


@pytest.fixture
def cupy() -> Iterator[ModuleType]:
    with emulated_cupy() as module:
        yield module


@pytest.fixture
def gpu(cupy: ModuleType) -> CupyBackend:
    return engine.open_cupy()


# Writing device memory in place.


def written(gpu: CupyBackend, description, first: int, count: int, shift: int = 0) -> bytes:
    """Samples to device memory, ``shift`` elements after an aligned address."""
    dtype = engine.numpy_dtype(description.spec.dtype)
    memory = gpu.cuda.allocate((count + shift + 1) * dtype.itemsize)
    gpu.writer(description)(first, count, memory.ptr + shift * dtype.itemsize, None)
    host = np.empty(count + shift + 1, dtype)
    stream = gpu.cuda.cupy.cuda.get_current_stream()
    gpu.cuda.copy_to_host(host, memory.ptr, stream)
    stream.synchronize()
    around = np.concatenate([host[:shift], host[shift + count :]])
    assert set(around.tobytes()) <= {0xA5}, "memory beyond the requested elements was written"
    return host[shift : shift + count].tobytes()


REGIONS = (None, Region(start=[3, 5], stop=[60, 82]), Region(start=[0, 4], stop=[61, 80]))
REAL_DTYPES = [dtype for dtype in DataType.values()[1:] if dtype != COMPLEX64]
DTYPES = pytest.mark.parametrize("dtype", REAL_DTYPES, ids=DataType.Name)


def check_any_piece(gpu: CupyBackend, reference: engine.Backend, spec: TensorSpec, regions=REGIONS) -> None:
    """Compares pieces of a tensor's regions, at any address, with the reference."""
    draw = random.Random(spec.SerializeToString(deterministic=True))
    for region in regions:
        description = engine.describe(spec, region)
        whole = np.empty(description.element_count, engine.numpy_dtype(spec.dtype))
        reference.fill(description, 0, whole)
        assert written(gpu, description, 0, len(whole)) == whole.tobytes()
        for _ in range(10):
            first = draw.randrange(len(whole))
            count = draw.choice([draw.randint(1, len(whole) - first), min(len(whole) - first, draw.randint(1, 90))])
            expected = whole[first : first + count].tobytes()
            assert written(gpu, description, first, count, shift=draw.randrange(5)) == expected, (region, first, count)
        filled = np.empty_like(whole)
        gpu.fill(description, 0, filled)
        assert filled.tobytes() == whole.tobytes()


def is_made_by_the_cpu(gpu: CupyBackend, spec: TensorSpec) -> bool:
    return cuda_tasks.planner(engine.describe(spec)) is None


@DTYPES
@pytest.mark.parametrize("law", LAWS)
def test_any_part_at_any_address(law: str, dtype: int, gpu: CupyBackend, reference: engine.Backend) -> None:
    check_any_piece(gpu, reference, TensorSpec(name="w", shape=[61, 83], dtype=dtype, seed=2**63 + 5, **LAWS[law]))


@DTYPES
@pytest.mark.parametrize("parts", DRAWN_PARTS)
def test_parts(parts: str, dtype: int, gpu: CupyBackend, reference: engine.Backend) -> None:
    made = Parts(parts=DRAWN_PARTS[parts])
    spec = TensorSpec(name="w", shape=[61, 83], dtype=dtype, seed=2**63 + 5, parts=made)
    assert not is_made_by_the_cpu(gpu, spec)
    through_parts = Region(start=[9, 6], stop=[35, 43])
    check_any_piece(gpu, reference, spec, (*REGIONS, through_parts, Region(start=[5, 41], stop=[45, 42])))


@pytest.mark.parametrize("law", COMPLEX_LAWS)
def test_any_part_of_complex_numbers(law: str, gpu: CupyBackend, reference: engine.Backend) -> None:
    spec = TensorSpec(name="w", shape=[61, 83], dtype=COMPLEX64, seed=2**63 + 5, **COMPLEX_LAWS[law])
    assert not is_made_by_the_cpu(gpu, spec)
    check_any_piece(gpu, reference, spec)


@pytest.mark.parametrize("parts", COMPLEX_PARTS)
def test_parts_of_complex_numbers(parts: str, gpu: CupyBackend, reference: engine.Backend) -> None:
    spec = TensorSpec(name="w", shape=[61, 83], dtype=COMPLEX64, seed=5, parts=Parts(parts=COMPLEX_PARTS[parts]))
    assert not is_made_by_the_cpu(gpu, spec)
    check_any_piece(gpu, reference, spec)


@pytest.mark.parametrize("parts", ON_CPU_PARTS)
def test_parts_that_the_cpu_computes(parts: str, gpu: CupyBackend, reference: engine.Backend) -> None:
    spec = TensorSpec(
        name="w", shape=[61, 83], dtype=DataType.DATA_TYPE_FLOAT32, parts=Parts(parts=ON_CPU_PARTS[parts])
    )
    assert is_made_by_the_cpu(gpu, spec)
    check_any_piece(gpu, reference, spec)


def test_parts_of_many_dimensions(gpu: CupyBackend, reference: engine.Backend) -> None:
    """Random boxes in each dimension; a dimension that is filled merges with its neighbour."""
    draw = random.Random(5)
    shape = [4, 3, 5, 2, 6]

    def region() -> Region:
        start = [draw.choice([0, draw.randrange(size)]) for size in shape]
        stop = [draw.choice([size, draw.randint(low + 1, size)]) for low, size in zip(start, shape, strict=True)]
        return Region(start=start, stop=stop)

    draws = [law for law in DRAWS if "sparse" not in law]
    for _ in range(60):
        parts = [Part(region=region(), recipe=Recipe(**draw.choice(draws))) for _ in range(draw.randint(1, 4))]
        description = engine.describe(
            TensorSpec(shape=shape, seed=draw.getrandbits(64), parts=Parts(parts=parts)), region()
        )
        expected = np.empty(description.element_count, np.float32)
        reference.fill(description, 0, expected)
        assert written(gpu, description, 0, len(expected), shift=draw.randrange(4)) == expected.tobytes()
        first = draw.randrange(len(expected))
        count = draw.randint(1, len(expected) - first)
        assert written(gpu, description, first, count) == expected[first : first + count].tobytes()


def test_pieces_of_huge_parts(gpu: CupyBackend, reference: engine.Backend) -> None:
    """Only the elements of a run that are in the piece are computed."""
    rows, columns = 2**20, 2**36
    parts = [
        Part(region=Region(start=[0, 3], stop=[rows, columns]), recipe=Recipe(normal=Normal())),
        Part(region=Region(start=[1, 1], stop=[rows, columns - 7]), recipe=Recipe(constant=Constant(val=2.0))),
        Part(region=Region(start=[0, columns - 20], stop=[rows - 1, columns - 9]), recipe=Recipe(uniform=Uniform())),
    ]
    description = engine.describe(TensorSpec(shape=[rows, columns], parts=Parts(parts=parts)))
    for first in (0, columns - 500, 17 * columns - 40, (rows - 1) * columns - 333, rows * columns - 1000):
        expected = np.empty(1000, np.float32)
        reference.fill(description, first, expected)
        assert written(gpu, description, first, 1000) == expected.tobytes()


def launches_of(gpu: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the names of launched kernels."""
    launched: list[str] = []
    launch = gpu.cuda.launch
    monkeypatch.setattr(gpu.cuda, "launch", lambda kernel, *others: (launched.append(kernel), launch(kernel, *others)))
    return launched


def test_zeros_are_written_only_where_gaps_are_possible(gpu: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = launches_of(gpu, monkeypatch)
    expected = {
        "row blocks": ["normal_float32", "uniform_float32", "sparse_float32"],
        "padding row": ["normal_float32", "repeat_32"],
        "gaps": ["repeat_32", "uniform_float32", "normal_float32"],
        "none": ["repeat_32"],
    }
    for name, kernels in expected.items():
        launched.clear()
        description = engine.describe(TensorSpec(shape=[61, 83], parts=Parts(parts=DRAWN_PARTS[name])))
        written(gpu, description, 0, description.element_count)
        assert launched == kernels, name


@DTYPES
def test_recipes_that_the_cpu_computes(dtype: int, gpu: CupyBackend, reference: engine.Backend) -> None:
    values = np.arange(-7.0, 8.0).astype(engine.numpy_dtype(dtype))
    logarithm = Expression(
        steps=[
            Step(recipe=Recipe(uniform=Uniform(a=1.0, b=16.0))),
            Step(function=Function.FUNCTION_LOG, arguments=[0]),
        ]
    )
    for law in ({"permutation": Permutation()}, {"literal": Literal(data=values.tobytes())}, {"expression": logarithm}):
        spec = TensorSpec(name="w", shape=[3, 5], dtype=dtype, seed=3, **law)
        assert is_made_by_the_cpu(gpu, spec)
        check_any_piece(gpu, reference, spec, (None, Region(start=[1, 1], stop=[3, 4])))


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
    """Two of three indices in each dimension, so that no dimensions merge."""
    spec = TensorSpec(shape=[3] * 38, normal=Normal())
    description = engine.describe(spec, Region(start=[1] * 38, stop=[3] * 38))
    for first in (0, 12345, 2**38 - 1000):
        ours, theirs = (np.empty(1000, np.float32) for _ in range(2))
        gpu.fill(description, first, ours)
        reference.fill(description, first, theirs)
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 2), (8, 1), (9, 2), (4, 3)])
def test_the_masks_of_few_rows(shape, gpu: CupyBackend, reference: engine.Backend) -> None:
    """The last block extends beyond the last row, where the permutation is undefined."""
    spec = TensorSpec(name="w", shape=shape, seed=3, sparse=Sparse(sparsity=0.5))
    assert sample(gpu, spec).tobytes() == sample(reference, spec).tobytes()


# Many tensors at once.


def test_many_tensors_in_few_launches(
    gpu: CupyBackend, reference: engine.Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of all kinds, adjacent in memory, with as few launches as the tables allow."""
    draw = random.Random(11)
    recipes = [*LAWS.values(), *({"parts": Parts(parts=parts)} for parts in DRAWN_PARTS.values())]
    complex_recipes = [*COMPLEX_LAWS.values(), *({"parts": Parts(parts=parts)} for parts in COMPLEX_PARTS.values())]
    jobs, expected = [], []
    memory = gpu.cuda.allocate(sum(200 * 61 * 83 for _ in range(8 * len(recipes))) // 20)
    position = 64
    for index, law in enumerate(8 * recipes):
        dtype = draw.choice(REAL_DTYPES) if index % 9 else COMPLEX64
        law = draw.choice(complex_recipes) if dtype == COMPLEX64 else law
        spec = TensorSpec(name=str(index), shape=[61, 83], dtype=dtype, **law)
        description = engine.describe(spec, draw.choice(REGIONS))
        first = draw.randrange(description.element_count)
        values = np.empty(draw.randint(1, description.element_count - first), engine.numpy_dtype(dtype))
        reference.fill(description, first, values)
        position += -position % values.itemsize
        jobs.append((description, first, len(values), memory.ptr + position))
        expected.append((position, values))
        position += values.nbytes + draw.randrange(40)
    assert position <= memory.size
    launched = launches_of(gpu, monkeypatch)
    gpu.write_all(jobs, None)
    assert len(launched) < len(jobs) / 2
    host, stream = np.empty(memory.size, np.uint8), gpu.cuda.cupy.cuda.get_current_stream()
    gpu.cuda.copy_to_host(host, memory.ptr, stream)
    stream.synchronize()
    expected_bytes = np.full_like(host, 0xA5)
    for position, values in expected:
        expected_bytes[position : position + values.nbytes] = values.view(np.uint8)
    assert host.tobytes() == expected_bytes.tobytes()


def test_the_launches_of_a_model(gpu: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2: 148 tensors, 98 of them constants."""
    launched = launches_of(gpu, monkeypatch)
    path = Path(__file__).parents[2] / "examples" / "gpt2-124m.json"
    model = json_format.Parse(path.read_text(encoding="utf-8"), Model())
    for spec in model.tensors:
        spec.shape[0] = 3  # the emulated GPU is slow
    descriptions = [engine.describe(spec) for spec in model.tensors]
    memory = gpu.cuda.allocate(sum(each.byte_count for each in descriptions))
    begins = itertools.accumulate((each.byte_count for each in descriptions), initial=memory.ptr)
    jobs = [(each, 0, each.element_count, begin) for each, begin in zip(descriptions, begins, strict=False)]
    gpu.write_all(jobs, None)
    gpu.cuda.cupy.cuda.get_current_stream().synchronize()
    assert launched == ["normal_float32"] * 4 + ["repeat_32"]


def test_tables_fit_into_the_arguments_of_a_kernel() -> None:
    sizes = {name: form.dtype.itemsize for name, form in {**cuda_tables._FORMS, "draws": cuda_tables._DRAWS}.items()}
    assert max(sizes.values()) <= 4096, sizes
    assert all(size % 8 == 0 for size in sizes.values())


def test_a_full_table_is_followed_by_another() -> None:
    def tasks_of(layer) -> list[int]:
        return [int((launch.table["begins"] < 2**32 - 1).sum()) for launch in cuda_tables.launches([layer])]

    axis = cuda_tables.AXIS.pack(1, 2, 3)
    small = Task("normal_float32", 1, bytes(cuda_tables.DRAW.size))
    assert tasks_of([small] * 31) == [15, 15, 1]
    assert tasks_of([small._replace(axes=39 * axis), small._replace(axes=axis), small._replace(axes=axis)]) == [2, 1]
    assert tasks_of([small._replace(blocks=2**30)] * 3) == [1, 1, 1]
    assert tasks_of([Task("repeat_16", 1, bytes(cuda_tables.REPEAT.size))] * 128) == [127, 1]


# Pieces in flight.


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
    polls: list[int] = []
    with pytest.raises(engine.Cancelled):
        gpu.fill(description, 0, np.empty(20_000_000, np.float32), lambda: len(polls) > 2 or polls.append(0))
    assert len(gpu._idle) == 2  # both lanes were returned


# Messages served from large pieces.


MESSAGE = 1000


@pytest.fixture
def copied(gpu: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each copy to the host; a piece has ten messages, and there are three pieces in all."""
    monkeypatch.setattr(cuda_pieces, "PIECE_BYTES", 10 * 4 * MESSAGE + 17)
    monkeypatch.setattr(cuda_pieces, "_MOST_PIECES", 3)
    gpu._pieces = cuda_pieces.Pieces(gpu.cuda)
    sizes: list[int] = []
    copy = gpu.cuda.copy_to_host
    monkeypatch.setattr(gpu.cuda, "copy_to_host", lambda out, *to: (sizes.append(out.nbytes), copy(out, *to)))
    return sizes


def messages(sampler, count: int, first: int = 0, ahead: int = 2) -> Iterator[bytes]:
    """As a service does: starts messages before it waits for the first of them."""
    under_way: list = []
    for begin in range(first, count, MESSAGE):
        out = np.empty(min(MESSAGE, count - begin), np.float32)
        under_way.append((out, sampler(begin, out, lambda: False)))
        if len(under_way) > ahead:
            out, wait = under_way.pop(0)
            wait()
            yield out.tobytes()
    for out, wait in under_way:
        wait()
        yield out.tobytes()


@pytest.mark.parametrize("count", [1, MESSAGE, 2 * MESSAGE + 1, 11 * MESSAGE, 57 * MESSAGE + 5])
def test_messages_are_served_from_pieces(count: int, gpu: CupyBackend, reference: engine.Backend, copied) -> None:
    spec = TensorSpec(name="w", shape=[count], normal=Normal())
    sampler = gpu.sampler(engine.describe(spec))
    whole = sample(reference, spec).tobytes()
    assert b"".join(messages(sampler, count)) == whole
    one_by_one, pieces = min(count, MESSAGE), max(0, count - MESSAGE)  # the first message must not wait
    full, rest = divmod(pieces, 10 * MESSAGE)
    assert copied == [4 * each for each in (one_by_one, *[10 * MESSAGE] * full, rest) if each]
    assert b"".join(messages(sampler, count, count // 2)) == whole[count // 2 * 4 :]


def test_messages_out_of_order(gpu: CupyBackend, reference: engine.Backend, copied) -> None:
    spec = TensorSpec(name="w", shape=[100_000], uniform=Uniform())
    sampler, whole = gpu.sampler(engine.describe(spec)), sample(reference, spec)
    draw = random.Random(3)
    first = count = 0
    for _ in range(300):
        first = draw.choice([first + count, first + count, first + count, draw.randrange(90_000)])
        count = draw.choice([MESSAGE, MESSAGE, MESSAGE, draw.randrange(1, 9 * MESSAGE)])
        first %= 90_000
        out = np.empty(count, np.float32)
        sampler(first, out, lambda: False)()
        assert out.tobytes() == whole[first : first + count].tobytes()


def test_tensors_share_few_pieces(gpu: CupyBackend, reference: engine.Backend, copied) -> None:
    specs = [TensorSpec(name=str(i), shape=[35 * MESSAGE], uniform=Uniform()) for i in range(6)]
    streams = [messages(gpu.sampler(engine.describe(spec)), 35 * MESSAGE) for spec in specs]
    got = list(zip(*streams, strict=True))
    for spec, parts in zip(specs, zip(*got, strict=True), strict=True):
        assert b"".join(parts) == sample(reference, spec).tobytes()
    assert copied.count(4 * MESSAGE) > 60  # most tensors had no piece
    assert gpu._pieces._free._value == 3  # all were returned


def test_a_call_that_ends_early_returns_its_pieces(gpu: CupyBackend, copied) -> None:
    sampler = gpu.sampler(engine.describe(TensorSpec(shape=[10**9], uniform=Uniform())))
    stream = messages(sampler, 10**9)
    for _ in range(25):
        next(stream)
    assert gpu._pieces._free._value == 1
    del stream, sampler
    assert gpu._pieces._free._value == 3


# Memory.


def test_device_memory_is_bounded(cupy: ModuleType, gpu: CupyBackend) -> None:
    """A copy to the host takes two pieces of 4 MiB, however large the tensor is."""
    before = cupy.cuda.used[0]
    cupy.cuda.most_used[0] = 0
    gpu.fill(engine.describe(TensorSpec(shape=[10_000_000], uniform=Uniform())), 0, np.empty(10_000_000, np.float32))
    assert cupy.cuda.most_used[0] - before <= 8 << 20


def test_idle_memory_is_freed(cupy: ModuleType, gpu: CupyBackend) -> None:
    sampler = gpu.sampler(engine.describe(TensorSpec(shape=[1 << 24], uniform=Uniform())))
    parts = [np.empty(1 << 18, np.float32) for _ in range(64)]
    before = cupy.cuda.used[0]
    waits = [sampler(i << 18, part, lambda: False) for i, part in enumerate(parts)]
    assert cupy.cuda.used[0] - before >= 63 << 20
    for wait in waits:
        wait()
    del waits, wait
    assert cupy.cuda.used[0] - before <= (16 << 20) + 2 * cuda_pieces.PIECE_BYTES


def test_too_little_memory_fails_only_that_call(cupy: ModuleType, gpu: CupyBackend) -> None:
    description = engine.describe(TensorSpec(shape=[1 << 20], uniform=Uniform()))
    out = np.empty(1 << 20, np.float32)
    with cupy.cuda.limited(cupy.cuda.used[0] + 1000), pytest.raises(MemoryError, match="the GPU is out of memory"):
        gpu.fill(description, 0, out)
    gpu.fill(description, 0, out)
    assert out.any()


# The choice of a backend.


def test_auto_chooses_a_working_gpu(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: None)
    backend = engine.open_backend()
    assert (backend.name, backend.reason) == ("cupy", "the fastest, since there is a GPU")
    assert backend.device == "Emulated GPU (device 0, compute capability 9.0)"


def test_the_cpu_backend_is_opened_at_its_first_use(cupy: ModuleType) -> None:
    """A server must not wait for Numba before the GPU serves its first tensor."""
    waiting, gate = threading.Event(), threading.Event()

    class Slow(NumpyBackend):
        def prepare(self) -> None:
            waiting.set()
            gate.wait()

    opened: list[engine.Backend] = []
    backend = CupyBackend(cuda_device.CudaDevice(), lambda: (opened.append(Slow(1)), opened[-1])[1])
    sample(backend, TensorSpec(shape=[100], normal=Normal()))
    assert opened == []
    backend.prepare()
    assert waiting.wait(10)
    sample(backend, TensorSpec(shape=[100], normal=Normal()))
    sample(backend, TensorSpec(shape=[10, 10], orthogonal=Orthogonal(gain=1.0)))
    assert len(opened) == 1
    gate.set()


def test_opening_does_not_import_numba(cupy: ModuleType) -> None:
    code = "import sys; from seedbed_server import engine; engine.open_cupy(); print('numba' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "False\n"


def test_auto_says_why_it_did_not_choose_a_gpu(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: "there is no NVIDIA driver")
    backend = engine.open_backend("auto")
    assert (backend.name, backend.reason) == ("numba", "the fastest without a GPU: there is no NVIDIA driver")
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: None)
    monkeypatch.setenv("EMULATED_GPUS", "0")
    backend = engine.open_backend("auto")
    assert backend.name == "numba"
    assert "there is no GPU; check that nvidia-smi lists a device" in backend.reason


def test_auto_without_numba_chooses_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: "cupy is not installed")
    monkeypatch.setitem(sys.modules, "seedbed_server.engine.backends.numba", None)
    backend = engine.open_backend("auto")
    assert backend.name == "numpy"
    assert "numba cannot be imported" in backend.reason
    assert "cupy is not installed" in backend.reason


def test_auto_without_fused_multiply_add_chooses_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: "cupy is not installed")
    old = SimpleNamespace(get_host_cpu_features=lambda: {"avx": True, "fma": False})
    monkeypatch.setattr(numba_fma, "binding", old)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    backend = engine.open_backend("auto")
    assert backend.name == "numpy"
    assert "fused multiply-add (x86-64 since 2013), which this one lacks" in backend.reason
    with pytest.raises(ValueError, match="numpy gives the same bits"):
        engine.open_backend("numba")


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
    with pytest.raises(ValueError, match="SEEDBED_DEVICE: 'the big one' is not an integer"):
        engine.open_backend("cupy")


def test_each_device_has_its_own_memory_and_cuda_streams(
    cupy: ModuleType, monkeypatch: pytest.MonkeyPatch, reference: engine.Backend
) -> None:
    monkeypatch.setenv("EMULATED_GPUS", "2")
    spec = TensorSpec(shape=[1000], normal=Normal())
    second = engine.open_cupy(device=1)
    before = dict(cupy.cuda.used)
    assert sample(second, spec).tobytes() == sample(reference, spec).tobytes()
    assert cupy.cuda.used.get(0) == before.get(0)
    assert {lane.cuda_stream.device for lane in second._idle} == {1}
    assert cupy.cuda.runtime.getDevice() == 0


def test_an_explicit_device_is_not_replaced(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no device 7"):
        engine.open_backend("auto", device=7)


def test_without_cupy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ValueError, match=r"cupy is not installed; run pip install 'seedbed\[gpu\]' \(CUDA 13\) or"):
        engine.open_backend("cupy")


def test_without_a_driver_the_remedy_is_named() -> None:
    """With the real CuPy, on machines without a driver."""
    if backends._why_no_gpu() is None:
        assert engine.open_backend("cupy").name == "cupy"
        return
    with pytest.raises(ValueError, match=r"cupy (cannot be used: CUDA does not work: .*nvidia-smi|is not installed)"):
        engine.open_backend("cupy")


def test_a_failure_of_the_compiler_is_reported(cupy: ModuleType, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))

    def fail(*_: object) -> None:
        raise cupy.cuda.nvrtc.NVRTCError("NVRTC_ERROR_INVALID_OPTION (5)")

    monkeypatch.setattr(cupy.cuda.nvrtc, "compileProgram", fail)
    with pytest.raises(ValueError, match=r"the kernels cannot be compiled for this GPU .*INVALID_OPTION"):
        engine.open_backend("cupy")
    assert list(tmp_path.iterdir()) == []


def test_a_device_with_different_bits_is_refused(gpu: CupyBackend, reference: engine.Backend) -> None:
    gpu.check(reference)

    class Wrong(type(reference)):  # type: ignore[misc]
        def fill(self, description, first, out, cancelled=None):
            super().fill(description, first, out)
            out[-1] = np.nextafter(out[-1], np.float32(math.inf))

    with pytest.raises(cuda_device.NoDevice, match=r"the bits of uniform on .* differ from the reference"):
        gpu.check(Wrong(1))


def test_a_device_without_memory_is_refused(cupy: ModuleType) -> None:
    with (
        cupy.cuda.limited(cupy.cuda.used.get(0, 0) + 100),
        pytest.raises(ValueError, match=r"out of memory .*; stop other programs"),
    ):
        engine.open_backend("cupy")


def test_a_device_whose_kernels_fail_is_refused(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise cupy.cuda.driver.CUDADriverError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")

    monkeypatch.setattr(cuda_device.CudaDevice, "launch", fail)
    with pytest.raises(ValueError, match=r"Emulated GPU .* fails: CUDA_ERROR_LAUNCH_FAILED"):
        engine.open_backend("cupy")


def test_the_emulated_cupy_has_nothing_that_the_real_one_lacks(cupy: ModuleType) -> None:
    """Otherwise the tests could pass with names that do not exist."""
    root = Path(__file__).parents[2]
    sources = "".join(
        (root / path).read_text(encoding="utf-8")
        for path in (
            "server/seedbed_server/engine/backends/cuda_device.py",
            "server/seedbed_server/engine/backends/cuda_kernels.py",
            "client/seedbed/_inside/cuda.py",
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
    engine.open_cupy()  # a damaged file is ignored
    assert cupy.cuda.nvrtc.compilations == before + 2


def test_a_cache_that_is_not_writable_is_ignored(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", "/dev/null/cache")
    assert engine.open_cupy().name == "cupy"
