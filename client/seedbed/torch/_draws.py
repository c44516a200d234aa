"""torch's random operations as draws of our schemes, as torch itself computes them from uniforms and normals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from seedbed._record.nodes import Draw, Full, Node, with_dtype
from seedbed.torch._nodes import apply

Drawn = Callable[..., Draw]
"""Draws by a scheme with parameters, in the result's dtype or another."""

RandomOperation = Callable[[Mapping[str, Any], Drawn, torch.Tensor], Node]
"""The values that an operation writes, from its arguments by name; the tensor is the result."""

_TINY = 2.0**-54
"""Below every draw of 53 bits but 0, so that a uniform from here on is never 0."""


def _uniform(arguments: Mapping[str, Any], drawn: Drawn, _: torch.Tensor) -> Node:
    return drawn("uniform", {"a": arguments.get("from", 0.0), "b": arguments.get("to", 1.0)})


def _normal(arguments: Mapping[str, Any], drawn: Drawn, _: torch.Tensor) -> Node:
    mean, std = arguments.get("mean", 0.0), arguments.get("std", 1.0)
    if not (isinstance(mean, Node) or isinstance(std, Node)):
        return drawn("normal", {"mean": mean, "std": std})
    return apply("add", apply("multiply", drawn("normal", {"mean": 0.0, "std": 1.0}), std), mean)


def _open_uniform(drawn: Drawn) -> Node:
    return drawn("uniform", {"a": _TINY, "b": 1.0}, torch.float64)


def _exponential(arguments: Mapping[str, Any], drawn: Drawn, _: torch.Tensor) -> Node:
    return apply("divide", apply("negate", apply("log", _open_uniform(drawn))), arguments["lambd"])


def _log_normal(arguments: Mapping[str, Any], drawn: Drawn, _: torch.Tensor) -> Node:
    return apply("exp", drawn("normal", {"mean": arguments["mean"], "std": arguments["std"]}))


def _cauchy(arguments: Mapping[str, Any], drawn: Drawn, _: torch.Tensor) -> Node:
    angle = apply("multiply", apply("subtract", _open_uniform(drawn), 0.5), torch.pi)
    tangent = apply("divide", apply("sin", angle), apply("cos", angle))
    return apply("add", apply("multiply", tangent, arguments["sigma"]), arguments["median"])


def _geometric(arguments: Mapping[str, Any], drawn: Drawn, _: torch.Tensor) -> Node:
    trials = apply(
        "divide", apply("log", _open_uniform(drawn)), apply("log1p", Full((), torch.float64, -arguments["p"]))
    )
    return apply("add", apply("floor", trials), 1.0)


def _bernoulli(arguments: Mapping[str, Any], drawn: Drawn, result: torch.Tensor) -> Node:
    p = arguments.get("p")
    if p is None:
        p = arguments["self"]  # torch.bernoulli(probabilities)
    return apply("less", drawn("uniform", {"a": 0.0, "b": 1.0}, torch.float64), p, dtype=result.dtype)


def _integers(arguments: Mapping[str, Any], drawn: Drawn, result: torch.Tensor) -> Node:
    low, high = arguments.get("low", arguments.get("from", 0)), arguments.get("high", arguments.get("to"))
    if high is None:  # random_()
        digits = torch.finfo(result.dtype).eps if result.is_floating_point() else 0.0
        high = round(2 / digits) + 1 if digits else min(torch.iinfo(result.dtype).max, 2**53)
    integers = apply("floor", drawn("uniform", {"a": float(low or 0), "b": float(high)}, torch.float64))
    return with_dtype(integers, result.dtype)


def _permutation(arguments: Mapping[str, Any], drawn: Drawn, result: torch.Tensor) -> Node:
    return with_dtype(drawn("permutation", {}, torch.float64), result.dtype)


DRAWS: dict[str, RandomOperation] = {
    "uniform": _uniform,
    "rand": _uniform,
    "rand_like": _uniform,
    "normal": _normal,
    "normal_functional": _normal,
    "randn": _normal,
    "randn_like": _normal,
    "exponential": _exponential,
    "log_normal": _log_normal,
    "cauchy": _cauchy,
    "geometric": _geometric,
    "bernoulli": _bernoulli,
    "random": _integers,
    "randint": _integers,
    "randint_like": _integers,
    "randperm": _permutation,
}
"""By the operation's name, in-place variants included."""
