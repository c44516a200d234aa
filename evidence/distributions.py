"""Whether large samples follow their law: moments, Anderson and Darling, χ², tails.

The engine serves elements chunk by chunk. Each is mapped to the probability below it, which is uniform if the law is
right. At 10^9 elements, a standard deviation that is wrong by a 5,000th is 9 standard errors off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import stats

from evidence.report import Result, Say
from evidence.sizes import Sizes
from seedbed.v1 import (
    DataType,
    Disk,
    Distribution,
    FanMode,
    Kaiming,
    Normal,
    Orthogonal,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
)
from seedbed_server import engine

# ruff: noqa: ANN001, ANN201, ANN202 - Numba infers the types

CHUNK = 1 << 22
CELLS = 1 << 18
"""Cells of equal probability. Anderson and Darling's statistic uses all of them, χ² groups of 64."""
CELLS_TOGETHER = 1 << 6
MOMENTS = 6
SIGMAS = (3, 4, 5, 6)

UNIFORM, NORMAL, TRUNCATED = 0, 1, 2

_jit = njit(nogil=True, error_model="numpy")


class Law(NamedTuple):
    """A continuous law: its kind, mean, std (of the whole normal) and bounds."""

    kind: int
    mean: float
    std: float
    a: float = -math.inf
    b: float = math.inf

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The arguments of `probability`: mean, std, and the probabilities below, within and above the bounds."""
        if self.kind != TRUNCATED:
            return np.array([self.a if self.kind == UNIFORM else self.mean, self._width, 0.0, 1.0, 0.0])
        with mpmath.workdps(60):
            low, high = ((mpmath.mpf(bound) - self.mean) / self.std for bound in (self.a, self.b))
            p, q = mpmath.ncdf(low), mpmath.ncdf(-high)
            inside = mpmath.ncdf(high) - p if high <= 0 else mpmath.ncdf(-low) - q if low >= 0 else 1 - p - q
            return np.array([self.mean, self.std, float(p), float(inside), float(q)])

    @property
    def _width(self) -> float:
        return self.b - self.a if self.kind == UNIFORM else self.std

    def moments(self, count: int) -> list[float]:
        """The first moments of the standardised element: (x − mean) / std, or (x − a) / (b − a) − ½ for a uniform."""
        if self.kind == UNIFORM:
            return [0.0 if k % 2 else 1 / ((k + 1) * 2**k) for k in range(1, count + 1)]
        if self.kind == NORMAL:
            return [0.0 if k % 2 else float(mpmath.fac2(k - 1)) for k in range(1, count + 1)]
        with mpmath.workdps(60):
            low, high = ((mpmath.mpf(bound) - self.mean) / self.std for bound in (self.a, self.b))
            low, high = max(low, mpmath.mpf(-60)), min(high, mpmath.mpf(60))
            inside = mpmath.ncdf(high) - mpmath.ncdf(low) if high <= 0 else mpmath.ncdf(-low) - mpmath.ncdf(-high)
            known = [mpmath.mpf(1)]
            for k in range(1, count + 1):  # by parts
                ends = mpmath.npdf(high) * high ** (k - 1) - mpmath.npdf(low) * low ** (k - 1)
                known.append((k - 1) * (known[k - 2] if k > 1 else 0) - ends / inside)
            return [float(m) for m in known[1:]]


@_jit
def probability(x, kind, numbers):  # type: ignore[no-untyped-def]
    """The probability below x, or the one above it, and which of them it is."""
    mean, std, p, inside, q = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    z = (x - mean) / std
    if kind == UNIFORM:
        return z, False
    if z > 0:
        return (0.5 * math.erfc(z * 0.7071067811865476) - q) / inside, True
    return (0.5 * math.erfc(-z * 0.7071067811865476) - p) / inside, False


@_jit
def _count(values, kind, numbers, cells, sums, tails):  # type: ignore[no-untyped-def]
    """Adds the values to the counts of the cells, to the sums of powers, and to the counts beyond 3, 4, 5, 6 σ."""
    last = len(cells) - 1
    for i in range(len(values)):
        x = np.float64(values[i])
        u, above = probability(x, kind, numbers)
        cell = min(max(int(u * len(cells)), 0), last)
        cells[last - cell if above else cell] += 1
        z = (x - numbers[0]) / numbers[1] - (0.5 if kind == UNIFORM else 0.0)
        power = 1.0
        for k in range(len(sums)):
            power *= z
            sums[k] += power
        if abs(z) > 3:
            for k in range(len(tails)):
                if abs(z) > 3 + k:
                    tails[k] += 1


def anderson_darling(cells: NDArray[np.int64]) -> float:
    """A² of the empirical distribution at the borders of cells of equal probability.

    n ∫ (F_n − F)² / (F (1 − F)) dF by the trapezoid rule. The two outer cells are skipped: if the law is right, they
    contribute 2 / cells, and their counts are in χ² and in the tails.
    """
    n = int(cells.sum())
    u = np.arange(1, len(cells)) / len(cells)
    excess = np.cumsum(cells)[:-1] / n - u
    return float(n * np.trapezoid(excess**2 / (u * (1 - u)), u))


def anderson_darling_p(a2: float) -> float:
    """The probability of a larger A² for a large sample (Marsaglia and Marsaglia 2004, adinf).

    >>> round(anderson_darling_p(2.492), 3), round(anderson_darling_p(3.857), 3)
    (0.05, 0.01)
    """
    if a2 <= 0:
        return 1.0
    if a2 < 2:
        below = (
            math.exp(-1.2337141 / a2)
            / math.sqrt(a2)
            * (2.00012 + (0.247105 - (0.0649821 - (0.0347962 - (0.0116720 - 0.00168691 * a2) * a2) * a2) * a2) * a2)
        )
        return 1 - below
    inner = 1.0776 - (2.30695 - (0.43424 - (0.082433 - (0.008056 - 0.0003146 * a2) * a2) * a2) * a2) * a2
    return -math.expm1(-math.exp(inner))


class Case(NamedTuple):
    """A law as requested, and as it must be."""

    name: str
    dtype: int
    scheme: dict[str, Any]
    law: Law


FLOAT32, FLOAT16, BFLOAT16, FLOAT64 = DataType.values()[1:5]

CASES = [
    Case(f"{name}, {DataType.Name(dtype).removeprefix('DATA_TYPE_').lower()}", dtype, scheme, law)
    for dtype in (FLOAT32, FLOAT64)
    for name, scheme, law in (
        ("uniform [0, 1)", {"uniform": Uniform()}, Law(UNIFORM, 0.0, 1.0, 0.0, 1.0)),
        ("normal", {"normal": Normal()}, Law(NORMAL, 0.0, 1.0)),
        ("trunc_normal [−2, 2]", {"trunc_normal": TruncNormal()}, Law(TRUNCATED, 0.0, 1.0, -2.0, 2.0)),
    )
]


def continuous(sizes: Sizes, say: Say) -> list[Result]:
    """The laws of float32 and float64, with parameters that hide float32's own spacing."""
    rows = []
    for case in CASES:
        say(f"  {case.name}: {sizes.elements} elements")
        cells, sums, tails = _counted(case, sizes.elements, sizes.seed)
        rows.append(_continuous_row(case, cells, sums, tails))
    return rows


