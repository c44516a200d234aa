"""The guarantee: the same bits on all backends, for all regions, piece sizes and numbers of threads."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.v1 import DataType, Disk, Normal, Orthogonal, Region, Sparse, TensorSpec, TruncNormal, Uniform
from seedbed_server import engine
from seedbed_server.engine.backends import reflections
from seedbed_server.engine.backends.numba import NumbaBackend
from seedbed_server.engine.parameters import SparseMask

from .conftest import BACKENDS, NAMES, open_backend, sample
from .strategies import dtypes, real_dtypes, regions, specs_with_regions

OTHER_BACKENDS = [backend for backend in BACKENDS if backend != ("numpy", 1)]


def bits(array: np.ndarray) -> bytes:
    return array.tobytes()


def same_of_all(spec: TensorSpec, region: tuple[Any, Any] | None = None) -> np.ndarray:
    """Samples on all backends, compares their bits, and returns the sample."""
    expected, *others = (sample(open_backend(name, 1), spec, region) for name in NAMES)
    assert [bits(other) for other in others] == [bits(expected)] * len(others)
    return expected


@settings(max_examples=400, deadline=None)
@given(specs_with_regions(), st.sampled_from(OTHER_BACKENDS), st.integers(1, 999))
def test_backends_regions_and_chunks_agree_in_every_bit(case, backend, chunk) -> None:
    spec, region = case
    start, stop = region
    whole = sample(open_backend("numpy", 1), spec)
    part = sample(open_backend(*backend), spec, region, chunk)
    assert bits(part) == bits(whole[tuple(map(slice, start, stop))])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_partition_fits_together(data) -> None:
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    spec = TensorSpec(name="w", shape=shape, dtype=data.draw(dtypes), seed=3, normal=Normal())
    cuts = [sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=3))}) for size in shape]
    backend = open_backend("numba", 2)
    assembled = np.empty(shape, engine.numpy_dtype(spec.dtype))
    for part in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
        start, stop = zip(*part, strict=True)
        assembled[tuple(map(slice, start, stop))] = sample(backend, spec, (start, stop))
    assert bits(assembled) == bits(sample(open_backend("numpy", 1), spec))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_indices_reach_to_the_end_of_64_bits(data) -> None:
    """Blocks far from 0, whose counters use more than 32 bits, in shapes of the largest sizes."""
    shape = data.draw(st.sampled_from([(2**62 - 1,), (2**31 - 1, 2**31), (2**20, 2**20, 2**21), (2**61, 1)]))
    dtype = data.draw(st.sampled_from([DataType.DATA_TYPE_FLOAT16, DataType.DATA_TYPE_BFLOAT16]))
    start = [data.draw(st.integers(0, size - 1)) for size in shape]
    stop = [min(size, low + data.draw(st.integers(1, 20))) for low, size in zip(start, shape, strict=True)]
    spec = TensorSpec(shape=shape, dtype=dtype, seed=1, normal=Normal())
    numpy = same_of_all(spec, (start, stop))
    first = int(np.ravel_multi_index(start, shape)) if len(shape) > 1 else start[0]
    flat = TensorSpec(shape=[2**62 - 1], dtype=dtype, seed=1, normal=Normal())
    assert numpy.reshape(-1)[0] == sample(open_backend("numpy", 1), flat, ([first], [first + 1]))[0]


@pytest.mark.parametrize("law", ["uniform", "normal", "trunc_normal", "sparse"])
@pytest.mark.parametrize("dtype", DataType.values()[1:])
def test_large_tensors_agree(law: str, dtype: int, fast) -> None:
    """Enough values to reach all branches of all functions."""
    parameters = {
        "uniform": Uniform(a=-0.3, b=0.7), "normal": Normal(std=0.02),
        "trunc_normal": TruncNormal(a=-3.0, b=4.0), "sparse": Sparse(sparsity=0.4),
    }  # fmt: skip
    if dtype == DataType.DATA_TYPE_COMPLEX64 and law in ("trunc_normal", "sparse"):
        pytest.skip("not of complex numbers")
    spec = TensorSpec(name=law, shape=[1009, 500], dtype=dtype, seed=11, **{law: parameters[law]})
    assert bits(same_of_all(spec)) == bits(sample(fast, spec))


@pytest.mark.parametrize("law", [Disk(radius=2.0), Disk(radius=2.0, std=1.0), Disk(radius=9.0, std=1.0)], ids=str)
def test_large_disks_agree(law: Disk, fast) -> None:
    spec = TensorSpec(name="disk", shape=[1009, 500], dtype=DataType.DATA_TYPE_COMPLEX64, seed=11, disk=law)
    assert bits(same_of_all(spec)) == bits(sample(fast, spec))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_masks_and_permutations_agree_at_any_elements(data) -> None:
    """Runs in any order and at any distance; rows just above a power of two, which need cycle walking; huge tensors."""
    rows = data.draw(st.sampled_from([2, 3, 5, 8, 9, 100, 4096, 4097, 2**31 + 5, 2**32, 2**40 + 1]))
    columns = data.draw(st.sampled_from([1, 2, 7, 100, 351, 352, 353, 1000, 2**22]))
    first, step = (
        data.draw(st.integers(0, rows * columns - 1)),
        data.draw(st.sampled_from([1, columns, -columns, 3, 0])),
    )
    starts = first + step * np.arange(data.draw(st.integers(1, 500)))
    starts = starts[(starts >= 0) & (starts < rows * columns)]
    lengths = np.minimum(data.draw(st.sampled_from([1, 5, 351, 2000])), rows * columns - starts)
    lengths[-1] = data.draw(st.integers(1, lengths[-1]))
    mask = SparseMask(rows, columns, data.draw(st.integers(0, rows)), data.draw(st.integers(0, 2**64 - 1)))
    seed = data.draw(st.integers(0, 2**64 - 1))
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.float16]))
    expected = np.linspace(1, 2, lengths.sum(), dtype=dtype)
    masked, reference, fast = expected.copy(), open_backend("numpy", 1), open_backend("numba", 1)
    reference.mask(mask, seed, (starts, lengths), expected)  # type: ignore[attr-defined]
    fast.mask(mask, seed, (starts, lengths), masked)  # type: ignore[attr-defined]
    assert bits(masked) == bits(expected)
    indices = starts % rows
    assert bits(reference.places(mask, seed, indices)) == bits(fast.places(mask, seed, indices))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1), (5, 1), (1, 5), (2, 2), (33, 8, 5), (200, 130), (130, 200), (1200, 70), (70, 1200), (500, 3), (3, 500),
        *((size, size) for size in (63, 64, 65, 131, 192)), *((size, 150) for size in (63, 64, 65)),
        *((150, size) for size in (63, 64, 65)),
    ],
)  # fmt: skip
def test_orthogonal_agrees(shape, reference) -> None:
    """One block of 64 columns, several, a partial one; strips of 48 within one block or across two."""
    spec = TensorSpec(name="q", shape=shape, dtype=DataType.DATA_TYPE_FLOAT64, orthogonal=Orthogonal())
    expected = bits(sample(reference, spec))
    for threads in (1, 2, 3):
        assert bits(sample(NumbaBackend(threads), spec)) == expected


def test_the_width_of_strips_does_not_matter(monkeypatch) -> None:
    spec = TensorSpec(name="q", shape=[1000, 700], dtype=DataType.DATA_TYPE_FLOAT64, orthogonal=Orthogonal())
    expected = bits(sample(NumbaBackend(1), spec))
    monkeypatch.setattr(reflections, "_STRIPS", 1)
    for wider in (350, 200, 100):
        monkeypatch.setattr(reflections, "_WIDER", wider)
        assert bits(sample(NumbaBackend(1), spec)) == bits(sample(NumbaBackend(2), spec)) == expected


def test_tall_orthogonal_matrices_are_sampled_in_tasks(reference) -> None:
    """In both orientations; several threads sample the Gaussians."""
    for shape in ([1100, 66], [66, 1100], [9000, 15], [15, 9000]):
        spec = TensorSpec(name="q", shape=shape, seed=3, orthogonal=Orthogonal())
        assert bits(sample(NumbaBackend(3), spec)) == bits(sample(reference, spec))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_far_bounds_agree(data) -> None:
    """The tails of the quantile function, up to the limit."""
    near = data.draw(st.floats(-35, 35))
    spec = TensorSpec(
        shape=[500],
        dtype=data.draw(real_dtypes),
        trunc_normal=TruncNormal(a=near, b=near + data.draw(st.floats(0.5, 4))),
    )
    same_of_all(spec)


@given(regions((50, 40, 30)))
@settings(max_examples=20, deadline=None)
def test_only_elements_of_the_region_are_sampled(region) -> None:
    sampled = 0

    class Counting(type(open_backend("numpy", 1))):  # type: ignore[misc]
        def sample(self, parameters, stream, runs, out):
            nonlocal sampled
            sampled += int(runs[1].sum())
            super().sample(parameters, stream, runs, out)

    part = sample(Counting(1), TensorSpec(shape=[50, 40, 30], normal=Normal()), region)
    assert sampled == part.size


@settings(max_examples=100, deadline=None)
@given(st.lists(specs_with_regions(), max_size=6), st.sampled_from(OTHER_BACKENDS), st.integers(0, 9))
def test_many_arrays_at_once_equal_one_by_one(cases, backend, first) -> None:
    reference, jobs = open_backend("numpy", 1), []
    for spec, (start, stop) in cases:
        description = engine.describe(spec, Region(start=start, stop=stop))
        count = max(0, description.element_count - first)
        jobs.append(engine.Job(description, first, np.empty(count, engine.numpy_dtype(spec.dtype))))
    open_backend(*backend).fill_all(jobs)
    for description, _, array in jobs:
        expected = np.empty_like(array)
        reference.fill(description, first, expected)
        assert bits(array) == bits(expected)


def test_long_work_polls_for_cancellation() -> None:
    backend = open_backend("numba", 2)
    out = np.full(1 << 24, -1.0, np.float32)
    cancelled = iter([False, False, True])
    with pytest.raises(engine.Cancelled):
        backend.fill(engine.describe(TensorSpec(shape=[1 << 24], uniform=Uniform())), 0, out, lambda: next(cancelled))
    written = (out != -1).sum()
    time.sleep(0.1)
    assert (out != -1).sum() == written < out.size  # nothing writes there any more


def test_a_busy_pool_delays_nothing() -> None:
    backend = open_backend("numba", 2)
    spec = TensorSpec(name="w", shape=[1000], normal=Normal())
    alone = sample(backend, spec)
    assert backend._pool is not None  # type: ignore[attr-defined]
    others = threading.Event()
    try:
        busy = [backend._pool.submit(others.wait) for _ in range(backend.threads)]  # type: ignore[attr-defined]
        assert bits(sample(backend, spec)) == bits(alone)
        assert not any(future.done() for future in busy)
    finally:
        others.set()


@pytest.mark.parametrize("dtype", ["FLOAT32", "BFLOAT16", "FLOAT64"])
@pytest.mark.parametrize("law", [{"uniform": Uniform()}, {"normal": Normal()}, {"trunc_normal": TruncNormal()}])
@pytest.mark.parametrize(
    ("shape", "start", "stop"),
    [
        ([2**36], [2**34 - 7000], [2**34 + 7001]),  # where the upper half of float32's block numbers changes
        ([2**36], [2**33 - 7001], [2**33 + 7000]),  # and of float64's
        ([2**33, 8], [2**31 - 900, 1], [2**31 + 900, 7]),
        ([2**33, 8], [2**30 - 900, 1], [2**30 + 900, 7]),
    ],
)
def test_blocks_whose_numbers_need_more_than_32_bits_agree(shape, start, stop, law, dtype) -> None:
    spec = TensorSpec(name="w", shape=shape, dtype=f"DATA_TYPE_{dtype}", seed=5, **law)
    same_of_all(spec, (start, stop))


WIDTHS = [1e-45, 3e-42, 1e-38, 2.0**-102, 2.0**-102 * (1 - 2**-24), 2.0**-101 * 1.1, 1e-30]


@pytest.mark.parametrize(
    ("a", "b"), [*((0.0, width) for width in WIDTHS), (1e-44, 3e-42), (-1e-39, 1e-38), (-1e-40, 1e-31), (-1e-31, 1e-30)]
)
def test_uniforms_just_above_zero_agree(a, b) -> None:
    spec = TensorSpec(name="w", shape=[5000], seed=5, uniform=Uniform(a=a, b=b))
    same_of_all(spec)


@pytest.mark.parametrize("law", [{"normal": Normal(mean=0.0, std=1e-60)}, {"uniform": Uniform(a=0.0, b=1e-30)}])
def test_zeros_of_both_signs_are_distinguished(law, backend) -> None:
    """Means and bounds that float32 rounds to -0.0, after others that it rounds to 0.0."""
    for sign in (1.0, -1.0):
        spec = TensorSpec(name="w", shape=[999], **law)
        if "normal" in law:
            spec.normal.mean = sign * 1e-60
        else:
            spec.uniform.a = sign * 1e-60
        assert bits(sample(backend, spec)) == bits(sample(open_backend("numpy", 1), spec))


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 8, 13, 128])
def test_short_rows_agree(columns, backend) -> None:
    spec = TensorSpec(name="w", shape=[3000, 130], seed=5, dtype=DataType.DATA_TYPE_BFLOAT16, normal=Normal())
    region = ([7, 1], [2990, 1 + columns])
    whole = sample(open_backend("numpy", 1), spec)
    assert bits(sample(backend, spec, region)) == bits(whole[7:2990, 1 : 1 + columns])
