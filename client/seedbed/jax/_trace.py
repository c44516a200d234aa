"""Runs an init function's jaxpr: on keys and other known values for real, on drawn values as nodes.

JAX's samplers appear in a jaxpr as jitted functions of JAX, which are recognised by their names and files; so the name
by which the model's code imports them does not matter. All other functions are followed.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import jax
import jax.extend
import numpy as np
from jax.interpreters import partial_eval

from seedbed._record.boxes import Box, Shape, whole
from seedbed._record.nodes import Full, Node, Problem, is_drawn, located
from seedbed.jax import _nodes, _rules
from seedbed.jax._nodes import Drawings
from seedbed.jax._samplers import BOUNDS, OF_EACH, SAMPLERS, Sampling

Known: TypeAlias = Any
"""A JAX or NumPy array, or an array of keys."""

_CALLS: Final = frozenset(
    (
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "core_closed_call",
        "remat",
        "remat2",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "custom_vmap_call",
        "composite",
    )
)
_LIBRARIES: Final = ("jax", "jaxlib", "flax", "equinox", "haiku", "optax", "seedbed", "contextlib", "functools")
_MOST_TURNS: Final = 100_000


class Site:
    """The line of the user's code that an equation comes from, looked up only when it is printed."""

    def __init__(self, equation: Any) -> None:  # noqa: ANN401 - JAX's equation
        self._source = equation.source_info

    def __str__(self) -> str:
        return next(self._lines(), "")

    def _lines(self) -> Iterator[str]:
        inside = tuple(_folders())
        for frame in self._source.traceback.frames if self._source.traceback else ():
            if not frame.file_name.startswith((*inside, "<frozen")):
                yield f"{frame.file_name}:{frame.line_num}"


def _folders() -> Iterator[str]:
    for name in _LIBRARIES:
        path = getattr(sys.modules.get(name), "__file__", None)
        if path:
            yield str(Path(path).parent) + os.sep if path.endswith("__init__.py") else path


def run(closed: Any, arguments: Sequence[Node]) -> list[Known | Node]:  # noqa: ANN401 - JAX's ClosedJaxpr
    """The results of a jaxpr; equations that these do not need are not run.

    Args:
        closed: The jaxpr.
        arguments: A node for each of its arguments; their values are unknown.
    """
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    del used  # because of `instantiate`, all of them
    interpreter = _Interpreter()
    with _on_cpu():
        return interpreter.run(jaxpr, closed.consts, arguments, None)


