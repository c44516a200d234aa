"""The laws of schemes, against torch.nn.init and jax.nn.initializers."""

from __future__ import annotations

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch

from seedbed.v1 import (
    Axes,
    BoundsUnit,
    Constant,
    DataType,
    Dirac,
    Distribution,
    Eye,
    FanMode,
    Kaiming,
    Nonlinearity,
    Normal,
    Ones,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
    Xavier,
    Zeros,
)
from seedbed_server import engine

from .conftest import sample

SHAPES = [(3, 5), (1, 1), (64, 3, 7), (16, 8, 3, 3), (2, 3, 4, 5, 6), (50257, 768)]
GAINS = [0.5, 1.0, math.sqrt(2), 5 / 3, 1e-3]
NAMES = [name.removeprefix("NONLINEARITY_").lower() for name in Nonlinearity.keys()[1:]]
SLOPES = [0, 0.01, 0.2, 1, -1, math.sqrt(5), 100.0]


def torch_parameters(initialiser, shape, **arguments) -> tuple[float, float]:
    """The bounds, or mean and std, with which torch would fill the tensor."""
    fill = mock.Mock()
    with mock.patch.multiple(torch.Tensor, uniform_=fill, normal_=fill):
        initialiser(torch.empty(shape, device="meta"), **arguments)
    return fill.call_args.args


def law(**scheme):
    return engine.describe(TensorSpec(**scheme)).law


def within_an_ulp(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) <= math.ulp(theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slope", [None, *SLOPES])
def test_calculate_gain(name: str, slope: float | None) -> None:
    ours = engine.calculate_gain(Nonlinearity.Value(f"NONLINEARITY_{name.upper()}"), slope)
    theirs = torch.nn.init.calculate_gain("linear" if name == "identity" else name, slope)
    assert within_an_ulp(ours, float(theirs))


@pytest.mark.parametrize(("shape", "gain"), list(itertools.product(SHAPES, GAINS)))
def test_xavier(shape, gain) -> None:
    a, b = torch_parameters(torch.nn.init.xavier_uniform_, shape, gain=gain)
    ours = law(shape=shape, xavier_uniform=Xavier(gain=gain)).uniform
    assert within_an_ulp(ours.a, a)
    assert within_an_ulp(ours.b, b)
    mean, std = torch_parameters(torch.nn.init.xavier_normal_, shape, gain=gain)
    ours = law(shape=shape, xavier_normal=Xavier(gain=gain)).normal
    assert ours.mean == mean
    assert within_an_ulp(ours.std, std)


@pytest.mark.parametrize(("shape", "mode", "name"), list(itertools.product(SHAPES, ["fan_in", "fan_out"], NAMES)))
def test_kaiming(shape, mode, name) -> None:
    for slope in SLOPES if name == "leaky_relu" else [0]:
        scheme = Kaiming(a=slope, mode=f"FAN_MODE_{mode.upper()}", nonlinearity=f"NONLINEARITY_{name.upper()}")
        arguments = {"a": slope, "mode": mode, "nonlinearity": "linear" if name == "identity" else name}
        a, b = torch_parameters(torch.nn.init.kaiming_uniform_, shape, **arguments)
        ours = law(shape=shape, kaiming_uniform=scheme).uniform
        assert within_an_ulp(ours.a, a)
        assert within_an_ulp(ours.b, b)
        _, std = torch_parameters(torch.nn.init.kaiming_normal_, shape, **arguments)
        assert within_an_ulp(law(shape=shape, kaiming_normal=scheme).normal.std, std)


def test_an_explicit_gain_replaces_that_of_the_nonlinearity() -> None:
    relu = Kaiming(nonlinearity=Nonlinearity.NONLINEARITY_RELU, gain=3.0)
    description = engine.describe(TensorSpec(shape=[2, 9], kaiming_normal=relu))
    assert (description.law.normal.std, description.gain) == (1.0, 3.0)


def test_fans_come_from_the_global_shape() -> None:
    spec = TensorSpec(shape=[64, 3, 7, 7], xavier_normal=Xavier())
    from seedbed.v1 import Region

    part = engine.describe(spec, Region(start=[0, 0, 0, 0], stop=[1, 1, 7, 7]))
    assert (part.fan_in, part.fan_out) == (147, 3136)
    assert part.law == engine.describe(spec).law


TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def equal_to_torch(ours: np.ndarray, theirs) -> bool:
    return np.array_equal(ours.astype(np.float64), theirs.to(torch.float64).numpy())


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3), (4, 1, 2), ()])
def test_constants_equal_torchs(shape, dtype, backend) -> None:
    data_type = DataType.Value(f"DATA_TYPE_{dtype.upper()}")
    tensor = torch.empty(shape, dtype=TORCH_DTYPES[dtype])
    for value in (0.1, -3.25, 1e-3, 60000.0):
        ours = sample(backend, TensorSpec(shape=shape, dtype=data_type, constant=Constant(val=value)))
        assert equal_to_torch(ours, torch.nn.init.constant_(tensor, value))
    assert equal_to_torch(
        sample(backend, TensorSpec(shape=shape, dtype=data_type, ones=Ones())), torch.nn.init.ones_(tensor)
    )
    assert equal_to_torch(
        sample(backend, TensorSpec(shape=shape, dtype=data_type, zeros=Zeros())), torch.nn.init.zeros_(tensor)
    )


