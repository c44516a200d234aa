"""Samples the same cases with Seedbed, torch, JAX, NumPy and SciPy, each through its own interface."""

from __future__ import annotations

import importlib.util
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from evidence.distributions import NORMAL, TRUNCATED, UNIFORM, Law
from evidence.report import Report, Result, Say
from evidence.sizes import Sizes
from seedbed.v1 import DataType, Normal, TensorSpec, TruncNormal, Uniform
from seedbed_server import engine
from seedbed_server.engine import dtypes as engine_dtypes

Values = NDArray[Any]
Sampler = Callable[["Case", int], Values]

CELLS = 256
PATIENCE = 600.0
"""The timeout of a peer, in seconds."""

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class Case(NamedTuple):
    """A case to sample."""

    dtype: str
    law: Law

    @property
    def name(self) -> str:
        """Such as ``trunc_normal, std 1, [30, 31], float32``."""
        a, b = self.law.a, self.law.b
        bounds = f"[{_number(a)}, {_number(b)}{']' if self.law.kind == TRUNCATED and b < math.inf else ')'}"
        if self.law.kind == UNIFORM:
            return f"uniform {bounds}, {self.dtype}"
        if self.law.kind == NORMAL:
            return f"normal, std {self.law.std:g}, {self.dtype}"
        return f"trunc_normal, std {self.law.std:g}, {bounds}, {self.dtype}"


def _number(x: float) -> str:
    return "∞" if x == math.inf else f"{x:g}"


CASES = [
    Case("float32", Law(TRUNCATED, 0.0, 1.0, -2.0, 2.0)),
    Case("float32", Law(TRUNCATED, 0.0, 0.002, -2.0, 2.0)),
    Case("float32", Law(TRUNCATED, 0.0, 1.0, -0.001, 0.001)),
    Case("float32", Law(TRUNCATED, 0.0, 1.0, 6.0, 10.0)),
    Case("float32", Law(TRUNCATED, 0.0, 1.0, 6.0, math.inf)),
    Case("float32", Law(TRUNCATED, 0.0, 1.0, 30.0, 31.0)),
    Case("float64", Law(TRUNCATED, 0.0, 1.0, 6.0, 10.0)),
    Case("float64", Law(TRUNCATED, 0.0, 1.0, -0.001, 0.001)),
    Case("bfloat16", Law(TRUNCATED, 0.0, 1.0, -2.0, 2.0)),
    Case("bfloat16", Law(TRUNCATED, 0.0, 0.02, -0.03, 0.03)),
    Case("bfloat16", Law(TRUNCATED, 0.0, 1.0, 6.0, 10.0)),
    Case("float16", Law(TRUNCATED, 0.0, 1.0, -2.0, 2.0)),
    Case("float32", Law(NORMAL, 0.0, 0.02)),
    Case("bfloat16", Law(NORMAL, 0.0, 0.02)),
    Case("float16", Law(NORMAL, 0.0, 0.02)),
    Case("float16", Law(NORMAL, 0.0, 2e-6)),
    Case("float16", Law(NORMAL, 0.0, 2e-7)),
    Case("bfloat16", Law(NORMAL, 0.0, 1e-39)),
    Case("float32", Law(UNIFORM, 0.0, 1.0, 0.0, 1.0)),
    Case("bfloat16", Law(UNIFORM, 0.0, 1.0, 0.0, 1.0)),
    Case("float16", Law(UNIFORM, 0.0, 1.0, 0.0, 1.0)),
    Case("bfloat16", Law(UNIFORM, 0.0, 1.0, -0.05, 0.05)),
]


def _seedbed(case: Case, count: int) -> Values:
    law = case.law
    scheme: dict[str, Any] = {"normal": Normal(mean=law.mean, std=law.std)}
    if law.kind == UNIFORM:
        scheme = {"uniform": Uniform(a=law.a, b=law.b)}
    if law.kind == TRUNCATED:  # bounds are finite
        scheme = {"trunc_normal": TruncNormal(mean=law.mean, std=law.std, a=law.a, b=min(law.b, 1e30))}
    dtype = DataType.Value(f"DATA_TYPE_{case.dtype.upper()}")
    description = engine.describe(TensorSpec(name=case.name, shape=[count], seed=1, dtype=dtype, **scheme))  # type: ignore[arg-type]
    out = np.empty(count, engine.numpy_dtype(dtype))
    engine.open_backend("numba", threads=1).fill(description, 0, out)
    return out


