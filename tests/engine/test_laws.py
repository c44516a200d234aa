"""The distributions: against their exact laws, at their bounds, and where other libraries fail."""

from __future__ import annotations

import itertools
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from seedbed.v1 import (
    DataType,
    DeltaOrthogonal,
    Disk,
    Distribution,
    Normal,
    Orthogonal,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
)
from seedbed_server import engine
from seedbed_server.engine.backends.numba import NumbaBackend

from .conftest import open_backend, sample
from .strategies import real_dtypes

FLOAT32, FLOAT16, BFLOAT16, FLOAT64, COMPLEX64 = DataType.values()[1:]
LARGE = 10_000_000


def exact_cdf(scheme: str, parameters, x: np.ndarray) -> np.ndarray:
    if scheme == "uniform":
        return (x - parameters.a) / (parameters.b - parameters.a)
    if scheme == "normal":
        return ndtr((x - parameters.mean) / parameters.std)
    # from the side of the farther bound, to avoid cancellation
    low, high, z = ((value - parameters.mean) / parameters.std for value in (parameters.a, parameters.b, x))
    if low > 0:
        return (ndtr(-low) - ndtr(-z)) / (ndtr(-low) - ndtr(-high))
    return (ndtr(z) - ndtr(low)) / (ndtr(high) - ndtr(low))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize(
    ("scheme", "parameters"),
    [
        ("uniform", Uniform(a=-0.5, b=2.0)),
        ("normal", Normal(mean=0.25, std=0.02)),
        ("trunc_normal", TruncNormal(mean=0.0, std=1.0, a=-2.0, b=2.0)),
        ("trunc_normal", TruncNormal(mean=0.0, std=0.002, a=-2.0, b=2.0)),
        ("trunc_normal", TruncNormal(mean=0.0, std=1.0, a=5.0, b=5.1)),
        ("trunc_normal", TruncNormal(mean=1.0, std=1.0, a=-9.0, b=0.0)),
    ],
    ids=["uniform", "normal", "trunc_normal", "wide", "far", "one-sided"],
)
def test_kolmogorov_smirnov(scheme, parameters, dtype, fast) -> None:
    spec = TensorSpec(name="ks", shape=[LARGE], dtype=dtype, seed=2024, **{scheme: parameters})
    values = np.sort(sample(fast, spec).astype(np.float64))
    # scipy.stats.kstest without its search for the exact p, which is slow for this many values
    expected = exact_cdf(scheme, parameters, values)
    steps = np.arange(LARGE + 1) / LARGE
    distance = max((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    assert stats.kstwobign.sf(distance * math.sqrt(LARGE)) > 1e-4


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_normals_have_tails_and_not_too_many_zeros(dtype, fast) -> None:
    spec = TensorSpec(name="tails", shape=[8_000_000], dtype=dtype, seed=1, normal=Normal())
    z = sample(fast, spec)
    for sigmas in (3, 4, 5):
        expected = len(z) * 2 * stats.norm.sf(sigmas)
        assert abs((np.abs(z) > sigmas).sum() - expected) < 5 * math.sqrt(expected) + 1
    assert (z == 0).sum() <= 1
    assert len(np.unique(z)) > 0.7 * len(z)


def test_the_largest_normals() -> None:
    from seedbed_server.engine.backends.numpy import radius

    assert 6.66 < radius(np.zeros(1, np.uint32))[0] < 6.67
    assert 9.41 < radius(np.zeros(1, np.uint64))[0] < 9.42
    for word in (np.uint32(2**32 - 1), np.uint64(2**64 - 1)):
        assert 0 < radius(np.array([word]))[0] < 1e-4


def test_normals_of_a_pair_and_of_neighbours_are_uncorrelated(fast) -> None:
    z = sample(fast, TensorSpec(name="pairs", shape=[4_000_000], normal=Normal())).astype(np.float64)
    for lag in range(1, 9):
        for power in (1, 2):
            x = z**power
            assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / math.sqrt(len(z))


@pytest.mark.parametrize(("one", "other"), [({"seed": 1}, {"seed": 2}), ({"name": "a"}, {"name": "b"})])
def test_seeds_and_names_give_independent_tensors(one, other, fast) -> None:
    x, y = (sample(fast, TensorSpec(shape=[1_000_000], normal=Normal(), **fields)) for fields in (one, other))
    assert abs(np.corrcoef(x, y)[0, 1]) < 5e-3


def refused(spec: TensorSpec) -> str | None:
    try:
        engine.describe(spec)
    except engine.InvalidSpec as refusal:
        return refusal.description
    return None


@settings(max_examples=150, deadline=None)
@given(real_dtypes, st.floats(-1000, 1000), st.floats(1e-6, 1000))
def test_uniforms_stay_within_their_bounds(dtype, a, width) -> None:
    spec = TensorSpec(shape=[4000], dtype=dtype, uniform=Uniform(a=a, b=a + width))
    if refusal := refused(spec):
        assert "lies between" in refusal
        return
    x = sample(open_backend("numba", 1), spec).astype(np.float64)
    assert (a <= x).all()
    assert (x < a + width).all()


@settings(max_examples=150, deadline=None)
@given(real_dtypes, st.floats(-20, 20), st.floats(0.01, 10), st.floats(0.05, 2))
def test_truncated_normals_stay_within_their_bounds(dtype, a, width, std) -> None:
    spec = TensorSpec(shape=[2000], dtype=dtype, trunc_normal=TruncNormal(a=a, b=a + width, std=std))
    if refusal := refused(spec):
        assert "lies between" in refusal or "never within" in refusal
        return
    x = sample(open_backend("numba", 1), spec).astype(np.float64)
    assert (a <= x).all()
    assert (x <= a + width).all()


def test_half_precision_uniforms_never_reach_one(fast) -> None:
    """torch's and MPS's do (pytorch issues 96947, 197079)."""
    for dtype, largest in ((FLOAT16, 0.99951171875), (BFLOAT16, 0.99609375)):
        assert sample(fast, TensorSpec(shape=[1_000_000], dtype=dtype, uniform=Uniform())).max() == largest


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (5.0, 5.1), (0.5, 0.5001), (-31.0, -30.0), (-2000.0, 2000.0)])
def test_truncated_normals_do_not_pile_up_on_a_bound(low, high, fast) -> None:
    """torch's did before 2.12 (pytorch issues 145498, 155588)."""
    spec = TensorSpec(shape=[1_000_000], dtype=FLOAT32, trunc_normal=TruncNormal(a=low, b=high))
    values, counts = np.unique(sample(fast, spec), return_counts=True)
    assert counts[0] + counts[-1] < 4 * counts.mean() + 20
    assert len(values) > 800


