"""Records how each parameter of a JAX model is initialised, from the model's own init function."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import numpy as np

from seedbed._ask import arguments as _arguments
from seedbed._record.emit import Held, warn_of_literals
from seedbed._record.nodes import Full, Literal, Node, Problem, is_drawn, leaves, problem_of, site_of_draw
from seedbed.errors import InvalidRequest
from seedbed.jax import _emit, _nodes, _trace
from seedbed.v1 import Model


@dataclasses.dataclass(frozen=True, repr=False)
class Recorded:
    """The result of `record`."""

    model: Model
    """A message of all tensors, for `seedbed.Client.init_model` or a model file."""

    specs: Any
    """The tree that the init function returns, with a TensorSpec in place of each array, for `init_tree`."""

    def __repr__(self) -> str:
        return f"<Recorded {self.model.name}, {len(self.model.tensors)} tensors>"


def record(init: Callable[..., Any], *args: Any, seed: int = 0, **kwargs: Any) -> Recorded:  # noqa: ANN401
    """Records how a model's own init function fills each array of the tree that it returns.

    ``init`` is traced once, as by `jax.eval_shape`, and then interpreted: keys are split and folded as in JAX, nothing
    is drawn, and values that no parameter needs, such as the model's outputs, are not computed. The recording follows
    what JAX would compute, whichever library calls it: draws of `jax.random`, arithmetic on them, slices, transposes,
    concatenations, loops and `jax.vmap` over keys. Values that follow one law are recorded as one scheme; all others as
    parts, literals and expressions. Draws with the same key, law, shape and dtype are equal, as in JAX.

    A tensor's name is its path in the tree, as ``jax.tree_util.keystr(path, simple=True, separator=".")`` returns it;
    the name of a single array is "array".
    Leaves that are not drawn and whose type is not served stay as they are: counters, keys, masks, functions, Python's
    numbers. So `init_tree` makes the whole tree.

    Args:
        init: Returns the tree: such as ``model.init`` of Flax's linen or of Haiku, ``lambda: nnx.split(Model(...))[1]``
            for nnx, or the constructor of an Equinox module.
        *args: Its arguments; for an array on which no parameter depends, such as the model's input, a
            `jax.ShapeDtypeStruct` is enough.
        seed: The seed of every tensor. It is unrelated to the keys in ``args``.
        **kwargs: Its keyword arguments, such as Equinox's ``key``.

    Returns:
        The model as a message, and the tree of specs.

    Raises:
        InvalidRequest: If no recipe describes a leaf; names the leaf, the operation, and the line of the code.

    Warns:
        UserWarning: If the model holds more than 64 MiB of values that the code computes without drawing.

    >>> import jax, seedbed.jax
    >>> def init(key):
    ...     weight = jax.nn.initializers.he_normal()(key, (8, 4))
    ...     return {"weight": weight, "bias": jax.numpy.zeros(4), "step": 0}
    >>> recorded = seedbed.jax.record(init, jax.random.key(0), seed=7)
    >>> [(spec.name, spec.WhichOneof("scheme")) for spec in recorded.model.tensors]
    [('bias', 'zeros'), ('weight', 'trunc_normal')]
    >>> device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> with seedbed.connect("local:") as client:
    ...     params = seedbed.jax.init_tree(client, recorded.specs, device)
    >>> params["weight"].shape, params["step"]
    ((8, 4), 0)
    """
    number = _arguments.integer(seed, "seed", "seed", _arguments.UINT64)
    if not callable(init):
        raise InvalidRequest("init", f"is a {type(init).__name__}; give a function, such as model.init")
    leaves, structure, values = _traced(init, args, kwargs)
    held: list[Held] = []
    result: list[Any] = []
    for (path, leaf), value in zip(leaves, values, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "array"
        node = leaf if value is None else _leaf(name, value)
        if isinstance(node, Node):
            held.append(Held(name, node, str(node.dtype)))
        result.append(node)
    _check_names(held)
    specs = _emit.specs(held, number)
    warn_of_literals(held, stacklevel=2)
    placed = iter(specs)
    tree = jax.tree.unflatten(structure, [next(placed) if isinstance(leaf, Node) else leaf for leaf in result])
    return Recorded(Model(name=_name_of(init), tensors=specs), tree)


def _traced(
    init: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[list[tuple[Any, Any]], Any, list[Any]]:
    """The leaves of what init returns, the tree's structure, and the value of each leaf that is an array."""
    inputs, inputs_tree = jax.tree.flatten((args, kwargs))
    unknown = [index for index, leaf in enumerate(inputs) if isinstance(leaf, jax.ShapeDtypeStruct)]
    kept: list[Any] = []

    def arrays(*values: Any) -> list[Any]:  # noqa: ANN401
        arguments = list(inputs)
        for index, value in zip(unknown, values, strict=True):
            arguments[index] = value
        positional, keyword = jax.tree.unflatten(inputs_tree, arguments)
        leaves, structure = jax.tree_util.tree_flatten_with_path(init(*positional, **keyword))
        kept[:] = [leaves, structure]
        return [leaf for _, leaf in leaves if _is_array(leaf)]

    with jax.disable_jit(False):  # samplers are known by the names of jitted functions
        closed = jax.make_jaxpr(arrays)(*(inputs[index] for index in unknown))
    text = "depends on the values of an argument that is only a jax.ShapeDtypeStruct; give the array itself"
    values = iter(_trace.run(closed, [Problem(tuple(aval.shape), aval.dtype, text) for aval in closed.in_avals]))
    leaves, structure = kept
    found = [next(values) if _is_array(leaf) else None for _, leaf in leaves]
    return [(path, None if _is_array(leaf) else leaf) for path, leaf in leaves], structure, found


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))