def _torch(case: Case, count: int) -> Values:
    import torch  # noqa: PLC0415

    law = case.law
    tensor = torch.empty(count, dtype=getattr(torch, case.dtype))
    generator = torch.Generator().manual_seed(1)
    if law.kind == UNIFORM:
        torch.nn.init.uniform_(tensor, law.a, law.b, generator=generator)
    elif law.kind == NORMAL:
        torch.nn.init.normal_(tensor, law.mean, law.std, generator=generator)
    else:
        torch.nn.init.trunc_normal_(tensor, law.mean, law.std, law.a, law.b, generator=generator)
    if case.dtype == "bfloat16":
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    values: Values = tensor.numpy()
    return values


def _jax(case: Case, count: int) -> Values:
    import jax  # noqa: PLC0415

    law = case.law
    key = jax.random.key(1)
    with jax.enable_x64(case.dtype == "float64"):
        dtype = jax.numpy.dtype(case.dtype)
        if law.kind == UNIFORM:  # jax.nn.initializers.uniform starts at 0
            return np.asarray(jax.random.uniform(key, (count,), dtype, law.a, law.b))
        if law.kind == NORMAL:
            return np.asarray(jax.nn.initializers.normal(law.std)(key, (count,), dtype))
        initializer = jax.nn.initializers.truncated_normal(law.std, None, law.a / law.std, law.b / law.std)
        return np.asarray(initializer(key, (count,), dtype))


def _numpy(case: Case, count: int) -> Values:
    """NumPy, and SciPy for truncated normals; what they cannot do in the type itself is rounded to it."""
    law, dtype = case.law, DTYPES[case.dtype]
    rng = np.random.default_rng(1)
    if law.kind == TRUNCATED:
        bounds = ((bound - law.mean) / law.std for bound in (law.a, law.b))
        drawn = stats.truncnorm.rvs(*bounds, loc=law.mean, scale=law.std, size=count, random_state=rng)
        return _cast(drawn, dtype)
    base = np.float64 if case.dtype == "float64" else np.float32
    if law.kind == NORMAL:
        return _cast(rng.standard_normal(count, base) * base(law.std) + base(law.mean), dtype)
    return _cast(rng.random(count, base) * base(law.b - law.a) + base(law.a), dtype)


def _cast(values: Values, dtype: np.dtype[Any]) -> Values:
    return values.astype(np.float32).astype(dtype) if dtype.itemsize == 2 else values.astype(dtype)


PEERS: dict[str, Sampler] = {"Seedbed": _seedbed, "torch": _torch, "JAX": _jax, "NumPy, SciPy": _numpy}


def run(sizes: Sizes, options: str, report: Report, say: Say) -> None:
    """Samples every case with each installed peer, and writes the results.

    Args:
        sizes: The number of elements.
        options: The command-line options behind the sizes, for the report.
        report: The report to add the results to.
        say: Shows the progress.
    """
    begin = time.perf_counter()
    rows, absent = [], [name for name in ("torch", "jax") if importlib.util.find_spec(name) is None]
    for case in CASES:
        say(case.name)
        for name, sampler in PEERS.items():
            if name.lower() in absent:
                continue
            row = {"case": case.name, "peer": name, **_sampled(case, sampler, sizes.peers)}
            rows.append(row)
            say(f"  {name}: {_in_a_line(row)}")
    result = {"elements": sizes.peers, "absent": absent, "seconds": round(time.perf_counter() - begin, 1), "rows": rows}
    report.add("peers", f"python -m evidence peers{options}", result)