def _counted(case: Case, elements: int, seed: int) -> tuple[NDArray[np.int64], list[float], NDArray[np.int64]]:
    cells, tails = np.zeros(CELLS, np.int64), np.zeros(len(SIGMAS), np.int64)
    parts: list[NDArray[np.float64]] = []
    numbers = case.law.numbers

    def take(values: NDArray[Any]) -> None:
        sums = np.zeros(MOMENTS)
        _count(values, case.law.kind, numbers, cells, sums, tails)
        parts.append(sums)

    served(TensorSpec(name=case.name, shape=[elements], dtype=case.dtype, seed=seed, **case.scheme), take)  # type: ignore[arg-type]
    return cells, [math.fsum(column) for column in np.array(parts).T], tails


def served(spec: TensorSpec, take: Callable[[NDArray[Any]], None]) -> None:
    """Passes all elements of a tensor on, chunk by chunk."""
    description = engine.describe(spec)
    sampler = engine.open_backend("numba", threads=1).sampler(description)
    total = description.element_count
    out = np.empty(min(CHUNK, total), engine.numpy_dtype(description.spec.dtype))
    for first in range(0, total, len(out)):
        part = out[: min(len(out), total - first)]
        sampler(first, part, lambda: False)()
        take(part)


def _continuous_row(case: Case, cells: NDArray[np.int64], sums: list[float], tails: NDArray[np.int64]) -> Result:
    n = int(cells.sum())
    expected = case.law.moments(2 * MOMENTS)
    scores = []
    for k in range(1, MOMENTS + 1):
        variance = expected[2 * k - 1] - expected[k - 1] ** 2
        scores.append((sums[k - 1] / n - expected[k - 1]) / math.sqrt(variance / n))
    together = cells.reshape(-1, CELLS_TOGETHER).sum(axis=1)
    chi2 = float(((together - n / len(together)) ** 2).sum() / (n / len(together)))
    a2 = anderson_darling(cells)
    row = {
        "law": case.name,
        "elements": n,
        "moments": [total / n for total in sums],
        "moment_scores": scores,
        "anderson_darling": a2,
        "anderson_darling_p": anderson_darling_p(a2),
        "chi2": chi2,
        "chi2_cells": len(together),
        "chi2_p": float(stats.chi2.sf(chi2, len(together) - 1)),
    }
    if case.law.kind == NORMAL:
        beyond = [n * 2 * float(stats.norm.sf(sigma)) for sigma in SIGMAS]
        row["beyond"] = [
            {"sigmas": sigma, "count": int(count), "expected": mean, "p": _poisson_p(int(count), mean)}
            for sigma, count, mean in zip(SIGMAS, tails, beyond, strict=True)
        ]
    return row


