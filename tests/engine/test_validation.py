"""Every request that cannot be served is refused by name, before any work."""

from __future__ import annotations

import math

import pytest

from seedbed.v1 import (
    Axes,
    Constant,
    DataType,
    Dirac,
    Eye,
    Kaiming,
    Normal,
    Ones,
    Orthogonal,
    Patch,
    Region,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
    Xavier,
    Zeros,
)
from seedbed_server import engine

HALF = DataType.DATA_TYPE_FLOAT16
NAN, INF = math.nan, math.inf


def _patch(start: list[int], stop: list[int], val: float = 0.0) -> Patch:
    return Patch(region=Region(start=start, stop=stop), val=val)


def tensor(shape=(4, 6), **fields) -> TensorSpec:
    return TensorSpec(shape=shape, **fields)


# (spec, field that the error names, a part of its text)
REFUSED = {
    "no scheme": (tensor(), "spec.scheme", "no scheme is set"),
    "negative dimension": (tensor((3, -1), ones=Ones()), "spec.shape[1]", "-1 is negative"),
    "65 dimensions": (tensor([1] * 65, ones=Ones()), "spec.shape", "65 dimensions are over the limit of 64"),
    "too many elements": (tensor((2**32, 2**31), ones=Ones()), "spec.shape", "2^63 - 1 elements"),
    "too many bytes": (tensor((2**61,), ones=Ones()), "spec.shape", "2^63 - 1 bytes"),
    "too many, but for a 0": (tensor((0, 2**62, 4), ones=Ones()), "spec.shape", "2^63 - 1 elements"),
    "unknown dtype": (tensor(dtype=9, ones=Ones()), "spec.dtype", "unknown dtype 9"),
    "unknown version": (tensor(algorithm_version=2, ones=Ones()), "spec.algorithm_version", "version 2"),
    "unknown nonlinearity": (
        tensor(kaiming_normal=Kaiming(nonlinearity=99)), "spec.kaiming_normal.nonlinearity",
        "Unsupported nonlinearity 99; use one of linear, identity",
    ),
    "unknown mode": (tensor(kaiming_uniform=Kaiming(mode=99)), "spec.kaiming_uniform.mode", "Mode 99 not supported"),
    "mode of variance_scaling": (
        tensor(kaiming_uniform=Kaiming(mode="FAN_MODE_FAN_AVG")), "spec.kaiming_uniform.mode",
        "Mode fan_avg not supported, please use one of ['fan_in', 'fan_out']",
    ),
    "unknown scaling mode": (
        tensor(variance_scaling=VarianceScaling(mode=99)), "spec.variance_scaling.mode", "Mode 99 not supported"
    ),
    "unknown distribution": (
        tensor(variance_scaling=VarianceScaling(distribution=99)), "spec.variance_scaling.distribution", "99"
    ),
    "unknown unit": (tensor(trunc_normal=TruncNormal(bounds=9)), "spec.trunc_normal.bounds", "9 is not a known unit"),
    "nan constant": (tensor(constant=Constant(val=NAN)), "spec.constant.val", "nan is not finite"),
    "infinite bound": (tensor(uniform=Uniform(b=INF)), "spec.uniform.b", "inf is not finite"),
    "nan mean": (tensor(normal=Normal(mean=NAN)), "spec.normal.mean", "nan is not finite"),
    "infinite std": (tensor(trunc_normal=TruncNormal(std=INF)), "spec.trunc_normal.std", "inf is not finite"),
    "nan gain": (tensor(xavier_normal=Xavier(gain=NAN)), "spec.xavier_normal.gain", "nan is not finite"),
    "nan slope": (tensor(kaiming_normal=Kaiming(a=NAN)), "spec.kaiming_normal.a", "nan is not finite"),
    "nan sparsity": (tensor(sparse=Sparse(sparsity=NAN)), "spec.sparse.sparsity", "nan is not finite"),
    "a > b": (tensor(uniform=Uniform(a=2.0, b=1.0)), "spec.uniform.a", "found a=2.0 > b=1.0"),
    "a > b, truncated": (tensor(trunc_normal=TruncNormal(a=3.0)), "spec.trunc_normal.a", "found a=3.0 > b=2.0"),
    "negative std": (tensor(normal=Normal(std=-1.0)), "spec.normal.std", "-1.0 is negative"),
    "negative std, truncated": (tensor(trunc_normal=TruncNormal(std=-1.0)), "spec.trunc_normal.std", "is negative"),
    "negative std, sparse": (tensor(sparse=Sparse(std=-1.0)), "spec.sparse.std", "-1.0 is negative"),
    "negative gain": (tensor(xavier_uniform=Xavier(gain=-1.0)), "spec.xavier_uniform.gain", "-1.0 is negative"),
    "negative gain, kaiming": (tensor(kaiming_normal=Kaiming(gain=-1.0)), "spec.kaiming_normal.gain", "negative"),
    "negative gain, orthogonal": (tensor(orthogonal=Orthogonal(gain=-1.0)), "spec.orthogonal.gain", "negative"),
    "negative scale": (tensor(variance_scaling=VarianceScaling(scale=-1.0)), "spec.variance_scaling.scale", "negative"),
    "sparsity over 1": (tensor(sparse=Sparse(sparsity=1.1)), "spec.sparse.sparsity", "1.1 is not a fraction"),
    "sparsity under 0": (tensor(sparse=Sparse(sparsity=-0.1)), "spec.sparse.sparsity", "-0.1 is not a fraction"),
    "no groups": (tensor((4, 2, 3), dirac=Dirac(groups=0)), "spec.dirac.groups", "0 is less than 1"),
    "negative groups": (tensor((4, 2, 3), dirac=Dirac(groups=-1)), "spec.dirac.groups", "-1 is less than 1"),
    "groups that do not divide": (
        tensor((4, 2, 3), dirac=Dirac(groups=3)), "spec.dirac.groups", "dim 0 must be divisible by groups"
    ),
    "fans of 1 dimension": (
        tensor((3,), xavier_normal=Xavier()), "spec.shape",
        "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions",
    ),
    "fans of a scalar": (tensor((), kaiming_normal=Kaiming()), "spec.shape", "fewer than 2 dimensions"),
    "scaling fans of 1 dimension": (tensor((3,), variance_scaling=VarianceScaling()), "spec.shape", "1 dimensions"),
    "an axis outside": (
        tensor(variance_scaling=VarianceScaling(in_axis=Axes(axes=[2]))), "spec.variance_scaling.in_axis", "axis 2"
    ),
    "an axis twice": (
        tensor(variance_scaling=VarianceScaling(in_axis=Axes(axes=[-1]))), "spec.variance_scaling.out_axis", "twice"
    ),
    "eye of 3 dimensions": (tensor((2, 2, 2), eye=Eye()), "spec.shape", "Only tensors with 2 dimensions"),
    "sparse of 1 dimension": (tensor((2,), sparse=Sparse()), "spec.shape", "Only tensors with 2 dimensions"),
    "dirac of 2 dimensions": (tensor((2, 2), dirac=Dirac()), "spec.shape", "Only tensors with 3, 4, or 5 dimensions"),
    "orthogonal of 1 dimension": (
        tensor((5,), orthogonal=Orthogonal()), "spec.shape", "Only tensors with 2 or more dimensions"
    ),
    "orthogonal too large": (tensor((8192, 8192), orthogonal=Orthogonal()), "spec.shape", "over orthogonal's limit"),
    "a patch of no part": (
        tensor(zeros=Zeros(), patches=[Patch(val=1.0)]), "spec.patches[0].region", "is missing; set the part"
    ),
    "a patch outside": (
        tensor((2, 2), zeros=Zeros(), patches=[_patch([0, 0], [1, 1]), _patch([0, 0], [2, 3])]),
        "spec.patches[1].region.stop[1]", "3 is outside the dimension's size 2",
    ),
    "a patch of another rank": (
        tensor((2, 2), zeros=Zeros(), patches=[_patch([0], [1])]), "spec.patches[0].region.start", "has 1 dimensions"
    ),
    "a patch of nan": (
        tensor((2,), zeros=Zeros(), patches=[_patch([0], [1], NAN)]), "spec.patches[0].val", "nan is not finite"
    ),
    "a patch beyond half": (
        tensor((2,), dtype=HALF, zeros=Zeros(), patches=[_patch([0], [1], 1e6)]), "spec.patches[0].val", "65504.0"
    ),
    "too many patches": (
        tensor((2,), zeros=Zeros(), patches=[_patch([0], [1])] * 1025), "spec.patches", "1025 are over the limit"
    ),
    "constant beyond half": (tensor(dtype=HALF, constant=Constant(val=1e6)), "spec.constant", "beyond 65504.0"),
    "bound beyond half": (tensor(dtype=HALF, uniform=Uniform(b=1e6)), "spec.uniform", "beyond 65504.0"),
    "trunc bound beyond half": (tensor(dtype=HALF, trunc_normal=TruncNormal(b=1e6)), "spec.trunc_normal", "65504.0"),
    "normal beyond half": (tensor(dtype=HALF, normal=Normal(std=2e4)), "spec.normal", "beyond 65504.0"),
    "width beyond float": (tensor(uniform=Uniform(a=-3e38, b=3e38)), "spec.uniform", "the width b - a"),
    "no value between": (
        tensor(dtype=HALF, uniform=Uniform(a=1.0001, b=1.0002)), "spec.uniform", "no float16 lies between"
    ),
    "bounds too far": (tensor(trunc_normal=TruncNormal(std=0.002, a=1.0)), "spec.trunc_normal", "never within"),
    "infinite by its gain": (tensor(xavier_uniform=Xavier(gain=1e308)), "spec.xavier_uniform", "beyond"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    spec, field, text = REFUSED[name]
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(spec)
    assert refusal.value.field == field
    assert text in refusal.value.description
    assert str(refusal.value) == f"{field}: {refusal.value.description}"


def test_a_prefix_tells_tensors_of_a_model_apart() -> None:
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(tensor(normal=Normal(std=-1.0)), prefix="tensors[3].")
    assert refusal.value.field == "tensors[3].spec.normal.std"


REGIONS = {
    "another rank": (Region(start=[0], stop=[4]), "region.start", "has 1 dimensions, the shape has 2"),
    "no stop": (Region(start=[0, 0]), "region.stop", "has 0 dimensions"),
    "empty message": (Region(), "region.start", "has 0 dimensions"),
    "reversed": (Region(start=[3, 0], stop=[1, 6]), "region.start[0]", "start 3 is after stop 1"),
    "negative": (Region(start=[0, -1], stop=[1, 6]), "region.start[1]", "-1 is negative"),
    "outside": (Region(start=[0, 0], stop=[4, 7]), "region.stop[1]", "7 is outside the dimension's size 6"),
}


@pytest.mark.parametrize("name", REGIONS)
def test_refused_regions(name: str) -> None:
    region, field, text = REGIONS[name]
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(tensor(normal=Normal()), region)
    assert refusal.value.field == field
    assert text in refusal.value.description


@pytest.mark.parametrize(
    ("nonlinearity", "param", "text"), [(0, None, "Unsupported nonlinearity 0"), (12, NAN, "negative_slope nan")]
)
def test_refused_gains(nonlinearity, param, text) -> None:
    with pytest.raises(engine.InvalidSpec, match=text):
        engine.calculate_gain(nonlinearity, param)


@pytest.mark.parametrize(
    "spec",
    [
        tensor(()  , zeros=Zeros()),
        tensor((0,), normal=Normal()),
        tensor((0, 3), eye=Eye()),
        tensor((0, 1, 3), dirac=Dirac()),
        tensor((3, 0), sparse=Sparse(sparsity=0.5)),
        tensor((0, 3), orthogonal=Orthogonal()),
        tensor((2**62 - 1,), dtype=HALF, normal=Normal()),
        tensor([1] * 64, normal=Normal()),
        tensor(seed=2**64 - 1, normal=Normal()),
        tensor((5,), variance_scaling=VarianceScaling(in_axis=Axes(), out_axis=Axes(axes=[0]))),
    ],
    ids=str,
)  # fmt: skip
def test_served(spec: TensorSpec) -> None:
    description = engine.describe(spec)
    assert description.spec.algorithm_version == 1
    assert description.element_count == math.prod(spec.shape)


def test_backends_that_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="there is no 'tpu'; use one of auto, numpy, numba, cupy"):
        engine.open_backend("tpu")
    with pytest.raises(ValueError, match="threads: 0 is less than 1"):
        engine.open_backend("numpy", 0)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDBED_BACKEND", "numpy")
    monkeypatch.setenv("SEEDBED_THREADS", "3")
    backend = engine.open_backend()
    assert (backend.name, backend.threads) == ("numpy", 3)
    monkeypatch.setenv("SEEDBED_THREADS", "many")
    with pytest.raises(ValueError, match="SEEDBED_THREADS: 'many' is not a number"):
        engine.open_backend()
