"""Probabilities of the standard normal, correctly rounded to float64.

Because they are correctly rounded they do not depend on an algorithm: any computation with enough digits gives the same
bits. Ours has about 340 correct digits, by ``decimal``, and runs once for each truncated normal.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from functools import cache, lru_cache

_DIGITS = 400
_CUT = 40.0  # the probability beyond 40 standard deviations, 1e-350, is below the smallest float64


@lru_cache(maxsize=1024)
def interval_probabilities(alpha: float, beta: float) -> tuple[float, float, float]:
    """``(P(z < alpha), P(alpha < z < beta), P(z > beta))`` of a standard normal, each correctly rounded.

    >>> interval_probabilities(float("-inf"), 0.0)
    (0.0, 0.5, 0.5)
    >>> interval_probabilities(2.0, 3.0)
    (0.9772498680518208, 0.021400233916549112, 0.0013498980316300946)
    """
    with localcontext(Context(prec=_DIGITS)):
        below_alpha, below_beta = _cdf(alpha), _cdf(beta)
        return float(below_alpha), float(below_beta - below_alpha), float(1 - below_beta)


def _cdf(x: float) -> Decimal:
    if x <= -_CUT:
        return Decimal(0)
    if x >= _CUT:
        return Decimal(1)
    return Decimal("0.5") + _central_series(Decimal(x))


def _central_series(x: Decimal) -> Decimal:
    """The probability between 0 and x: density(x) * sum of x^(2n+1) / (2n+1)!!, whose terms have one sign."""
    square = x * x
    term = total = x
    odd = 1
    smallest = Decimal(10) ** -_DIGITS
    while abs(term) > smallest * abs(total):
        odd += 2
        term = term * square / odd
        total += term
    return (-square / 2).exp() / (2 * _pi()).sqrt() * total


@cache
def _pi() -> Decimal:
    """Pi, by the recipe in the documentation of ``decimal``."""
    with localcontext(Context(prec=_DIGITS + 10)):
        last, term, total, numerator, addend, divisor, step = (
            Decimal(0), Decimal(3), Decimal(3), 1, 0, 0, 24,
        )  # fmt: skip
        while total != last:
            last = total
            numerator, addend = numerator + addend, addend + 8
            divisor, step = divisor + step, step + 32
            term = (term * numerator) / divisor
            total += term
        return total