def _poisson_p(count: int, mean: float) -> float:
    """The two-sided p-value."""
    return min(1.0, 2 * float(min(stats.poisson.cdf(count, mean), stats.poisson.sf(count - 1, mean))))


# Complex numbers: the square of the modulus and the angle, each mapped to what is uniform if the law is right.

COMPLEX_CASES = (
    ("normal", {"normal": Normal()}, math.inf, 1.0),
    ("disk, radius 1", {"disk": Disk(radius=1.0)}, 1.0, None),
    ("disk, radius 2, std 1", {"disk": Disk(radius=2.0, std=1.0)}, 2.0, 1.0),
)
TOGETHER = 64
"""Intervals of the modulus and of the angle, for the χ² of both."""


@_jit
def _count_complex(values, radius, std, moduli, angles, both):  # type: ignore[no-untyped-def]
    """Adds to the counts of cells; ``std`` is 0 for the uniform law. Returns the largest modulus."""
    largest = 0.0
    inside = -math.expm1(-((radius / std) ** 2)) if std > 0 else 1.0
    for i in range(len(values)):
        x, y = float(values[i].real), float(values[i].imag)
        square = x * x + y * y
        largest = max(largest, square)
        u = -math.expm1(-square / std**2) / inside if std > 0 else square / radius**2
        v = math.atan2(y, x) * 0.15915494309189535 + 0.5
        u, v = min(max(u, 0.0), 0.9999999999999999), min(max(v, 0.0), 0.9999999999999999)
        moduli[int(u * len(moduli))] += 1
        angles[int(v * len(angles))] += 1
        both[int(u * TOGETHER), int(v * TOGETHER)] += 1
    return math.sqrt(largest)