def test_the_quantile_is_monotonic_and_symmetric() -> None:
    from seedbed_server.engine.backends.numpy import quantile

    draws = np.sort(np.random.default_rng(5).integers(0, 2**31, 200_000)).astype(np.float64)
    u = (draws + 0.5) * 2.0**-32
    z, mirrored = quantile(u, 1 - u), quantile(1 - u, u)
    assert (np.diff(z) >= 0).all()
    assert np.array_equal(z, -mirrored)
    assert z == pytest.approx(stats.norm.ppf(u), rel=1e-12, abs=1e-15)


def test_16_bit_tensors_are_the_float32_tensor_rounded(fast) -> None:
    import ml_dtypes

    for parameters in ({"normal": Normal(std=2e-5)}, {"normal": Normal()}, {"sparse": Sparse(sparsity=0.5)}):
        base = sample(fast, TensorSpec(shape=[1000, 300], dtype=FLOAT32, **parameters))
        for dtype, numpy_dtype in ((FLOAT16, np.float16), (BFLOAT16, ml_dtypes.bfloat16)):
            rounded = sample(fast, TensorSpec(shape=[1000, 300], dtype=dtype, **parameters))
            assert rounded.tobytes() == base.astype(numpy_dtype).tobytes()


# sparse


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 10, 100, 1025])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 1.0])
def test_sparse_has_as_many_zeros_in_each_column_as_torch(rows, sparsity, backend) -> None:
    x = sample(backend, TensorSpec(shape=[rows, 7], seed=3, sparse=Sparse(sparsity=sparsity)))
    assert ((x == 0).sum(axis=0) == math.ceil(sparsity * rows)).all()
    assert not np.signbit(x[x == 0]).any()


