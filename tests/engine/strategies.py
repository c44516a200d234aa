"""Hypothesis strategies: any tensor that can be served, and any region of it."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from seedbed.v1 import (
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
    Orthogonal,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
    Xavier,
    Zeros,
)

dtypes = st.sampled_from(DataType.values()[1:])
numbers = st.floats(-100, 100, allow_nan=False)
gains = st.floats(0, 10)
kaiming = st.builds(
    Kaiming,
    a=numbers,
    mode=st.sampled_from([FanMode.FAN_MODE_FAN_IN, FanMode.FAN_MODE_FAN_OUT]),
    nonlinearity=st.sampled_from(Nonlinearity.values()[1:]),
)
bounds = st.tuples(numbers, numbers).map(sorted).filter(lambda pair: pair[1] - pair[0] > 0.5)


def _trunc_normal(pair: list[float], std: float, sigma: bool) -> TruncNormal:
    if sigma:
        return TruncNormal(mean=1.0, std=std, a=-1.5, b=0.5, bounds=BoundsUnit.BOUNDS_UNIT_SIGMA)
    return TruncNormal(mean=sum(pair) / 2, std=std, a=pair[0], b=pair[1])


def _schemes(shape: tuple[int, ...]) -> list[st.SearchStrategy[dict]]:
    """What can be asked of a shape, as keyword arguments of TensorSpec."""
    elementwise = {
        "ones": st.builds(Ones),
        "zeros": st.builds(Zeros),
        "constant": st.builds(Constant, val=numbers),
        "uniform": bounds.map(lambda pair: Uniform(a=pair[0], b=pair[1])),
        "normal": st.builds(Normal, mean=numbers, std=gains),
        "trunc_normal": st.builds(_trunc_normal, bounds, st.floats(0.1, 10), st.booleans()),
    }
    if len(shape) >= 2:
        elementwise |= {
            "xavier_uniform": st.builds(Xavier, gain=gains.filter(lambda gain: gain == 0 or gain > 0.01)),
            "xavier_normal": st.builds(Xavier, gain=gains),
            "kaiming_uniform": kaiming,
            "kaiming_normal": kaiming,
            "orthogonal": st.builds(Orthogonal, gain=gains),
            "variance_scaling": st.builds(
                VarianceScaling,
                scale=st.floats(0.01, 10),
                mode=st.sampled_from(FanMode.values()[1:]),
                distribution=st.sampled_from(Distribution.values()[1:]),
            ),
        }
    if len(shape) == 2:
        elementwise |= {"eye": st.builds(Eye), "sparse": st.builds(Sparse, sparsity=st.floats(0, 1), std=gains)}
    if len(shape) in (3, 4, 5):
        groups = [n for n in range(1, shape[0] + 1) if shape[0] % n == 0] or [1]
        elementwise["dirac"] = st.builds(Dirac, groups=st.sampled_from(groups))
    return [parameters.map(lambda message, name=name: {name: message}) for name, parameters in elementwise.items()]


@st.composite
def specs(draw: st.DrawFn, most_elements: int = 3000) -> TensorSpec:
    """Any tensor of a few elements."""
    shape = draw(
        st.lists(st.integers(0, 40), max_size=5).map(tuple).filter(lambda shape: math.prod(shape) <= most_elements)
    )
    return TensorSpec(
        name=draw(st.text(max_size=8)),
        shape=shape,
        dtype=draw(dtypes),
        seed=draw(st.integers(0, 2**64 - 1)),
        **draw(st.one_of(_schemes(shape))),
    )


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Any region of a shape, as (start, stop)."""
    pairs = [sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in shape]
    return [start for start, _ in pairs], [stop for _, stop in pairs]


@st.composite
def specs_with_regions(draw: st.DrawFn) -> tuple[TensorSpec, tuple[list[int], list[int]]]:
    spec = draw(specs())
    return spec, draw(regions(tuple(spec.shape)))