def complexes(sizes: Sizes, say: Say) -> list[Result]:
    """Complex normals, and both laws of the disk."""
    rows = []
    elements = max(1, sizes.elements // 10)
    for name, scheme, radius, std in COMPLEX_CASES:
        say(f"  {name}: {elements} complex numbers")
        moduli, angles, both = np.zeros(CELLS, np.int64), np.zeros(CELLS, np.int64), np.zeros((TOGETHER,) * 2, np.int64)
        largest: list[float] = []

        def take(values: NDArray[Any], counts: Any = (radius, std or 0.0, moduli, angles, both)) -> None:  # noqa: ANN401
            largest.append(_count_complex(values, *counts))  # noqa: B023 - called within the loop's turn

        spec = TensorSpec(name=name, shape=[elements], dtype=DataType.DATA_TYPE_COMPLEX64, seed=sizes.seed, **scheme)
        served(spec, take)
        expected = elements / both.size
        rows.append(
            {
                "law": name,
                "elements": elements,
                "largest_modulus": max(largest),
                "modulus_p": anderson_darling_p(anderson_darling(moduli)),
                "angle_p": anderson_darling_p(anderson_darling(angles)),
                "both_cells": both.size,
                "both_p": float(stats.chi2.sf(((both - expected) ** 2).sum() / expected, both.size - 1)),
            }
        )
    return rows


# float16 and bfloat16: each value has a probability, for χ².


HALF_CASES = [
    ("uniform [0, 1)", {"uniform": Uniform()}, Law(UNIFORM, 0.0, 1.0, 0.0, 1.0)),
    ("normal", {"normal": Normal()}, Law(NORMAL, 0.0, 1.0)),
    ("normal, std 2·10^-6", {"normal": Normal(std=2e-6)}, Law(NORMAL, 0.0, 2e-6)),
    ("trunc_normal [−2, 2]", {"trunc_normal": TruncNormal()}, Law(TRUNCATED, 0.0, 1.0, -2.0, 2.0)),
]


def halves(sizes: Sizes, say: Say) -> list[Result]:
    """How often each 16-bit value occurs, against the probability of all that rounds to it."""
    rows = []
    for name, scheme, law in HALF_CASES:
        for dtype in (BFLOAT16, FLOAT16):
            full = f"{name}, {DataType.Name(dtype).removeprefix('DATA_TYPE_').lower()}"
            say(f"  {full}: {sizes.elements} elements")
            counts = np.zeros(1 << 16, np.int64)

            def take(values: NDArray[Any], counts: NDArray[np.int64] = counts) -> None:
                _count_codes(values.view(np.uint16), counts)

            served(TensorSpec(name=full, shape=[sizes.elements], dtype=dtype, seed=sizes.seed, **scheme), take)  # type: ignore[arg-type]
            row = {"law": full, "elements": sizes.elements, **_discrete_chi2(counts, dtype, law)}
            if law.kind == UNIFORM:
                row["chi2_p_of_real_line"] = row["chi2_p"]
                row |= _discrete_chi2(counts, dtype, law, of_draws=True)
            rows.append(row)
    return rows


@_jit
def _count_codes(codes, counts):  # type: ignore[no-untyped-def]
    for i in range(len(codes)):
        counts[codes[i]] += 1


def _discrete_chi2(counts: NDArray[np.int64], dtype: int, law: Law, *, of_draws: bool = False) -> Result:
    """χ² over the values of the type; values that are expected less than 20 times are merged.

    ``of_draws``: against the equally likely multiples of 2^-24 on [0, 1), instead of the real line.
    """
    codes = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs are among the codes
        values = codes.view(engine.numpy_dtype(dtype)).astype(np.float64)
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    sorted_values, sorted_counts = values[finite][order], counts[finite][order]
    distinct, begins = np.unique(sorted_values, return_index=True)  # −0 and +0 are one value
    of_distinct = np.add.reduceat(sorted_counts, begins)
    middles = (distinct[:-1] + distinct[1:]) / 2
    if of_draws:
        probabilities = _of_draws(distinct, dtype)
    else:
        probabilities = _between(law, np.concatenate([[-np.inf], middles, [np.inf]]), distinct)
    n = int(counts.sum())
    expected = n * probabilities
    rare = expected < 20
    observed = np.append(of_distinct[~rare], of_distinct[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    impossible = int(observed[~keep].sum()) + int(counts[~finite].sum())
    chi2 = float(((observed[keep] - expected[keep]) ** 2 / expected[keep]).sum())
    degrees = int(keep.sum()) - 1
    return {
        "values": int((of_distinct > 0).sum()),
        "impossible": impossible,
        "chi2": chi2,
        "chi2_cells": degrees + 1,
        "chi2_p": float(stats.chi2.sf(chi2, degrees)),
    }


def _of_draws(distinct: NDArray[np.float64], dtype: int) -> NDArray[np.float64]:
    """How many of the 2^24 float32 uniforms round to each value; those that would round to 1 stay below it."""
    draws = np.arange(1 << 24, dtype=np.float32) * np.float32(2.0**-24)
    rounded = draws.astype(engine.numpy_dtype(dtype)).astype(np.float64)
    below_one = distinct[np.searchsorted(distinct, 1.0) - 1]
    places = np.searchsorted(distinct, np.minimum(rounded, below_one))
    counted: NDArray[np.float64] = np.bincount(places, minlength=len(distinct)) / (1 << 24)
    return counted


def _between(law: Law, borders: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that rounds to each value; what would round out of bounds belongs to the last value within."""
    inside = (values >= law.a) & ((values < law.b) if law.kind == UNIFORM else (values <= law.b))
    first, last = np.flatnonzero(inside)[[0, -1]]
    borders = borders.copy()
    borders[: first + 1], borders[last + 1 :] = -np.inf, np.inf
    if law.kind == UNIFORM:
        shares: NDArray[np.float64] = np.diff(np.clip((borders - law.a) / (law.b - law.a), 0, 1))
        return shares
    z = (np.clip(borders, law.a, law.b) - law.mean) / law.std
    with np.errstate(over="ignore"):
        from_left, from_right = np.diff(stats.norm.cdf(z)), -np.diff(stats.norm.sf(z))
    between: NDArray[np.float64] = np.where(z[1:] <= 0, from_left, from_right)
    straddling = (z[:-1] < 0) & (z[1:] > 0)
    between[straddling] = 1 - stats.norm.cdf(z[:-1][straddling]) - stats.norm.sf(z[1:][straddling])
    within: NDArray[np.float64] = between / law.numbers[3]
    return within


# Schemes built on the laws.


def built(sizes: Sizes, say: Say) -> list[Result]:
    """Served tensors of schemes whose parameters depend on the shape, against the formulas of the papers."""
    columns = 1 << 10
    rows = max(1, sizes.elements // 10 // columns)
    std_kaiming = math.sqrt(2 / columns)
    bound = math.sqrt(6 / (columns + rows))
    cut = math.sqrt(1 / rows) / 0.87962566103423978
    shape = [rows, columns]
    cases: list[tuple[str, dict[str, Any], Law]] = [
        ("xavier_uniform", {"xavier_uniform": {}}, Law(UNIFORM, 0.0, 1.0, -bound, bound)),
        ("kaiming_normal", {"kaiming_normal": Kaiming()}, Law(NORMAL, 0.0, std_kaiming)),
        (
            "variance_scaling, truncated",
            {
                "variance_scaling": VarianceScaling(
                    mode=FanMode.FAN_MODE_FAN_IN, distribution=Distribution.DISTRIBUTION_TRUNCATED_NORMAL
                )
            },
            Law(TRUNCATED, 0.0, cut, -2 * cut, 2 * cut),
        ),
    ]
    results = []
    for name, scheme, law in cases:
        say(f"  {name} of {shape}")
        case = Case(name, FLOAT32, scheme, law)
        cells, tails = np.zeros(CELLS, np.int64), np.zeros(len(SIGMAS), np.int64)
        parts: list[NDArray[np.float64]] = []
        numbers = law.numbers

        def take(values: NDArray[Any], law: Law = law, numbers: NDArray[np.float64] = numbers) -> None:
            sums = np.zeros(MOMENTS)
            _count(values, law.kind, numbers, cells, sums, tails)  # noqa: B023 - called within the loop's turn
            parts.append(sums)  # noqa: B023

        served(TensorSpec(name=name, shape=shape, seed=sizes.seed, **scheme), take)
        results.append(_continuous_row(case, cells, [math.fsum(column) for column in np.array(parts).T], tails))
    return results


def sparse(sizes: Sizes, say: Say) -> list[Result]:
    """Sparse: zeros in each column, and whether they are spread evenly over rows and pairs of rows."""
    rows, columns, zeros = 20, max(200, sizes.elements // 5000), 6
    say(f"  sparse, {rows} × {columns}")
    spec = TensorSpec(name="sparse", shape=[rows, columns], seed=sizes.seed, sparse=Sparse(sparsity=0.3, std=1.0))
    description = engine.describe(spec)
    values = np.empty(description.element_count, np.float32)
    engine.open_backend("numba", threads=1).fill(description, 0, values)
    is_zero = (values == 0).reshape(rows, columns)
    per_row = is_zero.sum(axis=1)
    # Each row is 0 with probability 6 / 20; counts of different rows of a column are negatively correlated.
    share = zeros / rows
    chi2 = float(((per_row - columns * share) ** 2).sum() / (columns * share * (1 - share)) * (rows - 1) / rows)
    pairs = is_zero.astype(np.float64) @ is_zero.T.astype(np.float64)
    pair_share = share * (zeros - 1) / (rows - 1)
    upper = pairs[np.triu_indices(rows, 1)]
    scores = (upper - columns * pair_share) / math.sqrt(columns * pair_share * (1 - pair_share))
    normals = values.reshape(rows, columns)[~is_zero]
    return [
        {
            "shape": [rows, columns],
            "columns_with_another_number_of_zeros": int((is_zero.sum(axis=0) != zeros).sum()),
            "rows_chi2_p": float(stats.chi2.sf(chi2, rows - 1)),
            "largest_pair_score": float(np.abs(scores).max()),
            "pairs": len(scores),
            "normals_ks_p": float(stats.kstest(normals[:1_000_000], "norm").pvalue),
        }
    ]


def orthogonal(sizes: Sizes, say: Say) -> list[Result]:
    """Orthogonal: the defect of QᵀQ, and whether the matrices are uniform by Haar's measure.

    Each element squared of a uniform orthogonal n × n matrix is Beta(½, (n − 1) / 2); the trace has the first n moments
    of a normal, 0, 1, 0, 3 (Diaconis and Shahshahani 1994); the determinant is 1 as often as −1.
    """
    n, count = 4, sizes.matrices
    say(f"  orthogonal, {count} of {n} × {n}")
    matrices = np.empty((count, n, n))
    for i in range(count):
        if i % 1000 == 0:  # a backend caches its last matrices, and searches all of them for each new one
            backend = engine.open_backend("numba", threads=1)
        spec = TensorSpec(
            name=f"q{i}", shape=[n, n], seed=sizes.seed, dtype=DataType.DATA_TYPE_FLOAT64, orthogonal=Orthogonal()
        )
        backend.fill(engine.describe(spec), 0, matrices[i].reshape(-1))
    defect = float(np.abs(matrices.transpose(0, 2, 1) @ matrices - np.eye(n)).max())
    law = stats.beta(0.5, (n - 1) / 2)
    elements = [float(stats.kstest(matrices[:, i, j] ** 2, law.cdf).pvalue) for i in range(n) for j in range(n)]
    signs = [
        float(stats.binomtest(int((matrices[:, i, j] > 0).sum()), count).pvalue) for i in range(n) for j in range(n)
    ]
    trace = np.trace(matrices, axis1=1, axis2=2)
    scores = [
        float((np.mean(trace**k) - mean) / (np.std(trace**k) / math.sqrt(count)))
        for k, mean in ((1, 0), (2, 1), (3, 0), (4, 3))
    ]
    positive = int((np.linalg.det(matrices) > 0).sum())
    rows = [
        {
            "shape": [n, n],
            "matrices": count,
            "largest_defect": defect,
            "smallest_p_of_elements": min(elements),
            "smallest_p_of_signs": min(signs),
            "elements": len(elements),
            "trace_scores": scores,
            "determinant_p": float(stats.binomtest(positive, count).pvalue),
        }
    ]
    for shape in ([1024, 1024], [256, 2304]) if count >= 1000 else ([64, 64],):
        for dtype in (DataType.DATA_TYPE_FLOAT64, DataType.DATA_TYPE_FLOAT32):
            spec = TensorSpec(name="q", shape=shape, seed=sizes.seed, dtype=dtype, orthogonal=Orthogonal())
            description = engine.describe(spec)
            out = np.empty(description.element_count, engine.numpy_dtype(dtype))
            backend.fill(description, 0, out)
            q = out.reshape(shape).astype(np.float64)
            product = q @ q.T if shape[0] < shape[1] else q.T @ q
            rows.append(
                {
                    "shape": shape,
                    "dtype": DataType.Name(dtype).removeprefix("DATA_TYPE_").lower(),
                    "matrices": 1,
                    "largest_defect": float(np.abs(product - np.eye(len(product))).max()),
                }
            )
    return rows
