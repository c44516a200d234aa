"""The algebra of laws: a function of a draw and of numbers that is a law again.

An affine map of a uniform, normal or truncated normal is one; the inverse error function of a uniform is a truncated
normal; a clamp at bounds that a law has already changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from seedbed._record.nodes import ELEMENTWISE, Draw

CLAMPS = ("clamp", "minimum", "maximum")

_SLACK = 2e-3
"""How far, in standard deviations, a bound that was computed in float32 may lie from the exact one."""

_FAR = 6.0
"""Standard deviations beyond which hardly any value of a normal lies."""


def folded(function: str, values: Sequence[float | None], draw: Draw, *, is_complex: bool) -> Draw | float | None:
    """The law of a function of a draw and numbers.

    Args:
        function: One of the contract's.
        values: Its operands; None stands for the draw.
        draw: The draw.
        is_complex: Whether it draws complex numbers; these can only be scaled.

    Returns:
        A draw, or a number if nothing random is left; None if the result follows none of our laws.
    """
    if function in AFFINE:
        factor, shift = AFFINE[function](values)
        is_finite = math.isfinite(factor) and math.isfinite(shift)
        return None if not is_finite or (is_complex and shift) else _affine(draw, factor, shift)
    if function == "clamp" and values[0] is not None:
        return None  # the draw is a bound
    if function in CLAMPS and draw.scheme in ("trunc_normal", "uniform"):
        return _clamped(draw, *_bounds(function, values))
    return None


def _other(values: Sequence[float | None]) -> float:
    return next(value for value in values if value is not None)


AFFINE: dict[str, Callable[[Sequence[float | None]], tuple[float, float]]] = {
    "negate": lambda v: (-1.0, 0.0),
    "add": lambda v: (1.0, _other(v)),
    "subtract": lambda v: (1.0, -_other(v)) if v[0] is None else (-1.0, _other(v)),
    "multiply": lambda v: (_other(v), 0.0),
    "divide": lambda v: (1 / _other(v), 0.0) if v[0] is None and _other(v) else (math.nan, 0.0),
}
"""The factor and the shift of the functions that are affine maps."""


def _affine(draw: Draw, factor: float, shift: float) -> Draw | float | None:
    """``factor * draw + shift``."""
    if factor == 0:
        return shift
    old, new = draw.parameters, {}
    if draw.scheme in ELEMENTWISE:
        moved = {name: old[name] * factor + shift for name in ("a", "b", "mean") if name in old}
        new = moved if factor > 0 or "a" not in moved else {**moved, "a": moved["b"], "b": moved["a"]}
    elif shift or factor < 0:
        return None
    for name in ("std", "gain", "radius"):
        if name in old:
            new[name] = old[name] * abs(factor)
    if not new:
        return None
    return dataclasses.replace(draw, parameters={**old, **new}, is_mirrored=draw.is_mirrored is not (factor < 0))


def of_erfinv(draw: Draw, erfinv: Callable[[float], float]) -> Draw | None:
    """The law of the inverse error function of a draw, by which older code truncates normals.

    Of a uniform on (p, q) it is a normal of variance 1/2 between erfinv(p) and erfinv(q).

    Args:
        draw: The draw.
        erfinv: The function; NaN outside of -1 .. 1.
    """
    if draw.scheme != "uniform":
        return None
    a, b = erfinv(draw.parameters["a"]), erfinv(draw.parameters["b"])
    if math.isnan(a) or math.isnan(b):
        return None
    parameters = {"mean": 0.0, "std": math.sqrt(0.5), "a": a, "b": b}
    return dataclasses.replace(draw, scheme="trunc_normal", parameters=parameters)


def _bounds(function: str, values: Sequence[float | None]) -> tuple[float, float]:
    if function == "clamp":
        return (-math.inf if values[1] is None else values[1]), (math.inf if values[2] is None else values[2])
    bound = _other(values)
    return (-math.inf, bound) if function == "minimum" else (bound, math.inf)


def _clamped(draw: Draw, low: float, high: float) -> Draw | None:
    """A law with bounds, clamped at bounds that it has already, but for rounding."""
    old = draw.parameters
    a, b = old["a"], old["b"]
    if draw.scheme == "uniform":
        return draw if low <= a and high >= b else None
    slack, far = _SLACK * old["std"], _FAR * old["std"]
    a_fits = low <= a + slack or (math.isinf(a) and low <= old["mean"] - far)
    b_fits = high >= b - slack or (math.isinf(b) and high >= old["mean"] + far)
    if not (a_fits and b_fits):
        return None
    a = low if abs(low - a) <= slack or math.isinf(a) else a
    b = high if abs(high - b) <= slack or math.isinf(b) else b
    return dataclasses.replace(draw, parameters={**old, "a": a, "b": b})