def _sampled(case: Case, sampler: Sampler, count: int) -> Result:
    try:
        with _patience(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            values = sampler(case, count)
    except TimeoutError:
        return {"error": f"not done after {PATIENCE:.0f} s"}
    except (RuntimeError, ValueError) as error:
        return {"error": str(error).splitlines()[0]}
    assert values.dtype == DTYPES[case.dtype], f"{values.dtype} in place of {case.dtype}"
    return judged(case, values)


@contextmanager
def _patience() -> Iterator[None]:
    """Interrupts the block after the timeout, on systems with such a signal."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judged(case: Case, values: Values) -> Result:
    """The statistics of a sample, relative to its law.

    ``outside`` counts values that are not finite or out of the bounds. ``at_bounds`` counts those at the lowest and the
    highest value of the type within them. ``std_error`` is the standard deviation's relative error. ``chi2_p`` is for
    χ² over cells whose borders lie between values of the type.
    """
    law = case.law
    exact = values.astype(np.float64)
    finite = np.isfinite(exact)
    inside = finite & (exact >= law.a) & (exact < law.b if law.kind == UNIFORM else exact <= law.b)
    borders, expected = cells(case, len(values))
    sorted_values = np.sort(exact[finite])
    counts = np.diff(np.searchsorted(sorted_values, borders), prepend=0, append=len(sorted_values))
    row: Result = {
        "outside": int((~inside).sum()),
        "distinct": len(np.unique(exact)),
        "chi2_p": float(stats.chi2.sf(float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1)),
    }
    within = exact[inside]
    right = _std(case)
    row["std_error"] = float(np.std(within) / right - 1) if len(within) else None
    row["std_error_by_chance"] = _chance(law) / math.sqrt(len(values))
    if law.kind == NORMAL:
        row["largest"] = float(np.abs(within).max() / law.std)
        return row
    ends, probable = _ends(case)
    row["at_bounds"] = [int((exact == end).sum()) for end in ends]
    row["at_bounds_expected"] = [len(values) * p for p in probable]
    return row


def cells(case: Case, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Borders of cells of about equal probability, half-way between neighbouring values, and the counts to expect."""
    dtype = DTYPES[case.dtype]
    shares = np.arange(1, CELLS) / CELLS
    below = quantile(case.law, shares).astype(np.float32 if dtype.itemsize == 2 else dtype).astype(dtype)
    above = np.nextafter(below, dtype.type(math.inf))
    borders = np.unique((below.astype(np.float64) + above.astype(np.float64)) / 2)
    (lowest, highest), _ = _ends(case)  # what would round out of the bounds belongs to the last value within
    borders = borders[(borders > lowest) & (borders < highest)]
    expected = count * between(case.law, borders)
    while (small := np.flatnonzero(expected < 20)).size and len(borders) > 1:  # a coarse type's; put to a neighbour
        borders = np.delete(borders, min(int(small[0]), len(borders) - 1))
        expected = count * between(case.law, borders)
    return borders, expected


def quantile(law: Law, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantiles of a law."""
    if law.kind == UNIFORM:
        return law.a + (law.b - law.a) * shares
    p, inside, q = law.numbers[2:] if law.kind == TRUNCATED else (0.0, 1.0, 0.0)
    lower, upper = p + inside * shares, q + inside * (1 - shares)
    z: NDArray[np.float64] = np.where(lower < upper, special.ndtri(lower), -special.ndtri(upper))
    values: NDArray[np.float64] = law.mean + law.std * z
    return values


def between(law: Law, borders: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities of the intervals that the borders divide a law into."""
    if law.kind == UNIFORM:
        shares = np.concatenate([[0.0], np.clip((borders - law.a) / (law.b - law.a), 0, 1), [1.0]])
        widths: NDArray[np.float64] = shares[1:] - shares[:-1]
        return widths
    z = (np.concatenate([[law.a], borders, [law.b]]) - law.mean) / law.std
    lower, upper = special.ndtr(z), special.ndtr(-z)
    within: NDArray[np.float64] = np.where(z[1:] <= 0, np.diff(lower), -np.diff(upper))
    across = (z[:-1] < 0) & (z[1:] > 0)
    within[across] = 1 - lower[:-1][across] - upper[1:][across]
    return within / float(within.sum())


def _std(case: Case) -> float:
    """The law's standard deviation, including the effect of rounding to a coarse grid."""
    law = case.law
    if law.kind == TRUNCATED:
        first, second = law.moments(2)
        return law.std * math.sqrt(second - first**2)
    if law.kind == UNIFORM:
        return (law.b - law.a) / math.sqrt(12)
    grid = float(ml_dtypes.finfo(DTYPES[case.dtype]).smallest_subnormal)  # type: ignore[no-untyped-call]
    return math.sqrt(law.std**2 + grid**2 / 12)


def _chance(law: Law) -> float:
    """The relative standard error of the standard deviation, times √n: half of √(kurtosis − 1)."""
    first, second, third, fourth = law.moments(4)
    variance = second - first**2
    central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    return math.sqrt(central / variance**2 - 1) / 2


def _ends(case: Case) -> tuple[tuple[float, float], tuple[float, float]]:
    """The lowest and the highest value within the bounds, and the probabilities of what rounds to them."""
    dtype, law = DTYPES[case.dtype], case.law
    if law.kind == NORMAL:
        return (-math.inf, math.inf), (0.0, 0.0)
    kind = DataType.Value(f"DATA_TYPE_{case.dtype.upper()}")
    lowest = engine_dtypes.at_least(law.a, kind)
    if law.b == math.inf:
        highest = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    else:
        highest = engine_dtypes.below(law.b, kind) if law.kind == UNIFORM else engine_dtypes.at_most(law.b, kind)
    after = float(np.nextafter(dtype.type(lowest), dtype.type(math.inf)))
    before = float(np.nextafter(dtype.type(highest), dtype.type(-math.inf)))
    probabilities = between(law, np.array([(lowest + after) / 2, (before + highest) / 2]))
    return (lowest, highest), (float(probabilities[0]), float(probabilities[-1]))


def _in_a_line(row: Result) -> str:
    if "error" in row:
        return str(row["error"])
    return ", ".join(f"{name} {value}" for name, value in row.items() if name not in ("case", "peer"))
