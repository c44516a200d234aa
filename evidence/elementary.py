"""The errors of the functions of expressions, by mpmath, in ulp of float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from evidence.report import Result, Say
from evidence.sizes import Sizes
from seedbed_server.engine import functions

F64 = NDArray[np.float64]
Region = tuple[str, float, float]
"""("flat", a, b): evenly between a and b; ("log", a, b): ±2^e with e evenly between a and b; "log+": only 2^e."""

BITS = 160
"""Precision of mpmath, which keeps as many digits for numbers as small as 2^-1074."""

CLAIMED = 1.0
"""The claimed error of every function, at most, in ulp."""


def _erfinv(x: mpmath.mpf) -> mpmath.mpf:
    """The inverse error function by Halley's method, from the standard library's normal quantile.

    mpmath's own takes 1 - x at its working precision and is slow next to 1.
    """
    size = abs(x)
    if size < mpmath.mpf(2) ** -27:
        y = size * mpmath.sqrt(mpmath.pi) / 2
    else:
        y = mpmath.mpf(-NormalDist().inv_cdf(float((1 - size) / 2))) / mpmath.sqrt(2)
    for _ in range(20):
        # above 1/2 use the complement, so that no digits are lost
        excess = mpmath.erf(y) - size if size < 0.5 else (1 - size) - mpmath.erfc(y)
        step = excess * mpmath.exp(y * y) * mpmath.sqrt(mpmath.pi) / 2
        step /= 1 + y * step  # the second derivative of erf is -2y times the first
        y -= step
        if abs(step) <= mpmath.ldexp(abs(y), -BITS // 3):  # the remaining error is of the order of its cube
            return y if x > 0 else -y
    raise ArithmeticError(f"erfinv({x}) was not found")


EXACT: dict[str, Callable[..., Any]] = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "erf": mpmath.erf,
    "erfinv": _erfinv,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "power": lambda x, y: x**y,
}

_TINY: Region = ("log", -1074, -20)
_ANGLES: tuple[Region, ...] = (("flat", -10, 10), ("log", -1074, 10), ("log", 10, 24), ("log", 20, 1024))
REGIONS: dict[str, tuple[Region, ...]] = {
    "exp": (("flat", -1, 1), ("flat", -745.2, -700), ("flat", -700, 709.8), _TINY),
    "expm1": (("flat", -0.3, 0.3), ("flat", -2, 2), ("flat", -50, 50), ("flat", 50, 709.7), _TINY),
    "log": (("flat", 0.5, 2), ("flat", 0.99, 1.01), ("log+", -1074, 1024), ("log+", -1074, -1020)),
    "log1p": (("flat", -0.9999, 1), ("flat", -0.02, 0.02), ("log+", -10, 1023), _TINY),
    "sin": _ANGLES,
    "cos": _ANGLES,
    "tanh": (("flat", -0.3, 0.3), ("flat", -1, 1), ("flat", -25, 25), _TINY),
    "sigmoid": (("flat", -1, 1), ("flat", -45, 45), ("flat", -745, -700), ("flat", -750, 750), _TINY),
    "softplus": (("flat", -1, 1), ("flat", -45, 45), ("flat", -745, -700), ("flat", 30, 750), _TINY),
    "erf": (("flat", -0.55, 0.55), ("flat", 0.4, 1.6), ("flat", -6.2, 6.2), _TINY),
    "erfinv": (("flat", -1, 1), ("flat", 0.45, 0.7), ("flat", -0.5, 0.5), _TINY),
    "rsqrt": (("flat", 0.25, 4), ("log+", -1074, 1024), ("log+", -1074, -1020)),
}

_LARGEST, _SMALLEST, _SMALLEST_NORMAL = 1.7976931348623157e308, 5e-324, 2.0**-1022
_TURNS = [*(k * math.pi / 2 for k in (1, 2, 3, 355, 710, 1e5)), 2.0**20, 6381956970095103 * 2.0**797]
BORDERS: dict[str, Sequence[float]] = {
    "exp": [709.782712893384, -745.1332191019411, -708.3964185322641, *(k * math.log(2) / 256 for k in range(-9, 10))],
    "expm1": [0.25, -0.25, 50.0, -50.0, 709.782712893384],
    "log": [math.sqrt(0.5), 1.0, _SMALLEST_NORMAL, _SMALLEST, _LARGEST, *(2.0**k for k in range(-40, 41, 8))],
    "log1p": [-0.9999999999999999, 2.0**-53, -(2.0**-54), _LARGEST],
    "sin": _TURNS,
    "cos": _TURNS,
    "tanh": [0.25, -0.25, 19.06, 22.0, 25.0],
    "sigmoid": [-40.0, 36.7, -745.1],
    "softplus": [-40.0, -25.0, 36.7, 50.0],
    "erf": [*(k / 8 for k in range(1, 49, 2)), 0.5, 5.92, 6.0],
    "erfinv": [0.5, -0.5, *(1 - math.exp(-s * s) for s in (1.25, 1.75, 2.5, 3.5, 4.75)), 1 - 2.0**-53, 2.0**-52 - 1],
    "rsqrt": [2.0**-500, 2.0**500, _SMALLEST_NORMAL, _SMALLEST, _LARGEST],
}
"""Points where the formula changes or rounding is hardest; the floats on both sides are tested as well."""

_OPEN = {"log1p": (-1.0, math.inf), "erfinv": (-1.0, 1.0)}
"""The domains of functions that are not finite everywhere or above 0."""

_NEIGHBOURS = 4


def elementary(sizes: Sizes, say: Say) -> list[Result]:
    """The largest error of each function of expressions, and its argument."""
    rows = []
    for name in EXACT:
        arguments = inputs(name, sizes.sample)
        say(f"  {name}: {len(arguments[0])} inputs")
        got: F64 = getattr(functions, name)(*arguments)
        rows.append(row(name, arguments, got))
    return rows


def row(name: str, arguments: Sequence[F64], got: F64) -> Result:
    """A row of the report: the errors of these values of the function, by mpmath."""
    points = list(zip(*(a.tolist() for a in arguments), strict=True))
    with mpmath.workprec(BITS):
        errors = [ulps(y, EXACT[name](*map(mpmath.mpf, x))) for x, y in zip(points, got.tolist(), strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    return {
        "function": name,
        "inputs": len(errors),
        "largest_ulp": errors[worst],
        "at": [x.hex() for x in points[worst]],
        "not_nearest": sum(error > 0.5 for error in errors) / len(errors),
        "claimed_ulp": CLAIMED,
    }


def ulps(got: float, exact: mpmath.mpf) -> float:
    """The error in units of the last place of a float64 at the exact value.

    >>> ulps(1.0, mpmath.mpf(1) + mpmath.mpf(2) ** -52)
    1.0
    """
    if abs(exact) >= mpmath.mpf(2) ** 1024 - mpmath.mpf(2) ** 970:  # rounds to infinity
        return 0.0 if math.isinf(got) and (got > 0) == (exact > 0) else math.inf
    if not math.isfinite(got):
        return math.inf
    exponent = max(int(mpmath.frexp(abs(exact))[1]) - 53, -1074) if exact else -1074
    return float(mpmath.ldexp(abs(mpmath.mpf(got) - exact), -exponent))


def inputs(name: str, count: int) -> list[F64]:
    """Random arguments in the regions of a function, in equal shares, and all near its borders."""
    rng = np.random.default_rng([7, *name.encode()])
    if name == "power":
        return _pairs(rng, count)
    share = -(-count // len(REGIONS[name]))
    near = _near(BORDERS[name])
    if name in _OPEN:
        near = near[(near > _OPEN[name][0]) & (near < _OPEN[name][1])]
    return [np.concatenate([near, *(_drawn(rng, region, share) for region in REGIONS[name])])]


def _drawn(rng: np.random.Generator, region: Region, count: int) -> F64:
    kind, low, high = region
    drawn = rng.uniform(low, high, count)
    if kind == "flat":
        return drawn
    signs = rng.choice([-1.0, 1.0], count) if kind == "log" else 1.0
    found: F64 = signs * np.exp2(drawn)
    return found


def _near(borders: Sequence[float]) -> F64:
    """Each border and its nearest neighbours on both sides, if they are finite and on the same side of 0."""
    found = set()
    for border in borders:
        for end in (-math.inf, math.inf):
            x = border
            for _ in range(_NEIGHBOURS + 1):
                if math.isfinite(x) and x * border > 0:
                    found.add(x)
                x = math.nextafter(x, end)
    return np.array(sorted(found))


def _pairs(rng: np.random.Generator, count: int) -> list[F64]:
    """Bases and exponents: results over the whole range, bases near 1, ordinary ones, and integral exponents."""
    share = -(-count // 5)
    wide = [np.exp2(rng.uniform(-1074, 1024, share)) for _ in range(2)]
    near = 1 + rng.choice([-0.5, 1.0], share) * np.exp2(rng.uniform(-52, -5, share))
    x = [*wide, near, rng.uniform(0.1, 9, share), rng.choice([-1.0, 1.0], share) * rng.uniform(0.1, 9, share)]
    y = [rng.uniform(-745, 709, share) / np.log(wide[0]), rng.uniform(-1, 1, share)]
    y += [np.exp2(rng.uniform(-3, 40, share)) * np.sign(rng.uniform(-1, 1, share))]
    y += [rng.uniform(-50, 50, share), rng.integers(-99, 100, share).astype(np.float64)]
    return [np.concatenate(x), np.concatenate(y)]
