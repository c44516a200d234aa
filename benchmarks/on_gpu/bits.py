"""Compares what the GPU samples with the reference, bit for bit."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf import json_format

import seedbed
from benchmarks.measuring import Row
from benchmarks.on_gpu import ROOT
from benchmarks.on_gpu.bench import DTYPES, GIB, HALF, Bench, Case, described, whole
from seedbed.v1 import Constant, Function, Normal, Recipe, Region, TensorSpec, Uniform
from seedbed_server import engine

POISON = 0xA5
GUARD = 256  # bytes before and after the output, which must not change


def golden_vectors(bench: Bench) -> list[Row]:
    """The golden vectors of the stream, through the host and directly into the device's memory."""
    path = ROOT / "tests" / "engine" / "golden" / "stream_v1.json"
    vectors = json.loads(path.read_text(encoding="utf-8"))["tensors"]
    # Recipes may contain other types than their tensor's.
    missing = {"float16", "bfloat16", "float32", "float64", "complex64"} - set(DTYPES)
    here = [each for each in vectors if not any(f'"DATA_TYPE_{name.upper()}"' in json.dumps(each) for name in missing)]
    for vector in here:
        spec = json_format.ParseDict(vector["spec"], TensorSpec())
        region = json_format.ParseDict(vector["region"], Region()) if "region" in vector else None
        case = whole(engine.describe(spec, region))
        found = _both_ways(bench, case)
        bench.check(case, found)
        for way, values in found.items():
            if hashlib.sha256(values.tobytes()).hexdigest() != vector["sha256"]:
                bench.mismatch(f"golden vector, {way}: {case}: has another digest")
    bench.notes.append(f"{len(here)} of {len(vectors)} golden vectors")
    return []


def random_tensors(bench: Bench) -> list[Row]:
    """Random tensors, regions, recipes, chunks and addresses."""
    chance = random.Random(20_261_117)
    for scheme, parameters in itertools.islice(itertools.cycle(_SCHEMES), bench.sizes.random_cases):
        while (case := _random_case(chance, scheme, parameters)) is None:
            pass
        bench.check(case, _both_ways(bench, case))
    return []


def large_tensors(bench: Bench) -> list[Row]:
    """Enough values to reach every branch of every function."""
    kinds = [(law, dtype) for law in ("uniform", "normal", "trunc_normal") for dtype in ("float32", "float64")]
    for law, dtype in [*kinds, ("normal", HALF), ("normal", "float16"), ("sparse", "float32"), ("disk", "complex64")]:
        expensive = dtype == "float64" or law == "sparse"  # for the reference
        rows = bench.sizes.large_elements // 1000 // (4 if expensive else 1)
        options = {"sparsity": 0.6} if law == "sparse" else {}
        case = whole(described(law, dtype, (rows, 1000), name="large", seed=11, **options))
        bench.check(case, _both_ways(bench, case))
    return []


