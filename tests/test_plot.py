"""The text, moments and density of laws, and the histograms that ``seedbed plot`` draws."""

import math

import ml_dtypes
import numpy as np
import pytest
from scipy import integrate, stats

from seedbed._show import laws, plot
from seedbed.v1 import (
    Constant,
    DataType,
    Dirac,
    Eye,
    Law,
    Normal,
    Orthogonal,
    Sparse,
    TensorDescription,
    TensorSpec,
    TruncNormal,
    Uniform,
)

FLOAT32, BFLOAT16 = DataType.DATA_TYPE_FLOAT32, DataType.DATA_TYPE_BFLOAT16


def described(law, shape=(64, 64), dtype=FLOAT32):
    spec = TensorSpec(name="w", shape=shape, dtype=dtype, seed=7)
    return TensorDescription(spec=spec, law=law, element_count=math.prod(shape))


def trunc(mean, std, a, b):
    return described(Law(trunc_normal=TruncNormal(mean=mean, std=std, a=a, b=b)))


CONTINUOUS = {
    "uniform": (described(Law(uniform=Uniform(a=-0.3, b=1))), stats.uniform(-0.3, 1.3)),
    "normal": (described(Law(normal=Normal(mean=1, std=0.02))), stats.norm(1, 0.02)),
    "trunc_normal": (trunc(0, 1, -1, 2), stats.truncnorm(-1, 2)),
    "trunc_normal wide": (trunc(0, 0.02, -2, 2), stats.norm(0, 0.02)),
    "trunc_normal far": (trunc(0, 1, 10, 20), stats.truncnorm(10, 20)),
    "trunc_normal narrow": (trunc(0, 1, 5, 5.01), stats.truncnorm(5, 5.01)),
    "orthogonal": (
        described(Law(orthogonal=Orthogonal(gain=2)), (8, 5)),
        stats.beta(3.5, 3.5, loc=-2, scale=4),  # a coordinate of the sphere in 8 dimensions, stretched from [0, 1]
    ),
    "orthogonal plane": (described(Law(orthogonal=Orthogonal(gain=1)), (2, 2)), stats.arcsine(-1, 2)),
}