@pytest.mark.parametrize(("rows", "zeros"), [(2, 1), (3, 1), (5, 2), (6, 3), (8, 4), (10, 3)])
def test_all_sets_of_rows_are_equally_likely(rows, zeros, fast) -> None:
    x = sample(fast, TensorSpec(name="sets", shape=[rows, 300_000], sparse=Sparse(sparsity=zeros / rows)))
    codes = ((x == 0) * (1 << np.arange(rows))[:, None]).sum(axis=0)
    sets = [sum(1 << row for row in chosen) for chosen in itertools.combinations(range(rows), zeros)]
    assert stats.chisquare(np.bincount(codes, minlength=1 << rows)[sets]).pvalue > 1e-4


# orthogonal


@pytest.mark.parametrize("shape", [(40, 40), (60, 20), (20, 60), (16, 3, 3, 3), (1, 7), (7, 1)])
def test_orthogonal(shape, backend) -> None:
    q = sample(backend, TensorSpec(shape=shape, dtype=FLOAT64, orthogonal=Orthogonal(gain=2.0))).reshape(shape[0], -1)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    assert product == pytest.approx(4 * np.eye(len(product)), abs=1e-13)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("shape", [(6, 5, 4), (3, 4, 20), (2, 60, 3)])
def test_the_axis_of_orthogonal(axis, shape, backend) -> None:
    """The tensor equals that of axis 0 with this axis moved."""
    q = sample(backend, TensorSpec(shape=shape, dtype=FLOAT64, orthogonal=Orthogonal(axis=axis)))
    moved = np.moveaxis(q, axis, 0)
    first = sample(backend, TensorSpec(shape=moved.shape, dtype=FLOAT64, orthogonal=Orthogonal()))
    assert moved.tobytes() == first.tobytes()
    part = sample(
        backend, TensorSpec(shape=shape, dtype=FLOAT64, orthogonal=Orthogonal(axis=axis)), ([1, 1, 1], shape), chunk=7
    )
    assert part.tobytes() == q[1:, 1:, 1:].tobytes()


@pytest.mark.parametrize(
    ("shape", "out_axis", "in_axis", "centre"),
    [
        ((5, 4, 3), 0, 1, np.s_[:, :, 1]),
        ((5, 4, 2, 4), 0, 1, np.s_[:, :, 0, 1]),
        ((5, 5, 1, 2, 3), 0, 1, np.s_[:, :, 0, 0, 1]),
        ((3, 4, 4, 5), -1, -2, np.s_[1, 1]),
    ],
)
def test_delta_orthogonal(shape, out_axis, in_axis, centre, backend) -> None:
    scheme = DeltaOrthogonal(gain=2.0, out_axis=out_axis, in_axis=in_axis)
    w = sample(backend, TensorSpec(name="w", shape=shape, dtype=FLOAT64, delta_orthogonal=scheme))
    matrix = w[centre] if out_axis == 0 else w[centre].T
    assert matrix.T @ matrix == pytest.approx(4 * np.eye(shape[in_axis]), abs=1e-13)
    assert np.count_nonzero(w) == np.count_nonzero(matrix)
    alike = sample(backend, TensorSpec(name="w", shape=matrix.shape, dtype=FLOAT64, orthogonal=Orthogonal(gain=2.0)))
    assert matrix.tobytes() == alike.tobytes()