def many_threads(bench: Bench) -> list[Row]:
    """Through the host from many threads at once, which share the backend's buffers."""
    chance = random.Random(7)
    cases = []
    for index in range(bench.sizes.random_cases // 8):
        description = described(chance.choice(["uniform", "normal"]), chance.choice(DTYPES), (10**9,), name=str(index))
        cases.append(Case(description, chance.randrange(10**8), chance.randint(1, bench.sizes.large_elements // 100)))
    with futures.ThreadPoolExecutor(16) as pool:
        for case, found in zip(cases, pool.map(lambda case: _filled(bench, case), cases), strict=True):
            bench.check(case, {"one of many threads": found})
    return []


def one_launch(bench: Bench) -> list[Row]:
    """Gibibytes in one launch, compared at the start, at the end, around powers of two, and at random places."""
    chance = random.Random(8)
    for case in _launches(bench.sizes.launch_bytes):
        memory = bench.backend.cuda.allocate(case.description.byte_count)
        bench.gpu.memset(memory, POISON)
        bench.writing(case.description, memory)()
        bench.gpu.synchronize()
        length = min(bench.sizes.large_elements // 100, case.count)
        powers = [power // size for power in (2**31, 2**32, 2**33) for size in (1, case.dtype.itemsize)]
        places = [0, case.count, *powers, *(chance.randrange(case.count) for _ in range(16))]
        for place in {max(0, min(place - length // 2, case.count - length)) for place in places}:
            values = np.empty(length, case.dtype)
            bench.gpu.to_host(values, memory.ptr + place * values.itemsize)
            bench.check(replace(case, first=place, count=length), {"one launch": values})
        bench.notes.append(f"{case.kind}: {memory.size / GIB:.3g} GiB, {case.count:,} elements in one launch")
        del memory  # before the next one is allocated
    return []


def _launches(size: int) -> Iterator[Case]:
    """Whole tensors of slightly more than ``size`` bytes, and a region whose rows start within a block."""
    for law, dtype in (("uniform", HALF), ("normal", "float32"), ("uniform", "float32"), ("constant", "float16")):
        count = size // (4 if dtype == "float32" else 2) + 12345
        options = {"val": 0.7} if law == "constant" else {}
        yield whole(described(law, dtype, (count,), name="one launch", seed=2**40 + 7, **options))
    rows = math.isqrt(size // 4)
    region = Region(start=[0, 1], stop=[rows, 2 * rows])
    yield whole(described("normal", HALF, (rows, 2 * rows + 3), region, name="one launch"))


def _both_ways(bench: Bench, case: Case) -> dict[str, np.ndarray]:
    """The elements of a case: filled on the host, and written to the device."""
    found = {"filled": _filled(bench, case)}
    if case.count:  # a writer is never called for no elements
        found["written"] = _written(bench, case)
    return found


def _filled(bench: Bench, case: Case) -> np.ndarray:
    out = np.empty(case.count, case.dtype)
    bench.backend.fill(case.description, case.first, out)
    return out


def _written(bench: Bench, case: Case) -> np.ndarray:
    """Writes the elements of a case to the device, checks that nothing around them changed, and returns them."""
    begin = GUARD + case.misaligned * case.dtype.itemsize
    end = begin + case.count * case.dtype.itemsize
    memory = bench.backend.cuda.allocate(end + GUARD)
    bench.gpu.memset(memory, POISON)
    bench.backend.writer(case.description)(case.first, case.count, memory.ptr + begin, None)
    everything = np.empty(end + GUARD, np.uint8)
    bench.gpu.to_host(everything, memory.ptr)
    if (everything[:begin] != POISON).any() or (everything[end:] != POISON).any():
        bench.mismatch(f"{case.kind}: {case}: wrote out of bounds")
    return everything[begin:end].copy()  # at an aligned address


def _random_case(chance: random.Random, scheme: str, parameters: dict[str, Any]) -> Case | None:
    """A random case of a scheme; None if it is invalid, such as a shape that the scheme does not support."""
    shape = _random_shape(chance, scheme)
    scale = chance.choice([1.0, chance.uniform(0.5, 2)])
    spec = seedbed.spec(
        scheme,
        shape,
        name=chance.choice(["", "w", "transformer.h.0.attn.weight", "größe.½"]) + str(chance.random())[:4],
        dtype=chance.choice(DTYPES),
        seed=chance.choice([0, 1, 2**32 - 1, 2**32, 2**64 - 1, chance.getrandbits(64), chance.getrandbits(64)]),
        **{name: value * scale if isinstance(value, float) else value for name, value in parameters.items()},
    )
    region = _random_region(chance, Region(start=[0] * len(shape), stop=shape), 50_000)
    if chance.random() < 0.2:
        _become_recipe(chance, spec, region)
    try:
        description = engine.describe(spec, region)
    except engine.InvalidSpec:
        return None
    first = chance.choice([0, chance.randint(0, description.element_count)])
    rest = description.element_count - first
    return Case(description, first, chance.choice([rest, chance.randint(0, rest)]), chance.randrange(8))


def _become_recipe(chance: random.Random, spec: TensorSpec, region: Region) -> None:
    """Turns a tensor into one of parts, or sometimes into a logarithm or a literal."""
    kind = chance.choice(["parts", "parts", "parts", "expression", "literal"])
    if kind == "expression":
        spec.expression.steps.add().recipe.uniform.CopyFrom(Uniform(a=1.0, b=16.0))
        spec.expression.steps.add(function=Function.FUNCTION_LOG, arguments=[0])
        return
    if kind == "literal":
        count = chance.randint(1, 500)
        del spec.shape[:]
        spec.shape.append(count)
        region.CopyFrom(Region(start=[count // 3], stop=[count]))
        spec.literal.data = np.linspace(-2, 2, count).astype(engine.numpy_dtype(spec.dtype)).tobytes()
        return
    spec.parts.SetInParent()
    for _ in range(chance.randint(1, 4)):
        part = spec.parts.parts.add(region=_random_region(chance, region, chance.choice([5000, 50_000])))
        part.recipe.CopyFrom(chance.choice(_RECIPES))
        if not part.recipe.HasField("constant"):
            part.recipe.stream = chance.choice(["", "a", "b"])


def _random_shape(chance: random.Random, scheme: str) -> list[int]:
    if scheme == "delta_orthogonal":
        return chance.choice([[40, 7, 3], [12, 3, 4, 5], [4, 3, 2, 5, 1]])
    if scheme == "orthogonal":
        return chance.choice([[40, 7], [7, 40], [12, 3, 4], [3, 4, 2, 5]])
    rank = chance.randint(0, 5)
    shape = [chance.choice([1, chance.randint(2, 40), chance.randint(2, 4000)]) for _ in range(rank)]
    if rank and chance.random() < 0.5:  # more than 2^32 blocks of 4 elements, with a region
        shape[chance.randrange(rank)] = chance.randint(2**31, 2**40)
    while math.prod(shape) > 2**59:
        shape[shape.index(max(shape))] //= 3
    return shape


def _random_region(chance: random.Random, within: Region, most: int) -> Region:
    """A part of each dimension, at most ``most`` elements in all; mostly long rows, sometimes columns."""
    start, stop = [], []
    for low, high in zip(reversed(within.start), reversed(within.stop), strict=True):
        length = min(high - low, most, chance.choice([1, 5, 40, 3000, 30_000, high - low]))
        length *= chance.random() > 0.01  # sometimes the region is empty
        begin = chance.choice([low, high - length, chance.randint(low, high - length)])
        start.insert(0, begin)
        stop.insert(0, begin + length)
        most //= max(1, length)
    return Region(start=start, stop=stop)


_RECIPES = [
    *(Recipe(constant=Constant(val=val)) for val in (0.0, 0.5, -3.0)),
    Recipe(normal=Normal(std=0.02)),
    Recipe(normal=Normal(mean=-37.1)),
    Recipe(uniform=Uniform(a=-1.0, b=1.5)),
]

_SCHEMES: list[tuple[str, dict[str, Any]]] = [
    *((scheme, {}) for scheme in ("ones", "zeros", "eye")),
    *(("constant", {"val": val}) for val in (0.0, -0.0, 0.5, -71.3, 1e-7, 1e-40)),
    *(("dirac", {"groups": groups}) for groups in (1, 2, 3)),
    *(("uniform", {"a": a, "b": b}) for a, b in ((0.0, 1.0), (-1.0, 1.5), (71.3, 98.7))),
    *(("uniform", {"b": b}) for b in (1e-30, 1e-38, 1e-40, 1e-44)),  # with subnormal steps, which a GPU may flush
    *(("normal", {"mean": mean, "std": std}) for mean in (0.0, -37.1) for std in (1.0, 0.02, 0.0, 1e-30, 1e-40)),
    *(("trunc_normal", {"a": a, "b": b}) for a, b in ((-2.0, 2.0), (-8.0, 9.0), (0.1, 0.101), (-2.35, -2.3))),
    *(("trunc_normal", {"a": a, "b": b}) for a, b in ((4.2, 5.1), (-17.0, -15.5), (15.0, 18.0))),  # far tails
    ("trunc_normal", {"mean": -3.3, "std": 2.2, "a": -1.5, "b": 0.5, "bounds": "sigma"}),
    *((f"xavier_{law}", {"gain": gain}) for law in ("uniform", "normal") for gain in (1.0, 3.7)),
    *(
        (f"kaiming_{law}", {"a": 5**0.5, "mode": mode})
        for law in ("uniform", "normal")
        for mode in ("fan_in", "fan_out")
    ),
    *(("disk", {"radius": radius, "std": std}) for radius in (1.0, 0.02) for std in (None, 0.1)),  # complex64
    *(("orthogonal", {"gain": gain, "axis": axis}) for gain, axis in ((1.0, 0), (3.7, -1))),
    ("delta_orthogonal", {"gain": 1.5}),
    *(("sparse", {"sparsity": sparsity}) for sparsity in (0, 0.31, 0.5, 1)),
]
"""Floats are also scaled at random."""
