"""Records how each parameter and buffer of a model is initialised, from the model's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map_only

from seedbed import dtypes
from seedbed._ask import arguments
from seedbed._client.sync import Client
from seedbed._record.boxes import Box, row_major
from seedbed._record.emit import Held, warn_of_literals
from seedbed._record.nodes import Full, Literal, Node, is_drawn, leaves, problem_of
from seedbed._types import Progress
from seedbed.errors import InvalidRequest
from seedbed.torch import _emit, _module, _nodes
from seedbed.torch._functions import attributes
from seedbed.torch._trace import Trace, trace
from seedbed.v1 import Model

Build = Callable[[], torch.nn.Module]


def record(build: Build, seed: int = 0, *, independent_copies: bool = False, check: bool = False) -> Model:
    """Records how a model's own code fills each parameter and buffer.

    ``build`` runs once, without memory for weights and without drawing. The recording follows what torch computes,
    whichever functions call it: draws of every kind, arithmetic on them, slices, transposes, concatenations and copies.
    Values that follow one law are recorded as one scheme, such as `randn(n, d) * 0.02` as a normal; all others as
    parts, literals and expressions. Values that are equal in the code are equal in the recording: a copy shares its
    original's stream, and so do draws from the same state of a generator. A tensor that is filled again has its last
    values.

    The model lists all parameters, tied ones once by their first name; and those buffers that are drawn, are constant,
    or are of floating point and saved with the module. Other buffers (counters, masks) are not part of a model file:
    `on_meta` keeps them.

    Args:
        build: Builds the module anew; a class or function without arguments. Meanwhile Python's and NumPy's global
            generators are seeded with ``seed``, so that their values depend on it, too.
        seed: The seed of every tensor.
        independent_copies: Whether copies draw different values instead.
        check: Whether to record twice, and refuse a model that differs: one that depends on time, on unseeded
            generators, or on the order of a set.

    Returns:
        A Model message, for `init_module`, `seedbed.Client.init_model` or a model file.

    Raises:
        InvalidRequest: If no recipe describes a tensor; names the tensor, the operation, and the line of the code.

    Warns:
        UserWarning: If the model holds more than 64 MiB of values that the code computes without drawing.

    >>> import torch, seedbed.torch
    >>> model = seedbed.torch.record(lambda: torch.nn.Linear(16, 4), seed=7)
    >>> [(spec.name, list(spec.shape), round(spec.uniform.b, 6)) for spec in model.tensors]
    [('weight', [4, 16], 0.25), ('bias', [4], 0.25)]
    """
    model = _model_of(_traced(build, seed), seed, independent_copies)
    if check:
        _check_same(model, _model_of(_traced(build, seed), seed, independent_copies))
    return model


def on_meta(build: Build) -> torch.nn.Module:
    """Builds a module whose parameters take no memory yet, but whose buffers have their values.

    Under ``with torch.device("meta")`` buffers lose their values, and nothing restores those that the code computes.
    Here only buffers that the code draws are left to `init_module`, as parameters are.

    Args:
        build: Builds the module anew; a class or function without arguments.

    Returns:
        The module, its parameters on the meta device, for ``fully_shard`` or ``parallelize_module``, then
        `init_module`.

    >>> import torch, seedbed.torch
    >>> norm = seedbed.torch.on_meta(lambda: torch.nn.BatchNorm1d(2))
    >>> norm.weight.device, norm.running_var
    (device(type='meta'), tensor([1., 1.]))
    """
    return _put_on_meta(_traced(build, 0))


def build(
    build: Build,
    client: Client,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | bool | None = None,
) -> torch.nn.Module:
    """Builds a module and fills it: `record`, `on_meta` and `init_module` in one, without sharding in between.

    Args:
        build: Builds the module anew; a class or function without arguments. It runs once.
        client: A client, such as ``seedbed.connect("local:")``.
        seed: The seed of every tensor.
        device: Where the module goes; default the CPU.
        progress: As for `init_module`.

    Returns:
        The module, with its values.

    Raises:
        InvalidRequest: As for `record` and `init_module`.
        SeedbedError: If the server is unreachable, or fails.

    >>> import seedbed, torch, seedbed.torch
    >>> with seedbed.connect("local:") as client:
    ...     layer = seedbed.torch.build(lambda: torch.nn.Linear(64, 64), client, seed=7)
    >>> bool(layer.weight.abs().max() <= 1 / 8)
    True
    """
    traced = _traced(build, seed)
    model = _model_of(traced, seed, independent_copies=False)
    module = _put_on_meta(traced)
    place = torch.device("cpu" if device is None else device)
    _module.init_module(module, client, model=model, progress=progress, device=place)
    return module if device is None else module.to(place)


def _traced(build: Build, seed: int) -> Trace:
    traced = trace(build, arguments.integer(seed, "seed", "seed", arguments.UINT64))
    if not isinstance(traced.module, torch.nn.Module):
        raise InvalidRequest("build", f"returned a {type(traced.module).__name__}; it must return a torch.nn.Module")
    return traced


def _model_of(traced: Trace, seed: int, independent_copies: bool) -> Model:
    module = traced.module
    assert isinstance(module, torch.nn.Module)  # for mypy
    held: list[Held] = []
    places: dict[int, list[tuple[str, Box]]] = {}
    for name, tensor in module.named_parameters():
        if torch.nn.parameter.is_lazy(tensor):
            raise InvalidRequest(name, "has no shape before the module is called; give the lazy module its sizes")
        node = _parameter_node(name, tensor, traced)
        _check_apart(name, tensor, places)
        held.append(Held(name, node, _module.dtype_name(tensor)))
    for name, buffer in module.named_buffers():
        listed = _buffer_node(name, buffer, traced, _is_saved(module, name))
        if listed is not None:
            _check_apart(name, buffer, places)
            held.append(Held(name, listed, _module.served_dtype(buffer)))
    model = Model(name=type(module).__name__, tensors=_emit.specs(held, seed, independent_copies))
    warn_of_literals(held, stacklevel=3)
    return model


def _parameter_node(name: str, parameter: torch.Tensor, traced: Trace) -> Node:
    if _module.dtype_name(parameter) not in dtypes.NAMES:
        raise InvalidRequest(name, f"has dtype {parameter.dtype}; only {', '.join(dtypes.NAMES)} are served")
    node = traced.value(parameter).settled()
    if not parameter.numel():
        return node
    if problem := problem_of(node):
        raise InvalidRequest(name, str(problem))
    _check_finite(name, node)
    return node


def _buffer_node(name: str, buffer: torch.Tensor, traced: Trace, is_saved: bool) -> Node | None:
    """What a buffer holds; None if it is not part of the model."""
    is_float = _module.dtype_name(buffer) in dtypes.NAMES
    if not is_float and (buffer.is_complex() or not traced.is_symbolic(buffer)):
        return None
    node = traced.value(buffer).settled()
    problem = problem_of(node)
    if is_drawn(node):
        if problem:
            raise InvalidRequest(name, str(problem))
        return node
    if problem or not is_float or not buffer.numel() or not _are_finite(node):
        return None
    if isinstance(node, Literal) and isinstance(_emit.recognised(node), Literal) and not is_saved:
        return None
    return node


def _is_saved(module: torch.nn.Module, name: str) -> bool:
    owner, _, own = name.rpartition(".")
    return own not in module.get_submodule(owner)._non_persistent_buffers_set


def _are_finite(node: Node) -> bool:
    return all(
        bool(torch.as_tensor(leaf.values if isinstance(leaf, Literal) else leaf.value).isfinite().all())
        for leaf in leaves(node)
        if isinstance(leaf, (Literal, Full))
    )


def _check_finite(name: str, node: Node) -> None:
    if not _are_finite(node):
        raise InvalidRequest(name, "holds values that are not finite, which are not served")


def _check_apart(name: str, tensor: torch.Tensor, places: dict[int, list[tuple[str, Box]]]) -> None:
    """Refuses tensors that share memory: in torch, training one changes the other, but not once they are filled."""
    here = places.setdefault(int(tensor.untyped_storage()._cdata), [])
    box = Box.of(tensor)
    for other, place in here:
        if not box.is_apart_from(place):
            raise InvalidRequest(name, f"shares memory with {other}; to tie them, make them the same Parameter")
    here.append((name, box))


def _check_same(model: Model, again: Model) -> None:
    names, others = ([spec.name for spec in each.tensors] for each in (model, again))
    if names != others:
        raise InvalidRequest("build", "builds different parameters each time that it runs; make it deterministic")
    for spec, other in zip(model.tensors, again.tensors, strict=True):
        if spec != other:
            raise InvalidRequest(
                spec.name,
                "is initialised differently each time that the code runs: by an unseeded generator, by the time, or in "
                "the order of a set; make it deterministic",
            )


# Modules without memory.


def _put_on_meta(traced: Trace) -> torch.nn.Module:
    """The module with its parameters and its drawn buffers on the meta device, and all others with values."""
    module = traced.module
    assert isinstance(module, torch.nn.Module)  # for mypy
    change = _module.once(lambda tensor: _without_fakes(tensor, traced))
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in _present(tensors):
                tensors[name] = change(tensor)  # type: ignore[assignment]
        for name, value in list(vars(part).items()):
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            if any(isinstance(leaf, FakeTensor) for leaf in tree_leaves(value)):
                vars(part)[name] = tree_map_only(FakeTensor, change, value)
    return module


def _present(tensors: Any) -> Iterator[tuple[str, torch.Tensor]]:  # noqa: ANN401 - torch's dictionaries
    yield from [(name, tensor) for name, tensor in tensors.items() if tensor is not None]


def _without_fakes(tensor: torch.Tensor, traced: Trace) -> torch.Tensor:
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    if not is_parameter and not traced.is_symbolic(tensor):
        return tensor
    node = traced.value(tensor)
    if is_parameter or is_drawn(node):
        strides = tensor.stride() if Box.of(tensor).is_dense else row_major(tuple(tensor.shape))
        plain = torch.empty_strided(tuple(tensor.size()), tuple(strides), dtype=tensor.dtype, device="meta")
    elif problem_of(node):
        plain = torch.zeros(tuple(tensor.size()), dtype=tensor.dtype)  # memory that is never written
    else:
        plain = _nodes.evaluated(node).clone()
    if is_parameter:
        plain = torch.nn.Parameter(plain, requires_grad=tensor.requires_grad)
    for name, value in attributes(tensor).items():
        setattr(plain, name, value)
    return plain