@pytest.mark.parametrize(("description", "exact"), CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_curve_and_moments_match_the_exact_distribution(description, exact):
    curve = laws.curve(description)
    inside = slice(1, -1) if curve.y[0] == 0 else slice(None)
    np.testing.assert_allclose(curve.y[inside][:-1], exact.pdf(curve.x[inside][:-1]), rtol=2e-4)
    mean, std = laws.moments(description)
    assert mean == pytest.approx(exact.mean(), rel=1e-6, abs=1e-9)
    assert std == pytest.approx(exact.std(), rel=1e-5)


def test_the_density_of_sparse_leaves_out_the_zeros():
    description = described(Law(sparse=Sparse(sparsity=0.3, std=0.01)), (10, 3))
    curve = laws.curve(description)
    assert integrate.trapezoid(curve.y, curve.x) == pytest.approx(0.7, rel=1e-4)
    assert laws.moments(description)[1] == pytest.approx(0.01 * math.sqrt(0.7))
    assert laws.atoms(description) == (0.0,)
    assert laws.curve(described(Law(sparse=Sparse(sparsity=1, std=0.01)), (10, 3))) is None


def test_atoms_are_rounded_to_the_dtype():
    assert laws.atoms(described(Law(constant=Constant(val=0.1)), dtype=BFLOAT16)) == (float(ml_dtypes.bfloat16(0.1)),)
    assert laws.atoms(described(Law(constant=Constant(val=0.1)))) == (float(np.float32(0.1)),)


def test_text_names_the_law_and_its_parameters():
    assert laws.text(described(Law(normal=Normal(mean=0, std=0.02)))) == "normal(mean=0, std=0.02)"
    assert laws.text(described(Law(eye=Eye()))) == "eye()"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_bins_span_equally_many_values_of_every_dtype(dtype):
    number = {np.float32: FLOAT32, np.float16: DataType.DATA_TYPE_FLOAT16, ml_dtypes.bfloat16: BFLOAT16}[dtype]
    description = described(Law(uniform=Uniform(a=-1, b=1)), (1000, 1000), number)
    histogram = plot.LawHistogram(description)
    values = np.random.default_rng(7).uniform(-1, 1, 1_000_000).astype(np.float32).astype(dtype)
    histogram.add(values[np.abs(values) < 1])
    heights = histogram.counts / np.diff(histogram.edges) / histogram.size
    assert len(heights) > 50
    np.testing.assert_allclose(heights[1:-1], 0.5, rtol=0.06)


@pytest.mark.parametrize("size", [1, 50, 10_000])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("name", ["uniform", "normal", "trunc_normal", "trunc_normal far", "orthogonal"])
def test_fast_binning_matches_searchsorted(name, dtype, size):
    description, _ = CONTINUOUS[name]
    histogram = plot.LawHistogram(described(description.law, description.spec.shape, dtype), size)
    between = np.random.default_rng(7).uniform(histogram.edges[0], histogram.edges[-1], 10_000)
    values = np.concatenate((between, histogram.edges))
    expected = np.minimum(np.searchsorted(histogram.edges, values, side="right") - 1, len(histogram.counts) - 1)
    assert (histogram._bins(values) == expected).all()


def test_chunks_add_up():
    description = described(Law(normal=Normal(mean=3, std=0.5)), (100, 100))
    values = np.random.default_rng(7).normal(3, 0.5, 10_000).astype(np.float32)
    whole, parts = plot.LawHistogram(description), plot.LawHistogram(description)
    whole.add(values)
    for first in range(0, values.size, 999):
        parts.add(values[first : first + 999])
    assert (whole.counts == parts.counts).all()
    assert parts.size == 10_000
    assert parts.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert parts.std == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


PANELS = {
    "normal": (Law(normal=Normal(mean=0, std=0.02)), (64, 64), 0.01),
    "uniform": (Law(uniform=Uniform(a=0, b=1)), (64, 64), 0.5),
    "orthogonal": (Law(orthogonal=Orthogonal(gain=1)), (64, 64), 0.1),
    "orthogonal of one": (Law(orthogonal=Orthogonal(gain=1)), (1, 1), 1.0),
    "sparse": (Law(sparse=Sparse(sparsity=0.5, std=0.01)), (64, 64), 0.0),
    "all sparse": (Law(sparse=Sparse(sparsity=1, std=0.01)), (64, 64), 0.0),
    "constant": (Law(constant=Constant(val=0)), (64,), 0.0),
    "eye": (Law(eye=Eye()), (8, 8), 1.0),
    "dirac": (Law(dirac=Dirac(groups=1)), (8, 8, 3), 1.0),
    "empty": (Law(normal=Normal(mean=0, std=1)), (0, 3), 0.0),
    "narrower than the dtype": (Law(uniform=Uniform(a=1, b=1.001)), (64,), 1.0),
}


@pytest.mark.parametrize("name", PANELS)
def test_every_law_can_be_drawn(tmp_path, name):
    law, shape, value = PANELS[name]
    histogram = plot.LawHistogram(described(law, shape, BFLOAT16))
    histogram.names.append("w")
    histogram.add(np.full(shape, value, ml_dtypes.bfloat16))
    plot.draw([histogram], tmp_path / "w.svg", "w", "a subtitle")
    assert b"</svg>" in (tmp_path / "w.svg").read_bytes()


def test_a_figure_of_many_laws_is_drawn(tmp_path):
    histograms = []
    for std in range(1, 16):
        histograms.append(plot.LawHistogram(described(Law(normal=Normal(mean=0, std=std)), (10 * std,))))
        histograms[-1].names.append(f"tensor {std}")
        histograms[-1].add(np.zeros(10 * std))
    plot.draw(histograms, tmp_path / "w.png", "model")
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")


def test_another_image_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        plot.draw([], tmp_path / "w.gif", "w")


@pytest.mark.parametrize(
    "arguments",
    [
        ("uniform", "--a", "0", "--b", "1e300"),
        ("normal", "--mean", "3.4e38", "--std", "1e-45"),
        ("normal", "--std", "1e300"),
        ("trunc_normal", "--std", "5e-324"),
    ],
)
def test_a_law_that_float64_cannot_draw_is_refused(seedbed_command, tmp_path, arguments):
    path = tmp_path / "w.png"
    scheme, *parameters = arguments
    shape = ("--shape", "9,9", "--dtype", "float64")
    code, _, err = seedbed_command("plot", scheme, *shape, *parameters, "-o", path)
    assert code == 2
    assert "is too wide or too narrow to draw" in err
    assert not path.exists()
