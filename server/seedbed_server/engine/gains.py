"""The gain of each nonlinearity."""

from __future__ import annotations

import math

from seedbed.v1 import NONLINEARITY_LEAKY_RELU, NONLINEARITY_RELU, NONLINEARITY_SELU, NONLINEARITY_TANH, Nonlinearity

from .errors import InvalidSpec

_LINEAR = {
    Nonlinearity.NONLINEARITY_LINEAR,
    Nonlinearity.NONLINEARITY_IDENTITY,
    Nonlinearity.NONLINEARITY_CONV1D,
    Nonlinearity.NONLINEARITY_CONV2D,
    Nonlinearity.NONLINEARITY_CONV3D,
    Nonlinearity.NONLINEARITY_CONV_TRANSPOSE1D,
    Nonlinearity.NONLINEARITY_CONV_TRANSPOSE2D,
    Nonlinearity.NONLINEARITY_CONV_TRANSPOSE3D,
    Nonlinearity.NONLINEARITY_SIGMOID,
}


def nonlinearity_names() -> str:
    """All nonlinearities, as users write them, for error texts."""
    return ", ".join(name.removeprefix("NONLINEARITY_").lower() for name in Nonlinearity.keys()[1:])


def calculate_gain(nonlinearity: int, param: float | None = None, field: str = "nonlinearity") -> float:
    """The recommended gain of a nonlinearity, with the formulas of ``torch.nn.init.calculate_gain``.

    Args:
        nonlinearity: A ``Nonlinearity`` of the contract.
        param: The negative slope of leaky_relu, 0.01 by default; ignored for other nonlinearities.
        field: The field path that errors name.

    Raises:
        InvalidSpec: The nonlinearity is unknown, or the slope is not finite.

    >>> calculate_gain(Nonlinearity.NONLINEARITY_TANH)
    1.6666666666666667
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == NONLINEARITY_TANH:
        return 5.0 / 3
    if nonlinearity == NONLINEARITY_RELU:
        return math.sqrt(2.0)
    if nonlinearity == NONLINEARITY_LEAKY_RELU:
        return _leaky_relu_gain(0.01 if param is None else param, field)
    if nonlinearity == NONLINEARITY_SELU:
        return 3.0 / 4  # empirical; torch PR 50664
    raise InvalidSpec(field, f"Unsupported nonlinearity {nonlinearity}; use one of {nonlinearity_names()}")


def _leaky_relu_gain(slope: float, field: str) -> float:
    if not math.isfinite(slope):
        raise InvalidSpec(field, f"negative_slope {slope} not a valid number; give a finite number")
    return math.sqrt(2.0 / (1 + slope * slope))
