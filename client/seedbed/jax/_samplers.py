"""JAX's samplers, each as a draw of our schemes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import ml_dtypes
import numpy as np

from seedbed._record.boxes import Shape
from seedbed._record.nodes import Full, Node, Problem, is_drawn, with_dtype
from seedbed.jax import _nodes, _rules
from seedbed.jax._nodes import Atom, Draw, Drawings, DType, apply


class Sampling:
    """One call of a sampler."""

    def __init__(self, key: Any, shape: Shape, dtype: DType, site: object, drawings: Drawings) -> None:  # noqa: ANN401
        self.key = key
        self.shape = shape
        self.dtype = dtype
        self.site = site
        self.drawings = drawings

    def atoms(self, law: str) -> tuple[Atom, ...] | None:
        """An atom for each key; None if the keys' axes are not the first of the result's."""
        rank = self.key.ndim
        if self.shape[:rank] != tuple(self.key.shape):
            return None
        data = np.asarray(jax.random.key_data(self.key)).reshape(self.key.size, -1)
        kind = str(jax.random.key_impl(self.key)).encode()
        inner = self.shape[rank:]
        return tuple(Atom(kind + row.tobytes(), law, inner, str(self.dtype)) for row in data)

    def problem(self, text: str) -> Problem:
        return Problem(self.shape, self.dtype, text, self.site)

    def draw(self, scheme: str, dtype: DType | None = None, **parameters: float) -> Node | None:
        bounds = "".join(f" {value}" for value in parameters.values()) if scheme == "trunc_normal" else ""
        atoms = self.atoms(scheme + bounds)
        if not atoms:
            return None
        drawing = self.drawings.of(atoms, self.site)
        return Draw(self.shape, dtype or self.dtype, drawing, scheme, parameters)


def _number(value: Any) -> float | None:  # noqa: ANN401
    """The value of an argument that is one known number."""
    if isinstance(value, Full):
        return float(value.value)
    return None if isinstance(value, Node) or np.size(value) != 1 else float(np.asarray(value).reshape(()))


OF_EACH: Final = ("_uniform", "_normal", "_normal_real", "_truncated_normal", "_randint")
"""The samplers whose elements are drawn one by one, unless a vmap maps over their bounds alone."""

BOUNDS: Final = "draws between bounds that are out of order, or that differ along a vmap"


def _uniform(sampling: Sampling, rest: list[Any]) -> Node | None:
    low, high = map(_number, rest)
    if low is not None and high is not None and low < high:
        return sampling.draw("uniform", a=low, b=high)
    if low is not None and low == high:
        return _nodes.full(sampling.shape, sampling.dtype, low)
    are_numbers = low is not None and high is not None
    unit = None if sampling.key.ndim or are_numbers else sampling.draw("uniform", a=0.0, b=1.0)
    if unit is None:
        return sampling.problem(BOUNDS)
    below, above = map(_nodes.of_array, rest)
    return apply("add", apply("multiply", unit, apply("subtract", above, below)), below)


def _normal(sampling: Sampling, rest: list[Any]) -> Node | None:
    return sampling.draw("normal", mean=0.0, std=1.0)


def _truncated_normal(sampling: Sampling, rest: list[Any]) -> Node | None:
    low, high = map(_number, rest)
    if low is None or high is None or not low < high:
        return None
    return sampling.draw("trunc_normal", mean=0.0, std=1.0, a=low, b=high)


_MOST_OF_SINGLE: Final = 1 << 20
"""Integers up to which the values of a uniform in float32 are dense enough to be rounded down."""


def _randint(sampling: Sampling, rest: list[Any]) -> Node | None:
    low, high = map(_number, rest)
    if low is None or high is None or not low < high:
        return sampling.problem("draws integers between bounds that are unknown, or out of order")
    dtype = np.dtype(np.float32 if max(abs(low), abs(high)) <= _MOST_OF_SINGLE else np.float64)
    drawn = sampling.draw("uniform", dtype, a=low, b=high)
    return None if drawn is None else with_dtype(apply("floor", drawn), sampling.dtype)


def _shuffle(sampling: Sampling, rest: list[Any]) -> Node | None:
    if isinstance(rest[0], Node) and is_drawn(rest[0]):
        return None
    values = _nodes.evaluated(rest[0]) if isinstance(rest[0], Node) else np.asarray(rest[0])
    atoms = sampling.atoms("permutation")
    shuffled = None if atoms is None else _rules.shuffled(values, atoms, sampling.drawings, sampling.site)
    return shuffled or sampling.problem("shuffles values other than a range of numbers, for one key")


def _gumbel(sampling: Sampling, rest: list[Any]) -> Node | None:
    if sampling.dtype not in _nodes.FLOATS:
        return None
    least = float(ml_dtypes.finfo(sampling.dtype).tiny)  # type: ignore[no-untyped-call]
    unit = sampling.draw("uniform", a=least, b=1.0)
    return None if unit is None else apply("negate", apply("log", apply("negate", apply("log", unit))))


SAMPLERS: Final[dict[str, Callable[[Sampling, list[Any]], Node | None]]] = {
    "_uniform": _uniform,
    "_normal": _normal,
    "_normal_real": _normal,
    "_truncated_normal": _truncated_normal,
    "_randint": _randint,
    "_gumbel": _gumbel,
    "_shuffle": _shuffle,
}