@contextlib.contextmanager
def _on_cpu() -> Iterator[None]:
    """Keeps the work on keys, which is small, off accelerators, which would compile it."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX is restricted to other platforms
        yield
        return
    with jax.default_device(device):
        yield


class _Interpreter:
    """Runs jaxprs."""

    def __init__(self) -> None:
        self.drawings = Drawings()

    def run(self, jaxpr: Any, consts: Iterable[Any], arguments: Sequence[Any], site: Site | None) -> list[Any]:  # noqa: ANN401
        values: dict[Any, Any] = {}

        def read(variable: Any) -> Any:  # noqa: ANN401
            if isinstance(variable, jax.extend.core.Literal):
                aval: Any = variable.aval
                return np.asarray(variable.val, aval.dtype)
            return values[variable]

        values.update(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            if not equation.outvars:
                continue  # run for an effect, such as printing
            results = self._result(equation, [read(variable) for variable in equation.invars], site or Site(equation))
            values.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _result(self, equation: Any, arguments: list[Any], site: Site) -> list[Any]:  # noqa: ANN401, PLR0911
        name = equation.primitive.name
        if name in _CALLS:
            return self._called(equation, arguments, site)
        if name in _rules.IDENTITIES:
            return arguments
        are_known = not any(isinstance(argument, Node) for argument in arguments)
        draws = name in _DRAWING or _draws(equation.params)
        if name in _LOOPS and (draws or not are_known):
            return _LOOPS[name](self, equation, arguments, site)
        if draws or name.endswith("_callback"):
            return _problems(equation, _UNKNOWN.get(name, f"draws within {name}, where the law is unknown"), site)
        if are_known:
            return _full(equation, arguments) or _bound(equation, arguments)
        if not any(isinstance(argument, Node) and is_drawn(argument) for argument in arguments):
            return self._constant(equation, arguments)
        return [_located(result, site) for result in self._drawn(equation, arguments, site)]

    def _called(self, equation: Any, arguments: list[Any], site: Site) -> list[Any]:  # noqa: ANN401
        inner = _inner(equation.params)
        if inner is None or len(inner.jaxpr.invars) != len(arguments):
            return _problems(equation, f"calls {equation.primitive.name}, whose code is unknown", site)
        source = str(getattr(inner.jaxpr.debug_info, "func_src_info", ""))
        name = str(equation.params.get("name"))
        if name in SAMPLERS and _is_of_jax(source, "random"):
            drawn = self._sampled(name, equation, arguments, site)
            if drawn is not None:
                return [drawn]
        if name in ("diagonal", "diag") and _is_of_jax(source) and _is_main_diagonal(equation, arguments):
            return [_rules.diagonal_of(arguments[0])]
        # JAX traces its own functions once, with the lines of the first caller.
        return self.run(inner.jaxpr, inner.consts, arguments, site if _is_of_jax(source) else None)

    def _sampled(self, name: str, equation: Any, arguments: list[Any], site: Site) -> Node | None:  # noqa: ANN401
        key, *rest = arguments
        out = equation.outvars[0].aval
        if isinstance(key, Node):
            return Problem(tuple(out.shape), out.dtype, "draws with a key that is computed from drawn values", site)
        if not _is_key(key):
            return None
        sampling = Sampling(key, tuple(out.shape), np.dtype(out.dtype), site, self.drawings)
        if name in OF_EACH and any(shape != sampling.shape[key.ndim :] for shape in _drawn_shapes(equation.params)):
            return None if name == "_truncated_normal" else sampling.problem(BOUNDS)
        return SAMPLERS[name](sampling, rest)

    def _constant(self, equation: Any, arguments: list[Any]) -> list[Any]:  # noqa: ANN401
        """The results of an equation on constants, some of which may be large."""
        name, out = equation.primitive.name, equation.outvars[0].aval
        nodes = list(map(_nodes.of_array, arguments)) if not any(map(_is_key, arguments)) else []
        is_single = len(equation.outvars) == 1
        if is_single and nodes and all(isinstance(node, Full) for node in nodes) and name in _OF_NUMBERS:
            numbers = [jax.numpy.asarray(node.value) for node in nodes if isinstance(node, Full)]
            parameters = {**equation.params, **({"sharding": None} if "sharding" in equation.params else {})}
            value = np.asarray(equation.primitive.bind(*numbers, **parameters))
            return [_nodes.full(tuple(out.shape), out.dtype, value)]
        if is_single and nodes and name in _MOVING:
            call = self._call(equation, nodes)
            moved = _rules.RULES[name](call)
            if not isinstance(moved, Problem):
                return [moved]
        return _bound(equation, list(map(_known, arguments)))

    def _drawn(self, equation: Any, arguments: list[Any], site: Site) -> list[Node]:  # noqa: ANN401, PLR0911
        name = equation.primitive.name
        if any(map(_is_key, arguments)) or name.startswith("random_"):
            return _problems(equation, "computes a key from drawn values", site)
        call = self._call(equation, map(_nodes.of_array, arguments))
        shapes = [(tuple(variable.aval.shape), variable.aval.dtype) for variable in equation.outvars]
        earlier = next((argument for argument in call.arguments if type(argument) is Problem), None)
        if earlier is not None:
            return [_nodes.propagated(earlier, *shape) for shape in shapes]
        if name == "qr":
            return _rules.decomposed(call, shapes)
        if name == "split":
            return _rules.split(call, shapes)
        if name == "unstack":
            return _rules.unstacked(call, len(shapes))
        if name not in _rules.RULES:
            return _problems(equation, _UNKNOWN.get(name, f"applies {name} to drawn values, which is not served"), site)
        return [_rules.RULES[name](call)]

    def _call(self, equation: Any, arguments: Iterable[Node]) -> _rules.Call:  # noqa: ANN401
        out = equation.outvars[0].aval
        return _rules.Call(
            equation.primitive.bind,
            equation.params,
            tuple(arguments),
            tuple(out.shape),
            out.dtype,
            self.drawings,
        )

    # Control flow, which must not depend on drawn values.

    def _cond(self, equation: Any, arguments: list[Any], site: Site) -> list[Any]:  # noqa: ANN401
        index, *rest = arguments
        if isinstance(index, Node) and is_drawn(index):
            return _problems(equation, "branches on drawn values", site)
        branches = equation.params["branches"]
        number = int(np.clip(int(_known(index)), 0, len(branches) - 1))
        return self.run(branches[number].jaxpr, branches[number].consts, rest, None)

    def _while(self, equation: Any, arguments: list[Any], site: Site) -> list[Any]:  # noqa: ANN401
        condition, body = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
        first, second = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        of_condition, of_body = arguments[:first], arguments[first : first + second]
        carry = arguments[first + second :]
        for _ in range(_MOST_TURNS):
            [is_next] = self.run(condition.jaxpr, condition.consts, [*of_condition, *carry], None)
            if isinstance(is_next, Node) and is_drawn(is_next):
                return _problems(equation, "loops until drawn values end it", site)
            if not bool(_known(is_next)):
                return carry
            carry = self.run(body.jaxpr, body.consts, [*of_body, *carry], None)
        return _problems(equation, f"loops more than {_MOST_TURNS} times around draws", site)

    def _scan(self, equation: Any, arguments: list[Any], site: Site) -> list[Any]:  # noqa: ANN401
        params, body = equation.params, equation.params["jaxpr"]
        length, split = params["length"], params["num_consts"] + params["num_carry"]
        consts, carry, along = (
            arguments[: params["num_consts"]],
            arguments[params["num_consts"] : split],
            arguments[split:],
        )
        if length > _MOST_TURNS:
            return _problems(equation, f"loops more than {_MOST_TURNS} times around draws", site)
        turns: list[list[Any]] = [[] for _ in equation.outvars[params["num_carry"] :]]
        order = range(length)[::-1] if params["reverse"] else range(length)
        for index in order:
            slices = [_item(array, index) for array in along]
            results = self.run(body.jaxpr, body.consts, [*consts, *carry, *slices], None)
            carry, each = results[: params["num_carry"]], results[params["num_carry"] :]
            for turn, result in zip(turns, each, strict=True):
                turn.append(result)
        if params["reverse"]:
            turns = [turn[::-1] for turn in turns]
        shapes = [variable.aval for variable in equation.outvars[params["num_carry"] :]]
        return [*carry, *(self._stacked(turn, aval) for turn, aval in zip(turns, shapes, strict=True))]

    def _stacked(self, turns: list[Any], aval: Any) -> Any:  # noqa: ANN401
        if not turns:
            return _nodes.full(tuple(aval.shape), aval.dtype, 0)
        if not any(isinstance(turn, Node) for turn in turns):
            return jax.numpy.stack([turn if _is_key(turn) else jax.numpy.asarray(turn) for turn in turns])
        return _nodes.stacked([_nodes.of_array(turn) for turn in turns], self.drawings)


_LOOPS: Final[dict[str, Callable[..., list[Any]]]] = {
    "cond": _Interpreter._cond,
    "while": _Interpreter._while,
    "scan": _Interpreter._scan,
}

_MOVING: Final = frozenset(
    (
        "reshape",
        "squeeze",
        "expand_dims",
        "transpose",
        "broadcast_in_dim",
        "slice",
        "rev",
        "concatenate",
        "pad",
        "tile",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "scatter",
    )
)
"""The primitives that turn constants into constants; run as rules, these take no memory for arrays."""

_OF_NUMBERS: Final = frozenset(
    (
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "abs",
        "max",
        "min",
        "pow",
        "integer_pow",
        "square",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "sin",
        "cos",
        "tan",
        "tanh",
        "sinh",
        "cosh",
        "logistic",
        "sqrt",
        "rsqrt",
        "erf",
        "erf_inv",
        "erfc",
        "floor",
        "ceil",
        "round",
        "sign",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "and",
        "or",
        "xor",
        "not",
        "is_finite",
        "select_n",
        "clamp",
        "rem",
        "convert_element_type",
        "reduce_precision",
        "add_any",
        "nextafter",
        "real",
        "imag",
        "complex",
        "conj",
    )
)
"""The elementwise primitives."""

_DRAWING: Final = frozenset(("random_bits", "random_gamma", "rng_uniform", "rng_bit_generator", "threefry2x32"))
"""The primitives that draw JAX's own values; they never run."""