@pytest.mark.parametrize("shape", list(itertools.product([0, 1, 2, 5, 8], repeat=2)))
def test_eye_equals_torchs(shape, backend) -> None:
    assert equal_to_torch(sample(backend, TensorSpec(shape=shape, eye=Eye())), torch.nn.init.eye_(torch.empty(shape)))


@pytest.mark.parametrize("kernel", [(1,), (3,), (4,), (2, 3), (4, 5), (1, 2, 3)])
@pytest.mark.parametrize(("out", "groups"), [(1, 1), (4, 1), (4, 2), (4, 4), (6, 3), (12, 2)])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_dirac_equals_torchs(out, channels, kernel, groups, backend) -> None:
    shape = (out, channels, *kernel)
    ours = sample(backend, TensorSpec(shape=shape, dirac=Dirac(groups=groups)), chunk=7)
    assert equal_to_torch(ours, torch.nn.init.dirac_(torch.empty(shape), groups))


# variance_scaling, against the formulas of jax/_src/nn/initializers.py.

JAX_CASES = [
    ((3, 5), -2, -1, ()), ((7, 7, 3, 64), -2, -1, ()), ((64, 3, 7, 7), 1, 0, ()), ((4, 3, 5), -2, -1, (0,)),
    ((2, 3, 4, 5), (0, 1), (2, 3), ()), ((2, 3, 4, 5), (0, -1), 1, ()), ((7,), (), 0, ()),
]  # fmt: skip


def axes(value) -> Axes:
    return Axes(axes=value if isinstance(value, tuple) else (value,))


def jax_variance(shape, in_axis, out_axis, batch_axis, mode, scale) -> float:
    """`_compute_fans` and `variance_scaling`."""
    in_size, out_size, batch_size = (
        math.prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))
        for axis in (in_axis, out_axis, batch_axis)
    )
    receptive_field_size = math.prod(shape) / in_size / out_size / batch_size
    fan_in, fan_out = in_size * receptive_field_size, out_size * receptive_field_size
    return scale / {
        "fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2,
        "fan_geo_avg": (fan_in * fan_out) ** 0.5,
    }[mode]  # fmt: skip


@pytest.mark.parametrize(("shape", "in_axis", "out_axis", "batch_axis"), JAX_CASES)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"])
def test_variance_scaling(shape, in_axis, out_axis, batch_axis, mode) -> None:
    def scaled(distribution, scale=2.0, gain=1.0):
        return law(
            shape=shape,
            variance_scaling=VarianceScaling(
                scale=scale, mode=f"FAN_MODE_{mode.upper()}", distribution=f"DISTRIBUTION_{distribution}",
                in_axis=axes(in_axis), out_axis=axes(out_axis), batch_axis=axes(batch_axis), gain=gain,
            ),
        )  # fmt: skip

    variance = jax_variance(shape, in_axis, out_axis, batch_axis, mode, 2.0)
    assert scaled("NORMAL").normal.std == pytest.approx(math.sqrt(variance), rel=1e-15)
    assert scaled("UNIFORM").uniform.b == pytest.approx(math.sqrt(3 * variance), rel=1e-15)
    trunc = scaled("TRUNCATED_NORMAL").trunc_normal
    assert trunc.std == pytest.approx(math.sqrt(variance) / 0.87962566103423978, rel=1e-15)
    assert (trunc.a, trunc.b) == (-2 * trunc.std, 2 * trunc.std)
    assert scaled("NORMAL", gain=0.5).normal.std == pytest.approx(0.5 * math.sqrt(variance), rel=1e-15)


def test_bounds_in_sigma_are_relative_to_the_mean() -> None:
    trunc = law(
        shape=[3], trunc_normal=TruncNormal(mean=1.0, std=0.5, a=-2, b=3, bounds=BoundsUnit.BOUNDS_UNIT_SIGMA)
    ).trunc_normal
    assert (trunc.mean, trunc.std, trunc.a, trunc.b) == (1.0, 0.5, 0.0, 2.5)


@pytest.mark.parametrize(
    ("scheme", "value"),
    [
        ({"uniform": Uniform(a=2.0, b=2.0)}, 2.0),
        ({"normal": Normal(mean=3.0, std=0.0)}, 3.0),
        ({"trunc_normal": TruncNormal(mean=5.0, std=0.0)}, 2.0),
        ({"trunc_normal": TruncNormal(a=1.0, b=1.0)}, 1.0),
        ({"xavier_uniform": Xavier(gain=0.0)}, 0.0),
        ({"variance_scaling": VarianceScaling(scale=0.0, distribution=Distribution.DISTRIBUTION_NORMAL)}, 0.0),
    ],
)
def test_a_spread_of_0_is_a_constant(scheme, value) -> None:
    assert law(shape=[3, 3], **scheme).constant.val == value


@pytest.mark.parametrize("shape", [(0, 0), (3, 3, 0), (0, 5)])
@pytest.mark.parametrize("scheme", ["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"])
def test_empty_tensors_are_empty_where_torch_divides_by_zero(shape, scheme, backend) -> None:
    message = Xavier() if "xavier" in scheme else Kaiming(mode=FanMode.FAN_MODE_FAN_OUT)
    assert sample(backend, TensorSpec(shape=shape, **{scheme: message})).shape == shape
