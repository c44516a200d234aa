"""The laws are those of docs/stream-v1.md: what was written from that page alone makes the same bits."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from evidence import plain_laws
from google.protobuf import json_format
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seedbed.v1 import (
    BoundsUnit,
    DataType,
    Disk,
    Normal,
    Orthogonal,
    Region,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    Xavier,
)
from seedbed_server import engine

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = json.loads((ROOT / "tests" / "engine" / "golden" / "stream_v1.json").read_text(encoding="utf-8"))["tensors"]
VECTORS = [vector for vector in GOLDEN if not {"parts", "expression", "literal"} & vector["spec"].keys()]
EXAMPLES = 25
REAL = ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]


def spec_of(dtype, count=24, **fields):
    spec = TensorSpec(shape=[count], **fields)
    spec.dtype = DataType.Value(f"DATA_TYPE_{dtype}")
    return spec


def name_of(vector):
    spec = vector["spec"]
    return f"{spec['name'].split('.')[1]}-{spec['dtype'].removeprefix('DATA_TYPE_').lower()}-{spec.get('shape')}"


def indices_of(spec, region):
    """The flat indices of a region's elements, in its order."""
    start, stop = (region.start, region.stop) if region.start else ([0] * len(spec.shape), spec.shape)
    for index in itertools.product(*map(range, start, stop)):
        yield plain_laws.flat_of(index, spec.shape)


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_golden_vectors_follow_from_the_page(vector):
    spec = json_format.ParseDict(vector["spec"], TensorSpec())
    region = json_format.ParseDict(vector.get("region", {}), Region())
    element = plain_laws.tensor(spec)
    taken = itertools.islice(indices_of(spec, region), len(vector["bits"]))
    assert [element(i)[::-1].hex() for i in taken] == vector["bits"]


def is_served(spec):
    """Whether the engine makes a tensor, with the same bytes if it does."""
    try:
        description = engine.describe(spec)
    except engine.InvalidSpec:
        return False
    out = np.empty(description.element_count, engine.numpy_dtype(spec.dtype))
    engine.open_backend("numba", threads=1).fill(description, 0, out)
    element = plain_laws.tensor(spec)
    size = out.itemsize
    served = [out.tobytes()[at : at + size].hex() for at in range(0, out.nbytes, size)]
    assert [element(i).hex() for i in range(len(out))] == served
    return True


MAGNITUDES = st.one_of(st.floats(1e-3, 1e3), st.integers(-110, 110).map(lambda n: 2.0**n), st.floats(1e-30, 1e30))
SIGNED = st.one_of(st.just(0.0), MAGNITUDES, MAGNITUDES.map(lambda x: -x))
SEEDS = st.integers(0, 2**64 - 1)
NAMES = st.text(max_size=8)
SPREADS = st.one_of(st.floats(0.5, 2.2), st.floats(0.01, 8), st.floats(1e-7, 1e-2), st.just(1e6))


@st.composite
def truncated(draw):
    """Near and far bounds, on one or both sides of the mean, wide and narrow."""
    std, middle = draw(MAGNITUDES), draw(st.floats(-9, 9))
    mean = draw(st.one_of(st.just(0.0), st.floats(-9, 9).map(lambda x: x * std), SIGNED))
    below, above = draw(SPREADS), draw(SPREADS)
    a, b = draw(st.sampled_from([(-below, above), (middle - below, middle + above), (middle, middle + above)]))
    if draw(st.booleans()):
        return TruncNormal(mean=mean, std=std, a=a, b=b, bounds=BoundsUnit.BOUNDS_UNIT_SIGMA)
    return TruncNormal(mean=mean, std=std, a=mean + std * a, b=mean + std * b)


@given(truncated(), st.sampled_from(["FLOAT32", *REAL]), SEEDS, NAMES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_truncated_normals_follow_from_the_page(law, dtype, seed, name):
    assume(is_served(spec_of(dtype, seed=seed, name=name, trunc_normal=law)))


@given(SIGNED, MAGNITUDES, st.sampled_from(REAL), SEEDS, NAMES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_normals_follow_from_the_page(mean, std, dtype, seed, name):
    assume(is_served(spec_of(dtype, seed=seed, name=name, normal=Normal(mean=mean, std=std))))


@given(SIGNED, SIGNED, st.sampled_from([*REAL, "COMPLEX64"]), SEEDS, NAMES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_uniforms_follow_from_the_page(a, b, dtype, seed, name):
    law = Uniform(a=min(a, b), b=max(a, b))
    assume(is_served(spec_of(dtype, seed=seed, name=name, uniform=law)))


@given(MAGNITUDES, st.one_of(st.none(), st.floats(0.001, 15)), SEEDS, NAMES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_disks_follow_from_the_page(radius, spread, seed, name):
    law = Disk(radius=radius, std=None if spread is None else radius * spread)
    assume(is_served(spec_of("COMPLEX64", seed=seed, name=name, disk=law)))


@given(st.integers(1, 20), st.integers(1, 5), st.floats(0, 1), st.sampled_from(REAL), SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_sparse_follows_from_the_page(rows, columns, sparsity, dtype, seed):
    spec = spec_of(dtype, seed=seed, name="s", sparse=Sparse(sparsity=sparsity))
    spec.shape[:] = [rows, columns]
    assert is_served(spec)


@pytest.mark.parametrize("rows_columns", [(1, 1), (1, 7), (7, 1), (6, 6), (9, 65), (70, 3)])
def test_orthogonal_follows_from_the_page(rows_columns):
    spec = TensorSpec(shape=rows_columns, seed=3, name="o", dtype=DataType.DATA_TYPE_FLOAT64, orthogonal=Orthogonal())
    assert is_served(spec)


WITHOUT_SPREAD = {
    "uniform": {"uniform": Uniform(a=-0.0, b=0.0)},
    "uniform-1": {"uniform": Uniform(a=1.0, b=1.0)},
    "normal": {"normal": Normal(mean=-0.0, std=0.0)},
    "trunc_normal": {"trunc_normal": TruncNormal(mean=-0.0, std=0.0)},
    "trunc_normal-bounds": {"trunc_normal": TruncNormal(a=-0.0, b=0.0)},
    "trunc_normal-above": {"trunc_normal": TruncNormal(mean=1.0, a=-0.0, b=0.0)},
    "xavier_uniform": {"xavier_uniform": Xavier(gain=0.0), "shape": [3, 4]},
    "sparse": {"sparse": Sparse(std=0.0), "shape": [3, 4]},
}


@pytest.mark.parametrize("dtype", [*REAL, "COMPLEX64"])
@pytest.mark.parametrize("name", WITHOUT_SPREAD)
def test_laws_without_spread_follow_from_the_page(name, dtype):
    spec = TensorSpec(**{"shape": [5], **WITHOUT_SPREAD[name]})
    spec.dtype = DataType.Value(f"DATA_TYPE_{dtype}")
    assert is_served(spec) or (dtype == "COMPLEX64" and name.startswith(("trunc", "sparse")))