_UNKNOWN: Final = {
    "random_bits": "draws bits, which are not served",
    "random_gamma": "draws from a gamma distribution, which is not served",
    "pure_callback": "calls back into Python, which gives unknown values",
    "io_callback": "calls back into Python, which gives unknown values",
    "svd": "decomposes drawn matrices by svd; only the QR decomposition of normals is known",
    "eigh": "decomposes drawn matrices by eigh; only the QR decomposition of normals is known",
    "cholesky": "decomposes drawn matrices by cholesky; only the QR decomposition of normals is known",
    "sort": "sorts drawn values",
    "while": "loops around drawn values",
}


def _located(node: Any, site: Site) -> Any:  # noqa: ANN401
    if isinstance(node, Problem) and node.site is None:
        return located(node, site)
    return node


def _problems(equation: Any, text: str, site: Site) -> list[Node]:  # noqa: ANN401
    return [Problem(tuple(variable.aval.shape), variable.aval.dtype, text, site) for variable in equation.outvars]


def _inner(parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - JAX's ClosedJaxpr
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call"):
        inner = parameters.get(name)
        if isinstance(inner, jax.extend.core.ClosedJaxpr):
            return inner
        if isinstance(inner, jax.extend.core.Jaxpr):
            return jax.extend.core.ClosedJaxpr(inner, ())
    return None


def _is_of_jax(source: str, *within: str) -> bool:
    return str(Path("jax", "_src", *within)) in source


def _is_main_diagonal(equation: Any, arguments: list[Any]) -> bool:  # noqa: ANN401
    """Whether a diagonal is R's main one, by its shape: R may be too large to find it by indices."""
    matrix = arguments[0] if len(arguments) == 1 else None
    if not isinstance(matrix, _nodes.Signs) or matrix.box is not None:
        return False
    *batch, rows, _ = matrix.shape
    return tuple(equation.outvars[0].aval.shape) == matrix.shape[:-1] and rows not in batch


def _draws(parameters: dict[str, Any]) -> bool:
    """Whether the inner equations of an equation with these parameters draw."""
    return any(equation.primitive.name in _DRAWING for equation in _within(parameters))


def _drawn_shapes(parameters: dict[str, Any]) -> list[Shape]:
    """The shapes that the inner equations of an equation with these parameters draw, for each key."""
    return [tuple(inner.params["shape"]) for inner in _within(parameters) if inner.primitive.name == "random_bits"]


def _within(parameters: dict[str, Any]) -> Iterator[Any]:
    """All inner equations of an equation with these parameters."""
    pending = list(parameters.values())
    while pending:
        parameter = pending.pop()
        if isinstance(parameter, (tuple, list)):
            pending += parameter
        elif isinstance(parameter, jax.extend.core.ClosedJaxpr):
            pending.append(parameter.jaxpr)
        elif isinstance(parameter, jax.extend.core.Jaxpr):
            for equation in parameter.eqns:
                yield equation
                pending += equation.params.values()


def _full(equation: Any, arguments: list[Any]) -> list[Any] | None:  # noqa: ANN401
    """A broadcast number as one number, whatever the size of the result."""
    if equation.primitive.name != "broadcast_in_dim" or _is_key(arguments[0]) or np.size(arguments[0]) != 1:
        return None
    out = equation.outvars[0].aval
    if math.prod(out.shape) <= 1:
        return None
    return [_nodes.full(tuple(out.shape), out.dtype, np.asarray(arguments[0]).reshape(()))]


def _bound(equation: Any, arguments: list[Any]) -> list[Any]:  # noqa: ANN401
    """The results that JAX computes."""
    binding = equation.primitive.get_bind_params(equation.params)
    functions, parameters = binding if isinstance(binding, tuple) else ((), binding)  # before and since JAX 0.10
    with equation.ctx.manager:
        result = equation.primitive.bind(*functions, *arguments, **parameters)
    return list(result) if equation.primitive.multiple_results else [result]


def _is_key(value: Any) -> bool:  # noqa: ANN401
    is_array = isinstance(value, jax.Array)
    return is_array and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)


def _known(value: Any) -> Any:  # noqa: ANN401
    """The value of a node in which nothing is drawn; anything else as it is."""
    return _nodes.evaluated(value) if isinstance(value, Node) else value


def _item(value: Any, index: int) -> Any:  # noqa: ANN401
    if not isinstance(value, Node):
        return value[index]
    size = math.prod(value.shape[1:])
    shape = value.shape[1:]
    box = Box(shape, whole(shape).strides, index * size)
    return _nodes.viewed(value, box)