def _leaf(name: str, value: Any) -> Any:  # noqa: ANN401
    """A leaf as a node; or as it is, if it is not served."""
    if isinstance(value, Node) and is_drawn(value):
        return _drawn(name, value)
    if isinstance(value, Node) and _is_served(value.dtype) and _nodes.is_few_numbers(value) and _are_finite(value):
        return value
    values = _nodes.evaluated(value) if isinstance(value, Node) else value
    if _is_served(values.dtype):
        node = _nodes.literal(np.asarray(values, order="C"))
        if _are_finite(node):
            return node
    return jax.numpy.asarray(values)


def _drawn(name: str, node: Node) -> Node:
    problem = problem_of(node)
    if problem is not None:
        raise InvalidRequest(name, f"{problem}; {_REMEDY}")
    if not _are_finite(node):
        raise InvalidRequest(
            name, f"is computed from drawn values{_where(node)} and from values that are not finite; {_REMEDY}"
        )
    if not _is_served(node.dtype):
        raise InvalidRequest(
            name,
            f"is drawn as {node.dtype}{_where(node)}; only {', '.join(map(str, _SERVED))} are served: draw it as one "
            "of them, or leave it out of what init returns",
        )
    return node


def _where(node: Node) -> str:
    """The line that draws some of its values, in parentheses."""
    site = site_of_draw(node)
    return f" ({site})" if site else ""


def _are_finite(node: Node) -> bool:
    numbers = ((leaf.values if isinstance(leaf, Literal) else leaf.value, leaf) for leaf in _constants(node))
    return all(bool(np.isfinite(number).all()) for number, leaf in numbers if leaf.dtype.kind not in "biu")


def _constants(node: Node) -> list[Full | Literal]:
    return [leaf for leaf in leaves(node) if isinstance(leaf, (Full, Literal))]


_REMEDY: Final = "compute it from draws by arithmetic, or leave it out of what init returns and compute it yourself"

_SERVED: Final = (*_nodes.FLOATS, _nodes.COMPLEX)


def _is_served(dtype: Any) -> bool:  # noqa: ANN401
    return any(dtype == served for served in _SERVED)


def _check_names(held: Sequence[Held]) -> None:
    seen: set[str] = set()
    for tensor in held:
        if tensor.name in seen:
            raise InvalidRequest(
                tensor.name, "names two leaves of the tree; use keys without dots, so that the paths differ"
            )
        seen.add(tensor.name)


def _name_of(init: Callable[..., Any]) -> str:
    if isinstance(init, types.MethodType) and not isinstance(init.__self__, type):
        return type(init.__self__).__name__
    name = getattr(init, "__name__", "")
    return "model" if not name or name.startswith(("<", "init")) else str(name)
