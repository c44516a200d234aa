"""The parameters that schemes resolve to, against mpmath: std and bounds in float64, from fans and gains."""

from __future__ import annotations

import math

import mpmath
import numpy as np

from evidence.reference import DIGITS
from evidence.report import Result, Say
from evidence.sizes import Sizes
from seedbed.v1 import (
    Distribution,
    FanMode,
    Kaiming,
    Nonlinearity,
    TensorSpec,
    VarianceScaling,
    Xavier,
)
from seedbed_server import engine

_FANS = (FanMode.FAN_MODE_FAN_IN, FanMode.FAN_MODE_FAN_OUT)
_OTHER_FANS = (FanMode.FAN_MODE_FAN_AVG, FanMode.FAN_MODE_FAN_GEO_AVG)


def parameters(sizes: Sizes, say: Say) -> list[Result]:
    """The largest error of each scheme's std or bound, over random shapes, gains and slopes."""
    say(f"  parameters of schemes: {sizes.tensors} tensors each")
    rng = np.random.default_rng(6)
    rows = []
    for scheme in ("xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform", "variance_scaling"):
        errors = [_error(scheme, rng) for _ in range(sizes.tensors)]
        rows.append({"scheme": scheme, "tensors": len(errors), "largest_ulp": max(errors)})
    return rows


def _error(scheme: str, rng: np.random.Generator) -> float:
    """The error of one random tensor's parameter, in float64 ulp."""
    shape = [int(2 ** rng.uniform(0, 16)) for _ in range(2)] + [int(rng.integers(1, 8))] * int(rng.integers(0, 4))
    receptive = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * receptive, shape[0] * receptive
    gain = float(rng.uniform(0.1, 3))
    spec = TensorSpec(shape=shape)
    with mpmath.workdps(DIGITS):
        if scheme.startswith("xavier"):
            getattr(spec, scheme).CopyFrom(Xavier(gain=gain))
            std = gain * mpmath.sqrt(mpmath.mpf(2) / (fan_in + fan_out))
        elif scheme.startswith("kaiming"):
            slope, mode = float(rng.uniform(0, 2)), int(rng.choice(_FANS))
            message = Kaiming(a=slope, mode=mode, nonlinearity=Nonlinearity.NONLINEARITY_LEAKY_RELU)  # type: ignore[arg-type]
            getattr(spec, scheme).CopyFrom(message)
            fan = fan_in if mode == FanMode.FAN_MODE_FAN_IN else fan_out
            std = mpmath.sqrt(2 / (1 + mpmath.mpf(slope) ** 2) / fan)
        else:
            std = _variance_scaling(spec, shape, gain, rng)
        law = engine.describe(spec).law
        kind = law.WhichOneof("law")
        assert kind is not None
        got = law.uniform.b if kind == "uniform" else getattr(law, kind).std
        exact = std * mpmath.sqrt(3) if kind == "uniform" else std
        return float(abs(mpmath.mpf(got) - exact)) / math.ulp(float(exact))


def _variance_scaling(spec: TensorSpec, shape: list[int], gain: float, rng: np.random.Generator) -> mpmath.mpf:
    scale, mode = float(rng.uniform(0.1, 3)), rng.choice(_FANS + _OTHER_FANS)
    distribution = int(rng.choice(Distribution.values()[1:]))
    spec.variance_scaling.CopyFrom(
        VarianceScaling(scale=scale, mode=mode, distribution=distribution, gain=gain)  # type: ignore[arg-type]
    )
    receptive = math.prod(shape[:-2])
    fan_in, fan_out = shape[-2] * receptive, shape[-1] * receptive
    fan: mpmath.mpf = {
        FanMode.FAN_MODE_FAN_IN: mpmath.mpf(fan_in),
        FanMode.FAN_MODE_FAN_OUT: mpmath.mpf(fan_out),
        FanMode.FAN_MODE_FAN_AVG: mpmath.mpf(fan_in + fan_out) / 2,
        FanMode.FAN_MODE_FAN_GEO_AVG: mpmath.sqrt(mpmath.mpf(fan_in) * fan_out),
    }[mode]
    std = gain * mpmath.sqrt(scale / fan)
    if distribution != Distribution.DISTRIBUTION_TRUNCATED_NORMAL:
        return std
    # the standard deviation of a standard normal cut at ±2
    cut = mpmath.sqrt(1 - 4 * mpmath.npdf(2) / mpmath.erf(mpmath.sqrt(2)))
    return std / cut