def test_orthogonal_is_uniform_by_haars_measure(fast) -> None:
    """A column of a Haar matrix is uniform on the sphere: its first coordinate squared is Beta(1/2, (n - 1)/2)."""
    first = [
        sample(fast, TensorSpec(shape=[5, 5], dtype=FLOAT64, seed=seed, orthogonal=Orthogonal()))[0, 0]
        for seed in range(2000)
    ]
    assert stats.kstest(np.square(first), stats.beta(0.5, 2.0).cdf).pvalue > 1e-3
    assert abs(np.mean(np.sign(first))) < 0.1


@pytest.mark.parametrize("size", [5, 70])
def test_orthogonal_is_uniform_in_blocks_too(size, fast) -> None:
    """The trace of a Haar matrix has the first moments of a standard normal (Diaconis and Shahshahani, 1994)."""
    traces = np.array(
        [
            np.trace(sample(fast, TensorSpec(shape=[size, size], dtype=FLOAT64, seed=seed, orthogonal=Orthogonal())))
            for seed in range(1000)
        ]
    )
    assert abs(traces.mean()) < 4 / np.sqrt(1000)
    assert abs((traces**2).mean() - 1) < 4 * np.sqrt(2 / 1000)
    corner = sample(fast, TensorSpec(shape=[size, size], dtype=FLOAT64, seed=5, orthogonal=Orthogonal()))
    assert np.linalg.slogdet(corner)[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("column", [0, 47, 63, 64, 79])
def test_each_column_of_an_orthogonal_matrix_is_uniform_on_the_sphere(column, fast) -> None:
    elements = [
        sample(fast, TensorSpec(shape=[80, 80], dtype=FLOAT64, seed=seed, orthogonal=Orthogonal()))[70, column]
        for seed in range(800)
    ]
    assert stats.kstest(np.square(elements), stats.beta(0.5, 79 / 2).cdf).pvalue > 1e-3
    assert abs(np.mean(np.sign(elements))) < 4 / np.sqrt(800)


@pytest.mark.parametrize("shape", [(300, 300), (300, 20)])
def test_cancelled_work_stops(shape, backend) -> None:
    description = engine.describe(TensorSpec(shape=shape, seed=99, orthogonal=Orthogonal()))
    with pytest.raises(engine.Cancelled):
        backend.fill(description, 0, np.empty(10, np.float32), cancelled=lambda: True)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_matrix_polls_for_cancellation_and_reports_progress(threads) -> None:
    polls, reports = [], []

    def cancelled() -> bool:
        polls.append(time.perf_counter())
        return len(reports) > 10

    description = engine.describe(TensorSpec(shape=[1500, 1500], seed=99, orthogonal=Orthogonal()))
    backend = NumbaBackend(threads)
    sample(backend, TensorSpec(shape=[70, 70], orthogonal=Orthogonal()))  # compiles
    with pytest.raises(engine.Cancelled):
        backend.fill(description, 0, np.empty(10, np.float32), engine.Watch(cancelled, reports.append))
    assert len(polls) > 20
    assert np.diff(polls).max() < 1  # a few milliseconds on an idle machine
    assert reports == sorted(reports)
    assert 0 < reports[-1] < 1


def test_orthogonal_matrices_do_not_wait_for_a_busy_pool() -> None:
    backend, others = NumbaBackend(2), threading.Event()
    spec = TensorSpec(shape=[200, 200], orthogonal=Orthogonal())
    try:
        for _ in range(2):
            backend._pool.submit(others.wait)
        q = sample(backend, spec)
    finally:
        others.set()
    assert (q == sample(NumbaBackend(1), spec)).all()


# complex numbers


def complex_sample(backend: engine.Backend, **scheme) -> np.ndarray:
    return sample(backend, TensorSpec(name="z", shape=[1000, 1000], dtype=COMPLEX64, seed=3, **scheme))


@pytest.mark.parametrize(
    ("scheme", "floats"),
    [
        ({"uniform": Uniform(a=-0.3, b=0.7)}, {"uniform": Uniform(a=-0.3, b=0.7)}),
        ({"normal": Normal(std=0.02)}, {"normal": Normal(std=0.02 * math.sqrt(0.5))}),
    ],
)
def test_complex_numbers_are_pairs_of_floats(scheme, floats, backend) -> None:
    z = sample(backend, TensorSpec(name="z", shape=[31, 17], dtype=COMPLEX64, **scheme))
    pairs = sample(backend, TensorSpec(name="z", shape=[31, 17, 2], **floats))
    assert z.tobytes() == pairs.tobytes()


@pytest.mark.parametrize(
    ("disk", "modulus"),
    [
        (Disk(radius=2.0), lambda r: (r / 2) ** 2),
        (Disk(radius=2.0, std=1.0), lambda r: np.expm1(-(r**2)) / np.expm1(-4.0)),
        (Disk(radius=0.5, std=4.0), lambda r: np.expm1(-((r / 4) ** 2)) / np.expm1(-(0.125**2))),
        (Disk(radius=9.0, std=1.0), lambda r: -np.expm1(-(r**2))),
    ],
    ids=["uniform", "normal", "narrow", "wide"],
)
def test_disks(disk, modulus, fast) -> None:
    z = complex_sample(fast, disk=disk).ravel().astype(np.complex128)
    assert np.abs(z).max() <= disk.radius * (1 + 2e-7)
    assert stats.kstest(modulus(np.abs(z)), "uniform").pvalue > 1e-3
    assert stats.kstest(np.angle(z) / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(np.abs(z), np.angle(z))[0, 1]) < 5e-3


def test_a_wide_disk_is_the_complex_normal(fast) -> None:
    wide = complex_sample(fast, disk=Disk(radius=9.0, std=0.3))
    assert wide.tobytes() == complex_sample(fast, normal=Normal(std=0.3)).tobytes()


@pytest.mark.parametrize("name", ["uniform", "normal", "truncated_normal"])
def test_complex_variance_scaling_equals_jaxs(name, fast) -> None:
    jax = pytest.importorskip("jax")
    distribution = Distribution.Value(f"DISTRIBUTION_{name.upper()}")
    ours = complex_sample(fast, variance_scaling=VarianceScaling(scale=2.0, distribution=distribution)).ravel()
    init = jax.nn.initializers.variance_scaling(2.0, "fan_in", name)
    theirs = np.asarray(init(jax.random.key(0), (1000, 1000), "complex64")).ravel()
    assert stats.ks_2samp(np.abs(ours), np.abs(theirs)).pvalue > 1e-3
    assert stats.ks_2samp(ours.real, theirs.real).pvalue > 1e-3
    assert stats.ks_2samp(ours.imag, theirs.imag).pvalue > 1e-3
    if name != "normal":
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-4)


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 8, 8), (2, 3, 4, 7), (3, 2, 5, 4, 4)])
def test_delta_orthogonal_has_jaxs_centre(shape, fast) -> None:
    jax = pytest.importorskip("jax")
    theirs = np.asarray(jax.nn.initializers.delta_orthogonal()(jax.random.key(0), shape, "float32"))
    ours = sample(fast, TensorSpec(shape=shape, delta_orthogonal=DeltaOrthogonal(out_axis=-1, in_axis=-2)))
    assert ((ours != 0) == (theirs != 0)).all()


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_orthogonal_is_orthogonal_where_jaxs_is(axis, fast) -> None:
    jax = pytest.importorskip("jax")
    shape = (3, 4, 5)
    theirs = np.asarray(jax.nn.initializers.orthogonal(column_axis=axis)(jax.random.key(0), shape, "float32"))
    ours = sample(fast, TensorSpec(shape=shape, orthogonal=Orthogonal(axis=axis)))
    for q in (ours, theirs):
        rows = np.moveaxis(q, axis, 0).reshape(shape[axis], -1)
        assert rows @ rows.T == pytest.approx(np.eye(shape[axis]), abs=1e-5)
