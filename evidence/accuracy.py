"""The errors of values, relative to the exact value of their law for the same words.

Errors are in ulp: the spacing, at the exact value, of the floats of the served type. Rounding to the type alone makes
up to 0.5. `UNIT` and NEAR_ZERO change the unit for truncated normals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import mpmath
import numpy as np
from numba import njit
from numpy.typing import NDArray

from evidence import double_double as dd
from evidence import kernels, reference
from evidence.report import Result, Say
from evidence.sizes import Sizes
from seedbed.v1 import DataType, Normal, TensorDescription, TensorSpec, TruncNormal, Uniform
from seedbed_server import engine
from seedbed_server.engine.constants import MIDDLE_FROM32
from seedbed_server.engine.normal_cdf import interval_probabilities
from seedbed_server.engine.parameters import (
    Parameters,
    TruncNormal32Parameters,
    TruncNormalParameters,
    parameters_of,
)

# ruff: noqa: ANN001, ANN202, ANN401 - Numba infers the types

FLOAT32, FLOAT16, BFLOAT16, FLOAT64 = (
    DataType.DATA_TYPE_FLOAT32,
    DataType.DATA_TYPE_FLOAT16,
    DataType.DATA_TYPE_BFLOAT16,
    DataType.DATA_TYPE_FLOAT64,
)
CHUNK = 1 << 20
RECHECKED = 32
"""The number of worst cases that mpmath rechecks."""

NORMAL_ULP = 3.2
"""The largest error of float32 normals of std 1 that was found, rounded up. 3 does not hold: 3.12 was found."""
TRUNCATED_ULP = {"near": 4.0, "far": 6.0}
"""The same for float32 truncated normals (see `UNIT`). Those with a tail below NEAR_TAIL are far; 4 does not hold for
them: 5.69 was found at a std that takes the quantile's worst values to just below a power of two. At std 1, 4 holds.
"""

Words = NDArray[np.uint32]
Draws = NDArray[np.uint64]

_jit = njit(nogil=True, error_model="numpy")


class Worst(NamedTuple):
    """The largest error of a chunk, in ulp, and its input."""

    error: float
    at: tuple[int, ...]


@_jit
def _ulp(x, precision, smallest):  # type: ignore[no-untyped-def]
    """The spacing at x of floats with this precision, whose smallest normal number is 2^smallest."""
    exponent = np.int64((np.float64(x).view(np.uint64) >> np.uint64(52)) & np.uint64(0x7FF))
    exponent = max(exponent, np.int64(smallest + 1023)) - (precision - 1)
    return np.uint64(exponent << 52).view(np.float64)


# float32's radius and angle, over every word.


@_jit
def _radius_chunk(first, count, step):  # type: ignore[no-untyped-def]
    worst, at, rises, previous = -1.0, np.uint64(0), 0, np.float32(np.inf)
    for i in range(count):
        w = np.uint32(first + np.uint64(i) * step)
        got, exact = kernels.radius32(w), reference.radius32(w)
        error = abs(np.float64(got) - exact) / _ulp(exact, 24, -126)
        if error > worst:
            worst, at = error, np.uint64(w)
        if got > previous:
            rises += 1
        previous = got
    return worst, at, rises


@_jit
def _angle_chunk(first, count, step):  # type: ignore[no-untyped-def]
    worst, at, off_circle = -1.0, np.uint64(0), 0.0
    for i in range(count):
        w = np.uint32(first + np.uint64(i) * step)
        c, s = kernels.cos_sin32(w)
        exact_c, exact_s = reference.cos_sin32(w)
        for got, exact in ((c, exact_c), (s, exact_s)):
            error = abs(np.float64(got) - exact) / _ulp(exact, 24, -126)
            if error > worst:
                worst, at = error, np.uint64(w)
        off_circle = max(off_circle, abs(np.float64(c) * c + np.float64(s) * s - 1.0))
    return worst, at, off_circle


def functions(sizes: Sizes, say: Say) -> list[Result]:
    """float32's radius and angle, over 2^32 words or evenly spaced ones."""
    step = np.uint64(max(1, (1 << 32) // sizes.words))
    per_chunk = min(CHUNK, sizes.words)
    firsts = [np.uint64(i) * np.uint64(per_chunk) * step for i in range(sizes.words // per_chunk)]
    rows = []
    for name, chunk, exact in (
        ("radius √(−2 ln((w or 1)/2^32))", _radius_chunk, _radius_error),
        ("cos and sin of a word", _angle_chunk, _angle_error),
    ):
        say(f"  {name}: {sizes.words} words")
        found = [chunk(first, per_chunk, step) for first in firsts]
        worst = [Worst(error, (int(at),)) for error, at, _ in found]
        third = [extra for *_, extra in found]
        row = _row(name, "float32", sizes.words, worst, exact)
        if chunk is _radius_chunk:
            rises = sum(third) + sum(
                int(kernels.radius32(np.uint32(b)) > kernels.radius32(np.uint32(np.uint64(b) - step)))
                for b in firsts[1:]
            )
            row["note"] = f"{rises} of the radii are larger than the one before"
        else:
            row["note"] = f"c² + s² is within {max(third):.1e} of 1"
        rows.append(row)
    return rows


def _radius_error(at: tuple[int, ...]) -> mpmath.mpf:
    return _ulps(float(kernels.radius32(np.uint32(at[0]))), reference.exact_radius(at[0], 32), 24, -126)


def _angle_error(at: tuple[int, ...]) -> mpmath.mpf:
    pairs = zip(kernels.cos_sin32(np.uint32(at[0])), reference.exact_cos_sin(at[0], 32), strict=True)
    return max(_ulps(float(got), exact, 24, -126) for got, exact in pairs)


def _ulps(got: float, exact: mpmath.mpf, precision: int, smallest: int, floor: float = 0.0) -> mpmath.mpf:
    """The error by mpmath."""
    with mpmath.workdps(reference.DIGITS):
        if exact == 0:
            return mpmath.mpf(0 if got == 0 else "inf")
        return abs(mpmath.mpf(got) - exact) / float(_ulp(max(abs(float(exact)), floor), precision, smallest))


def _row(
    name: str, dtype: str, inputs: int, worst: list[Worst], exact: Callable[[tuple[int, ...]], mpmath.mpf]
) -> Result:
    """A row of the report; mpmath rechecks the worst cases."""
    worst = sorted(worst, key=lambda item: item.error, reverse=True)[:RECHECKED]
    again = [float(exact(item.at)) for item in worst]
    return {
        "law": name,
        "dtype": dtype,
        "inputs": inputs,
        "largest_ulp": worst[0].error,
        "at": list(worst[0].at),
        "rechecked": len(worst),
        "largest_ulp_by_mpmath": max(again),
        "largest_disagreement_ulp": max(abs(item.error - by) for item, by in zip(worst, again, strict=True)),
    }


# Inputs where something may change: ends, powers of two, quarter turns, the limits of the algorithms' cases.


def edges(bits: int, near: tuple[int, ...] = (), width: int = 4) -> list[int]:
    """Draws where errors are likely: next to 0, the powers of two, the eighths, and ``near``."""
    centres = [0, 1 << bits, *(1 << k for k in range(bits)), *((1 << bits) - (1 << k) for k in range(bits))]
    centres += [quarter * (1 << (bits - 3)) for quarter in range(8)]
    found = {c + offset for c in [*centres, *near] for offset in range(-width, width + 1)}
    return sorted(draw for draw in found if 0 <= draw < 1 << bits)


def _pairs(of: list[int], with_: list[int]) -> NDArray[np.uint64]:
    grid = np.meshgrid(np.array(of, np.uint64), np.array(with_, np.uint64), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in grid], axis=1)


def _random_words(rng: np.random.Generator, count: int) -> Words:
    return rng.integers(0, 1 << 32, count, dtype=np.uint32)


def _random_draws(rng: np.random.Generator, count: int, bits: int = 53) -> Draws:
    return rng.integers(0, 1 << bits, count, dtype=np.uint64)


# Uniforms.


def _described(dtype: int, **scheme: Any) -> TensorDescription:
    return engine.describe(TensorSpec(name="evidence", shape=[1], dtype=dtype, **scheme))  # type: ignore[arg-type]


UNIFORMS = ((0.0, 1.0), (-0.5, 2.0), (-0.0357, 0.0357), (3.0, 3.001))


def uniforms(sizes: Sizes, say: Say) -> list[Result]:
    """All 2^24 float32 uniforms with several bounds; random draws and edges of float64."""
    rng = np.random.default_rng(1)
    rows = []
    for a, b in UNIFORMS:
        for dtype in (FLOAT32, FLOAT64):
            say(f"  uniform [{a}, {b}) of {_name(dtype)}")
            parameters = parameters_of(_described(dtype, uniform=Uniform(a=a, b=b)))
            if dtype == FLOAT32:
                step = max(1, (1 << 24) // sizes.words)
                draws: Draws = np.arange(0, 1 << 24, step, dtype=np.uint64)
                values = kernels.float32_law(parameters, (draws << np.uint64(8)).astype(np.uint32)).astype(np.float64)
            else:
                draws = np.concatenate([_random_draws(rng, sizes.draws // 4), _even(edges(53))])
                values = kernels.of_draws(parameters, draws)
            rows.append(_uniform_row(a, b, dtype, draws, values))
    return rows


def _uniform_row(a: float, b: float, dtype: int, draws: Draws, values: NDArray[np.float64]) -> Result:
    bits, precision = (24, 24) if dtype == FLOAT32 else (53, 53)
    reference.need_long_double()
    a_long, b_long = np.longdouble(a), np.longdouble(b)
    exact = a_long + (b_long - a_long) * (draws.astype(np.longdouble) * np.longdouble(2.0**-bits))
    spacing = 2.0 ** (math.frexp(max(abs(a), math.nextafter(abs(b), 0.0)))[1] - precision)
    errors = np.abs(values - exact) / spacing
    worst = [Worst(float(errors[i]), (int(draws[i]),)) for i in np.argpartition(errors, -RECHECKED)[-RECHECKED:]]

    def by_mpmath(at: tuple[int, ...]) -> mpmath.mpf:
        with mpmath.workdps(reference.DIGITS):
            value = values[np.searchsorted(draws, at[0])] if dtype == FLOAT32 else values[draws == at[0]][0]
            right = mpmath.mpf(a) + (mpmath.mpf(b) - mpmath.mpf(a)) * mpmath.mpf(at[0]) / 2**bits
            return abs(mpmath.mpf(float(value)) - right) / spacing

    row = _row(f"uniform [{a:g}, {b:g})", _name(dtype), len(draws), worst, by_mpmath)
    outside = int(((values < a) | (values >= b)).sum())
    in_order = values if dtype == FLOAT32 else values[np.argsort(draws)]
    falls = int((np.diff(in_order) < 0).sum())
    row["note"] = f"{outside} values outside of the bounds; {falls} fall where the draw rises"
    return row


def _even(draws: list[int]) -> Draws:
    return np.array(draws[: len(draws) // 2 * 2], np.uint64)


# Normals of float32, float16 and bfloat16.

NORMAL_STDS = (1.0, 0.02)


@_jit
def _normal32_chunk(words, values, bfloat16, float16, std, worst):  # type: ignore[no-untyped-def]
    """The worst errors of float32, bfloat16 and float16, and how many 16-bit values are not the nearest."""
    at, misrounded = np.zeros(3, np.uint64), np.zeros(3, np.int64)
    for i in range(len(words) // 2):
        radius = reference.radius32(words[2 * i])
        cosine, sine = reference.cos_sin32(words[2 * i + 1])
        for j in range(2):
            exact = std * (radius * (cosine if j == 0 else sine))
            k = 2 * i + j
            for t in range(3):
                precision, smallest = (24, -126) if t == 0 else ((8, -126) if t == 1 else (11, -14))
                got = np.float64(values[k]) if t == 0 else (bfloat16[k] if t == 1 else float16[k])
                ulp = _ulp(exact, precision, smallest)
                error = abs(got - exact) / ulp
                if error > worst[t]:
                    worst[t], at[t] = error, np.uint64(k)
                if error > 0.5:
                    misrounded[t] += 1
    return at, misrounded


def normals32(sizes: Sizes, say: Say) -> list[Result]:
    """Normals of float32, bfloat16 and float16: random pairs of words, and all pairs of edges."""
    rows = []
    for std in NORMAL_STDS:
        say(f"  normal, std {std:g}, of float32 and the halves: {sizes.pairs} pairs")
        parameters = parameters_of(_described(FLOAT32, normal=Normal(std=std)))
        worst: list[list[Worst]] = [[], [], []]
        inputs, misrounded, largest = 0, np.zeros(3, np.int64), 0.0
        for words in _normal_words(sizes):
            values = kernels.float32_law(parameters, words)
            bfloat16 = (kernels.halves(values, bfloat16=True).astype(np.uint32) << np.uint32(16)).view(np.float32)
            float16 = kernels.halves(values, bfloat16=False).view(np.float16)
            errors = np.full(3, -1.0)
            at, wrong = _normal32_chunk(
                words, values, bfloat16.astype(np.float64), float16.astype(np.float64), std, errors
            )
            for t in range(3):
                k = int(at[t])
                worst[t].append(Worst(errors[t], (int(words[k // 2 * 2]), int(words[k // 2 * 2 + 1]), k % 2)))
            inputs += len(words)
            misrounded += wrong
            largest = max(largest, float(np.abs(values).max()))
        for t, dtype in enumerate((FLOAT32, BFLOAT16, FLOAT16)):
            by_mpmath = partial(_normal32_error, parameters, std, t)
            row = _row(f"normal, std {std:g}", _name(dtype), inputs, worst[t], by_mpmath)
            share = misrounded[t] / inputs
            row["note"] = f"largest |z| {largest / std:.4f}" if t == 0 else f"{share:.1e} are not the nearest"
            row["not_nearest"] = share
            rows.append(row)
    return rows


def _normal_words(sizes: Sizes) -> Iterator[Words]:
    rng = np.random.default_rng(2)
    grid = _pairs(edges(32), edges(32)).reshape(-1).astype(np.uint32)
    yield grid[: len(grid) // 4 * 4]
    for _ in range(max(1, sizes.pairs // (CHUNK // 2))):
        yield _random_words(rng, min(CHUNK, 2 * sizes.pairs))
    yield from _worst_words(sizes)


@_jit
def _relative_errors(first, step, radius, cosine, sine):  # type: ignore[no-untyped-def]
    for i in range(len(radius)):
        w = np.uint32(first + np.uint64(i) * step)
        radius[i] = float(kernels.radius32(w)) / reference.radius32(w) - 1
        c, s = kernels.cos_sin32(w)
        exact_c, exact_s = reference.cos_sin32(w)
        cosine[i], sine[i] = float(c) / exact_c - 1, float(s) / exact_s - 1


def _worst_words(sizes: Sizes) -> Iterator[Words]:
    """Radii that are too large with all cosines and sines that are, then those that are too small; the worst ones."""
    count = min(sizes.words, 1 << 24)
    step, first = (1 << 32) // count, 5
    errors = np.empty((3, count))
    _relative_errors(np.uint64(first), np.uint64(step), *errors)
    kept = min(1 << 12, count >> 8)
    for sign in (-1, 1):
        worst = np.argpartition(sign * errors, kept, axis=1)[:, :kept].astype(np.uint64) * np.uint64(step)
        radii, *angles = worst + np.uint64(first)
        for some in np.array_split(radii, max(1, kept * kept * 2 // CHUNK)):
            yield _pairs(list(map(int, some)), list(map(int, np.concatenate(angles)))).reshape(-1).astype(np.uint32)


def _normal32_error(parameters: Parameters, std: float, t: int, at: tuple[int, ...]) -> mpmath.mpf:
    words = np.array([at[0], at[1]] * 2, np.uint32)
    value = kernels.float32_law(parameters, words)[at[2] : at[2] + 1]
    got = float(value[0])
    if t == 1:
        got = float((kernels.halves(value, bfloat16=True).astype(np.uint32) << np.uint32(16)).view(np.float32)[0])
    if t == 2:
        got = float(kernels.halves(value, bfloat16=False).view(np.float16)[0])
    with mpmath.workdps(reference.DIGITS):
        exact = mpmath.mpf(std) * reference.exact_radius(at[0], 32) * reference.exact_cos_sin(at[1], 32)[at[2]]
    precision, smallest = ((24, -126), (8, -126), (11, -14))[t]
    return _ulps(got, exact, precision, smallest)


# Normals of float64.


def normals64(sizes: Sizes, say: Say) -> list[Result]:
    """float64 normals: random pairs of words, and all pairs of edges."""
    reference.need_long_double()
    rng = np.random.default_rng(3)
    say(f"  normal of float64: {sizes.draws} words")
    parameters = parameters_of(_described(FLOAT64, normal=Normal()))
    worst: list[Worst] = []
    inputs, largest = 0, 0.0
    grid = _pairs(edges(64, width=1), edges(64, width=1)).reshape(-1)
    chunks = [grid, *(_random_draws(rng, min(CHUNK, sizes.draws), 64) for _ in range(max(1, sizes.draws // CHUNK)))]
    for words in chunks:
        values = kernels.float64_law(parameters, words)
        radius = reference.radius64(words[::2])
        exact = np.stack([radius * part for part in reference.cos_sin64(words[1::2])], axis=1).reshape(-1)
        spacing = np.ldexp(1.0, np.frexp(exact.astype(np.float64))[1] - 53)
        errors = (np.abs(values - exact) / spacing).astype(np.float64)
        i = int(errors.argmax())
        worst.append(Worst(float(errors[i]), (int(words[i // 2 * 2]), int(words[i // 2 * 2 + 1]), i % 2)))
        inputs += len(words)
        largest = max(largest, float(np.abs(values).max()))

    def by_mpmath(at: tuple[int, ...]) -> mpmath.mpf:
        value = kernels.float64_law(parameters, np.array([at[0], at[1]], np.uint64))[at[2]]
        with mpmath.workdps(reference.DIGITS):
            exact = reference.exact_radius(at[0], 64) * reference.exact_cos_sin(at[1], 64)[at[2]]
        return _ulps(float(value), exact, 53, -1022)

    row = _row("normal, std 1", "float64", inputs, worst, by_mpmath)
    row["note"] = f"largest |z| {largest:.4f}"
    return [row]


# Truncated normals that are computed in float32.

TRUNCATIONS = (
    (0.0, 1.0, -2.0, 2.0),  # over all words
    (0.0, 0.02, -0.04, 0.04),
    (0.0, 1.0, -3.0, 3.0),
    (0.0, 1.0, -1.0, 1.0),
    (0.0, 1.0, -0.3, 0.3),
    (0.0, 1.0, -0.001, 0.001),
    (0.0, 1.0, -1.0, 3.0),
    (0.0, 1.0, -0.5, 2.05),
    (0.0, 0.02, -2.0, 2.0),
    (0.0, 0.002, -2.0, 2.0),
    (0.0, 1.0, -8.0, 0.1),
    (0.0, 1.0, -4.0, 1e30),
    (0.3, 0.02, 0.27, 0.36),
    (0.0, 1e-20, -3e-20, 2e-20),
    (0.0, 0.02 * 2**0.5, -0.02 * 2**0.5, 0.06 * 2**0.5),  # the worst of 24 std from 0.02 to 0.04
)
UNIT = 2.0**-28
"""Errors count in ulp of the larger of the value and the mean, or in this fraction of the std, if that is more."""


@_jit
def _unit32(exact, mean, std):  # type: ignore[no-untyped-def]
    return max(_ulp(max(abs(exact), abs(mean)), 24, -126), UNIT * std)


@_jit
def _truncated32_chunk(law, numbers, words, p, inside, q, mean, std):  # type: ignore[no-untyped-def]
    """The worst error and its word, the worst in standard deviations, how often x falls, and x."""
    n = len(words)
    x = np.empty(n, np.float32)
    kernels.law32(law, numbers, words, x)
    z, above, which = np.empty(n), np.empty(n), np.empty(n + 1, np.int64)
    for i in range(n):
        w = words[i]
        z[i], above[i] = p + (float(w) + 0.5) * 2.0**-32 * inside, q + (float(np.uint32(~w)) + 0.5) * 2.0**-32 * inside
    kernels.quantiles(z, above, which, n)
    worst, at, of_std, falls = -1.0, 0, 0.0, 0
    for i in range(n):
        exact = mean + std * z[i]
        error = abs(float(x[i]) - exact)
        in_ulp = error / _unit32(exact, mean, std)
        if in_ulp > worst:
            worst, at = in_ulp, i
        of_std = max(of_std, error / std)
        if i > 0 and x[i] < x[i - 1]:
            falls += 1
    return worst, words[at], of_std, falls, x


def _truncated32_row(truncation: reference.Truncation, parameters: TruncNormal32Parameters, count: int) -> Result:
    mean, std, a, b = truncation[:4]
    law, numbers = kernels.arguments(parameters)
    probabilities = interval_probabilities((a - mean) / std, (b - mean) / std)
    worst: list[Worst] = []
    of_std, last_word, last = 0.0, np.uint32(0), -math.inf
    inputs = outside = falls = 0
    for words in _rising_words(parameters, count):
        error, at, chunk_of_std, chunk_falls, x = _truncated32_chunk(law, numbers, words, *probabilities, mean, std)
        worst.append(Worst(error, (int(at),)))
        of_std = max(of_std, chunk_of_std)
        inputs += len(words)
        falls += chunk_falls + int(words[0] > last_word and float(x[0]) < last)
        last_word, last = words[-1], float(x[-1])
        if a > float(x.min()) or float(x.max()) > b:
            outside += int(((x.astype(np.float64) < a) | (x.astype(np.float64) > b)).sum())

    def by_mpmath(at: tuple[int, ...]) -> mpmath.mpf:
        value = float(kernels.float32_law(parameters, np.array(at * 4, np.uint32))[0])
        exact = reference.exact_truncated(truncation, at[0], 32)
        with mpmath.workdps(reference.DIGITS):
            return abs(mpmath.mpf(value) - exact) / float(_unit32(float(exact), mean, std))

    row = _row(_truncation_name(truncation), "float32", inputs, worst, by_mpmath)
    row["largest_in_std"] = of_std
    row["formula"], row["outside"], row["falls"] = "near" if parameters.is_near else "far", outside, falls
    row["note"] = f"{outside} values outside of the bounds; {falls} fall where the draw rises"
    return row


def _rising_words(parameters: TruncNormal32Parameters, count: int) -> Iterator[Words]:
    """Yields evenly spaced draws, or all; unless all, also the edges, and where the formula changes."""
    step = (1 << 32) // count
    chunk = min(1 << 16, count)
    spaced = np.arange(chunk, dtype=np.uint64) * np.uint64(step) + np.uint64(step // 3)
    for first in range(0, count, chunk):
        yield (spaced + np.uint64(first * step)).astype(np.uint32)
    if step > 1:
        yield np.array(_even_fours(edges(32, _limits32(parameters), width=200)), np.uint32)


def _even_fours(draws: list[int]) -> list[int]:
    return draws[len(draws) % 4 :]


def _limits32(parameters: TruncNormal32Parameters) -> tuple[int, ...]:
    """The median, and the draws where its neighbourhood ends."""
    below = (MIDDLE_FROM32 - parameters.p_first) / parameters.step
    above = 2**32 - 1 - (MIDDLE_FROM32 - parameters.q_first) / parameters.step
    return (parameters.median, *(int(draw) for draw in (below, above) if 0 < draw < 2**32))


def _quantiles64(truncation: reference.Truncation, words: Draws) -> NDArray[np.float64]:
    """The float64 quantiles that `_truncated32_chunk` compares with."""
    mean, std, a, b = truncation[:4]
    p, inside, q = interval_probabilities((a - mean) / std, (b - mean) / std)
    u, v = ((half.astype(np.float64) + 0.5) * 2.0**-32 for half in (words, np.uint64(2**32 - 1) - words))
    z, above, which = p + u * inside, q + v * inside, np.empty(len(words) + 1, np.int64)
    kernels.quantiles(z, above, which, len(words))
    return z


def _truncation_name(truncation: reference.Truncation) -> str:
    mean, std, a, b = truncation[:4]
    return f"trunc_normal, {'' if mean == 0 else f'mean {mean:g}, '}std {std:g}, [{a:g}, {b:g}]"


# Truncated normals that are computed in float64.

TRUNCATIONS64 = (
    (0.0, 1.0, -2.0, 2.0),
    (0.0, 0.02, -0.04, 0.04),
    (0.0, 0.002, -2.0, 2.0),
    (0.0, 1.0, 6.0, 1e30),
    (0.0, 1.0, 30.0, 31.0),
    (0.0, 1.0, -0.001, 0.001),
    (1.0, 1.0, -9.0, 0.0),
)
NEAR_ZERO = 0.25


def _floor(truncation: reference.Truncation) -> float:
    """Values below this count in ulp of it."""
    mean, std, a, b = truncation[:4]
    return max(abs(mean), NEAR_ZERO * min(std, max(abs(a), abs(b))))


@_jit
def _truncated_chunk(  # type: ignore[no-untyped-def]
    u, v, x, mean, std, p, inside, q, half_difference, values, coefficients, precision, floor
):
    """The worst error in ulp (below ``floor``, in ulp of it), its input, and the worst in standard deviations."""
    worst, at, of_std = -1.0, 0, 0.0
    for i in range(len(x)):
        z = (x[i] - mean) / std
        product, rest = dd.two_product(std, z)
        error = ((x[i] - mean) - product) - rest  # of z; x − mean is exact where mean is 0
        if mean != 0:
            total, lost = dd.two_sum(mean, product)
            error = (x[i] - total) - (lost + rest)
        error += std * reference.quantile_error(z, u[i], v[i], p, inside, q, half_difference, values, coefficients)
        exact = x[i] - error
        in_ulp = abs(error) / _ulp(max(abs(exact), floor), precision, -1022)
        if in_ulp > worst:
            worst, at = in_ulp, i
        of_std = max(of_std, abs(error) / std)
    return worst, at, of_std


def truncated(sizes: Sizes, say: Say) -> list[Result]:
    """Truncated normals of float32, in both ways, and of float64."""
    rows = []
    for number, bounds in enumerate(TRUNCATIONS):
        truncation = reference.Truncation.of(*bounds)
        count = sizes.words if number == 0 else min(sizes.quantiles, sizes.words)
        say(f"  {_truncation_name(truncation)} of float32: {count} draws")
        parameters = _truncated_parameters(truncation, FLOAT32)
        assert isinstance(parameters, TruncNormal32Parameters)
        rows.append(_truncated32_row(truncation, parameters, count))
    for bounds in TRUNCATIONS64:
        truncation = reference.Truncation.of(*bounds)
        for dtype in (FLOAT32, FLOAT64):
            parameters = _truncated_parameters(truncation, dtype)
            if isinstance(parameters, TruncNormalParameters):
                say(f"  {_truncation_name(truncation)} of {_name(dtype)}: {sizes.quantiles // 16} draws")
                rows.append(_truncated_row(truncation, parameters, dtype, sizes.quantiles // 16))
    return rows


def _truncated_parameters(truncation: reference.Truncation, dtype: int) -> Parameters:
    mean, std, a, b = truncation[:4]
    return parameters_of(_described(dtype, trunc_normal=TruncNormal(mean=mean, std=std, a=a, b=b)))


def _truncated_row(
    truncation: reference.Truncation, parameters: TruncNormalParameters, dtype: int, count: int
) -> Result:
    """Random draws, the ends, and both sides of the quantile's cases."""
    mean, std, a, b = truncation[:4]
    bits, precision = (32, 24) if dtype == FLOAT32 else (53, 53)
    rng = np.random.default_rng(4)
    ends = edges(bits, _quantile_limits(parameters, bits), width=200)
    floor = _floor(truncation)
    worst: list[Worst] = []
    of_std = 0.0
    inputs = outside = 0
    for number in range(1 + max(1, count // CHUNK)):
        draws = (
            np.array(_even_fours(ends), np.uint64)
            if number == 0
            else rng.integers(0, 1 << bits, min(CHUNK, count), dtype=np.uint64)
        )
        x = _truncated_values(parameters, draws, dtype)
        unit = np.float64(2.0 ** -(bits + 1))
        u = (np.uint64(2) * draws + np.uint64(1)).astype(np.float64) * unit
        v = (np.uint64(2) * (np.uint64((1 << bits) - 1) - draws) + np.uint64(1)).astype(np.float64) * unit
        error, at, chunk_of_std = _truncated_chunk(
            u, v, x, mean, std, *truncation[4:], *reference.tables(), precision, floor
        )
        worst.append(Worst(error, (int(draws[at]),)))
        of_std = max(of_std, chunk_of_std)
        inputs += len(draws)
        outside += int(((x < a) | (x > b)).sum())

    def by_mpmath(at: tuple[int, ...]) -> mpmath.mpf:
        value = _truncated_values(parameters, np.array(at * 4, np.uint64), dtype)[0]
        return _ulps(float(value), reference.exact_truncated(truncation, at[0], bits), precision, -1022, floor)

    row = _row(_truncation_name(truncation), _name(dtype), inputs, worst, by_mpmath)
    row["largest_in_std"] = of_std
    row["outside"] = outside
    row["note"] = f"{outside} values outside of the bounds"
    return row


def _truncated_values(parameters: Parameters, draws: Draws, dtype: int) -> NDArray[np.float64]:
    if dtype == FLOAT64:
        return kernels.of_draws(parameters, draws)
    return kernels.float32_law(parameters, draws.astype(np.uint32)).astype(np.float64)


def _quantile_limits(parameters: TruncNormalParameters, bits: int) -> tuple[int, ...]:
    """Draws where the quantile changes its formula: |q| = 0.425, and the tails e^−25."""
    tails = (0.075, 0.925, math.exp(-25.0))
    shares = [(tail - parameters.p_below) / parameters.inside for tail in tails]
    shares += [1 - (tail - parameters.p_above) / parameters.inside for tail in tails]
    return tuple(int(share * 2**bits) for share in shares if 0 < share < 1)


# The quantile: whether it rises with the draw, and is symmetric.

SHAPES = ((-2.0, 2.0), (-3.0, 3.0), (-40.0, 40.0), (-1.0, 3.0))


@_jit
def _shape_chunk(law, numbers, first, count, step):  # type: ignore[no-untyped-def]
    """Falls, the largest in ulp, asymmetries among the words, and the last value; the first word is not compared."""
    words, mirrored = np.empty(count + 4, np.uint32), np.empty(count + 4, np.uint32)
    for i in range(count + 4):  # the word before, the words, and padding to a multiple of 4
        words[i] = np.uint32(first + np.uint64(max(i, 1) - 1) * step - (step if i == 0 and first > 0 else np.uint64(0)))
        mirrored[i] = ~words[i]
    x, y = np.empty(count + 4, np.float32), np.empty(count + 4, np.float32)
    kernels.law32(law, numbers, words, x)
    kernels.law32(law, numbers, mirrored, y)
    falls, largest, asymmetries = 0, 0.0, 0
    for i in range(1, count + 1):
        if x[i] < x[i - 1]:
            falls += 1
            largest = max(largest, float(x[i - 1] - x[i]) / _ulp(x[i], 24, -126))
        if x[i] != -y[i]:
            asymmetries += 1
    return falls, largest, asymmetries


def quantile_shape(sizes: Sizes, say: Say) -> list[Result]:
    """Whether truncated normals rise with the draw, and mirrored draws give the negatives if bounds are mirrored."""
    rows = []
    step = (1 << 32) // sizes.words
    count = min(1 << 14, sizes.words)
    for a, b in SHAPES:
        say(f"  the shape on [{a:g}, {b:g}]: {sizes.words} words")
        parameters = parameters_of(_described(FLOAT32, trunc_normal=TruncNormal(a=a, b=b)))
        assert isinstance(parameters, TruncNormal32Parameters)
        law, numbers = kernels.arguments(parameters)
        found = [
            _shape_chunk(law, numbers, np.uint64(first * step), count, np.uint64(step))
            for first in range(0, sizes.words, count)
        ]
        falls, falls_ulp, asymmetries = zip(*found, strict=True)
        rows.append(
            {
                "bounds": [a, b],
                "words": sizes.words,
                "of": "32 bits, each",
                "dtype": "float32",
                "falls": sum(falls),
                "largest_fall_ulp": max(falls_ulp),
                "asymmetries": sum(asymmetries) if a == -b else None,
            }
        )
    for a, b in ((-2.0, 2.0), (-40.0, 40.0)):
        rows.append(_draws_shape(a, b, sizes))
    return rows


_WINDOW = 1 << 16


def _draws_shape(a: float, b: float, sizes: Sizes) -> Result:
    """The same for float64, with windows of neighbouring draws, at random and at the limits."""
    parameters = parameters_of(_described(FLOAT64, trunc_normal=TruncNormal(a=a, b=b)))
    assert isinstance(parameters, TruncNormalParameters)
    rng = np.random.default_rng(7)
    windows = max(1, sizes.quantiles // _WINDOW // 16)
    centres = [*map(int, _random_draws(rng, windows)), *_quantile_limits(parameters, 53), 1 << 52]
    falls, largest, asymmetries = 0, 0.0, 0
    for centre in centres:
        first = min(max(0, centre - _WINDOW // 2), (1 << 53) - _WINDOW)
        draws = np.arange(first, first + _WINDOW, dtype=np.uint64)
        x = kernels.of_draws(parameters, draws)
        mirrored = kernels.of_draws(parameters, np.uint64((1 << 53) - 1) - draws)
        down = np.maximum(x[:-1] - x[1:], 0)
        falls += int((down > 0).sum())
        largest = max(largest, float((down / np.spacing(np.abs(x[:-1]))).max()))
        asymmetries += int((x != -mirrored).sum())
    return {
        "bounds": [a, b],
        "words": _WINDOW * len(centres),
        "of": f"53 bits, {len(centres)} windows",
        "dtype": "float64",
        "falls": falls,
        "largest_fall_ulp": largest,
        "asymmetries": asymmetries,
    }


# Rounding all float32 to 16 bits.


def halves_table(*, bfloat16: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest and the largest number that round to each magnitude, to nearest even."""
    codes = np.arange(0x7F80 + 1 if bfloat16 else 0x7C00 + 1, dtype=np.uint32)
    if bfloat16:
        values = (codes << np.uint32(16)).view(np.float32).astype(np.float64)
        values[-1] = 2.0**128
    else:
        values = codes.astype(np.uint16).view(np.float16).astype(np.float64)
        values[-1] = 2.0**16
    middles = (values[:-1] + values[1:]) / 2
    odd = (codes[:-1] & 1) == 1
    low = np.concatenate([[0.0], np.where(odd, middles, np.nextafter(middles, np.inf))])  # a tie goes to the even one
    high = np.concatenate([np.where(odd, np.nextafter(middles, -np.inf), middles), [np.inf]])
    low[1:] = np.where((codes[1:] & 1) == 1, np.nextafter(middles, np.inf), middles)
    return low, high


@_jit
def _halves_chunk(first, count, step, low, high, bfloat16):  # type: ignore[no-untyped-def]
    wrong = 0
    values, out = np.empty(count, np.float32), np.empty(count, np.uint16)
    for i in range(count):
        values[i] = np.uint32(first + np.uint64(i) * step).view(np.float32)
    kernels.round16(values, out, bfloat16)
    for i in range(count):
        x = np.float64(values[i])
        magnitude = np.int64(out[i] & np.uint16(0x7FFF))
        if not abs(x) <= high[len(low) - 2]:
            continue  # values that would not be finite are refused
        negative = (out[i] & np.uint16(0x8000)) != 0
        signs = negative == (values[i] < 0 or (values[i] == 0 and np.float32(1) / values[i] < 0))
        if not (low[magnitude] <= abs(x) <= high[magnitude] and signs):
            wrong += 1
    return wrong


def rounding(sizes: Sizes, say: Say) -> list[Result]:
    """Whether every float32 rounds to the nearest bfloat16 and float16, ties to even."""
    rows = []
    step = np.uint64(max(1, (1 << 32) // sizes.words))
    count = min(CHUNK, sizes.words)
    for bfloat16 in (True, False):
        name = "bfloat16" if bfloat16 else "float16"
        say(f"  rounding float32 to {name}: {sizes.words} bit patterns")
        low, high = halves_table(bfloat16=bfloat16)
        wrong = sum(
            _halves_chunk(np.uint64(first) * step, count, step, low, high, bfloat16)
            for first in range(0, sizes.words, count)
        )
        rows.append({"dtype": name, "patterns": sizes.words, "not_nearest": wrong})
    return rows


def _name(dtype: int) -> str:
    return DataType.Name(dtype).removeprefix("DATA_TYPE_").lower()


# The references themselves, against mpmath.


def references(sizes: Sizes, say: Say) -> list[Result]:
    """The errors of the references, by mpmath, in ulp of the type that they judge, at random inputs and edges."""
    say(f"  the references against mpmath: {sizes.sample} inputs each")
    reference.need_long_double()
    rng = np.random.default_rng(5)
    words = [*map(int, _random_words(rng, sizes.sample)), *edges(32, width=1)]
    words64 = [*map(int, _random_draws(rng, sizes.sample, 64)), *edges(64, width=1)]
    draws = [*map(int, _random_draws(rng, sizes.sample)), *edges(53, width=1)]
    of_words64 = np.array(words64, np.uint64)
    rows = [
        _reference_row(
            "radius",
            "float32",
            [(float(reference.radius32(np.uint32(w))), reference.exact_radius(w, 32)) for w in words],
        ),
        _reference_row(
            "cos, sin",
            "float32",
            [
                pair
                for w in words
                for pair in zip(reference.cos_sin32(np.uint32(w)), reference.exact_cos_sin(w, 32), strict=True)
            ],
        ),
        _reference_row(
            "radius",
            "float64",
            [
                (reference.number(got), reference.exact_radius(w, 64))
                for w, got in zip(words64, reference.radius64(of_words64), strict=True)
            ],
        ),
        _reference_row(
            "cos, sin",
            "float64",
            [
                (reference.number(got), reference.exact_cos_sin(w, 64)[part])
                for part, values in enumerate(reference.cos_sin64(of_words64))
                for w, got in zip(words64, values, strict=True)
            ],
        ),
    ]
    for bounds in TRUNCATIONS64:
        sample = [*draws[: sizes.sample // len(TRUNCATIONS64) + 1], *edges(53, width=0)]
        rows.append(_quantile_reference_row(reference.Truncation.of(*bounds), sample))
    for bounds in TRUNCATIONS:
        sample = [*words[: sizes.sample // 100 + 1], *edges(32, width=0)]
        rows.append(_quantile64_reference_row(reference.Truncation.of(*bounds), sample))
    return rows


def _reference_row(name: str, dtype: str, pairs: list[tuple[Any, mpmath.mpf]]) -> Result:
    precision = 24 if dtype == "float32" else 53
    errors = []
    with mpmath.workdps(reference.DIGITS):
        for got, exact in pairs:
            errors.append(float(abs(mpmath.mpf(got) - exact)) / float(_ulp(abs(float(exact)), precision, -1022)))
    return {"reference": name, "dtype": dtype, "inputs": len(errors), "largest_error_ulp": max(errors)}


def _quantile_reference_row(truncation: reference.Truncation, draws: list[int]) -> Result:
    """The error of the reference's errors, for a float64 law."""
    mean, std, a, b = truncation[:4]
    parameters = parameters_of(_described(FLOAT64, trunc_normal=TruncNormal(mean=mean, std=std, a=a, b=b)))
    of_draws = _even(draws)
    values = kernels.of_draws(parameters, of_draws)
    floor = _floor(truncation)
    errors = []
    for draw, x in zip(map(int, of_draws), map(float, values), strict=True):
        exact = reference.exact_truncated(truncation, draw, 53)
        u, v = float(2 * draw + 1) * 2.0**-54, float(2 * (2**53 - 1 - draw) + 1) * 2.0**-54
        of_one = [np.array([value]) for value in (u, v, x)]
        rest = (mean, std, *truncation[4:], *reference.tables(), 53, floor)
        error = _truncated_chunk(*of_one, *rest)[0]  # type: ignore[call-arg]
        errors.append(abs(error - float(_ulps(x, exact, 53, -1022, floor))))
    return {
        "reference": _truncation_name(truncation),
        "dtype": "float64",
        "inputs": len(errors),
        "largest_error_ulp": max(errors),
    }


def _quantile64_reference_row(truncation: reference.Truncation, words: list[int]) -> Result:
    """The error of the float64 quantile, in float32's ulp."""
    mean, std = truncation[:2]
    of_words = np.array(words, np.uint64)
    values = mean + std * _quantiles64(truncation, of_words)
    errors = []
    for word, x in zip(words, map(float, values), strict=True):
        exact = reference.exact_truncated(truncation, word, 32)
        errors.append(float(abs(mpmath.mpf(x) - exact)) / float(_unit32(float(exact), mean, std)))
    return {
        "reference": _truncation_name(truncation),
        "dtype": "float32",
        "inputs": len(errors),
        "largest_error_ulp": max(errors),
    }
