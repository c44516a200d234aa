"""Fills the tensors of a module in place."""

from __future__ import annotations

import collections
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch
from torch.distributed.tensor import DTensor

from seedbed import dtypes
from seedbed._ask import arguments, outputs, schemes
from seedbed._client.sync import Client
from seedbed._inside.cuda import CudaClient
from seedbed._show import bars
from seedbed._types import Array, Progress
from seedbed.common import fields
from seedbed.errors import InvalidRequest
from seedbed.torch import _nodes
from seedbed.torch._shards import check_not_copied, global_shape, local_parts
from seedbed.v1 import Model, Recipe, TensorSlice, TensorSpec

Rule = tuple[str, str, Mapping[str, object]]
"""A pattern of names as in ``fnmatch``, a scheme of `seedbed.SCHEMES`, and the scheme's parameters."""

_WRAPPERS = re.compile(r"(?<![^.])(_checkpoint_wrapped_module|_orig_mod|_fsdp_wrapped_module)\.")
"""What activation checkpointing, `torch.compile` and FSDP 1 insert into names; checkpoints omit it."""


def init_module(
    module: torch.nn.Module,
    client: Client,
    seed: int | None = None,
    model: Model | None = None,
    rules: Sequence[Rule] | None = None,
    progress: Progress | bool | None = None,
    device: torch.device | str = "cpu",
    only: str | Sequence[str] | None = None,
) -> None:
    """Fills a module's parameters in place; each rank fills only its own shards.

    Parameters may be plain tensors or the DTensors of ``fully_shard``, ``parallelize_module`` or both, on the CPU or on
    a GPU; those on the meta device are materialised first. No rank talks to another. Tied parameters are filled once,
    and stay tied. What is filled is the same for every sharding, bit for bit.

    Buffers are filled if the model lists them; all others stay as and where they are. One on the meta device has no
    values, so build the module with `on_meta`.

    With the target ``local:cuda`` parameters must be on the GPU, and are sampled there in place. With other targets
    those on a GPU are sampled in the CPU's memory, one after another, and copied.

    Args:
        module: The module. If the call fails once sampling has begun, it is partly filled: do not use it.
        client: A client, such as ``seedbed.connect("local:")``.
        seed: The seed of every tensor; default the model's own, or 0 with rules.
        model: What `record` gives, or a model file: the scheme of each parameter, by name.
        rules: In place of a model: a list of `Rule`; the first that matches a parameter's name applies, such as
            ``[("*.bias", "zeros", {}), ("*", "normal", {"std": 0.02})]``.
        progress: Called as ``progress(done_bytes, total_bytes)`` of this rank's bytes; True draws a bar on rank 0.
        device: Where tensors on the meta device go; a DTensor goes where its mesh is.
        only: A pattern of names as in ``fnmatch``, or several, such as ``"*lora_*"``. Tensors that match none of them
            keep their values, and are ignored in the model. Default: everything is filled.

    Raises:
        InvalidRequest: If model or rules do not fit the module, before anything is changed; or if the server refuses
            a tensor.
        SeedbedError: If the server is unreachable, or fails.

    >>> import seedbed, torch, seedbed.torch
    >>> layer = torch.nn.Linear(64, 64)
    >>> rules = [("*bias", "zeros", {}), ("*", "kaiming_normal", {"nonlinearity": "relu"})]
    >>> with seedbed.connect("local:") as client:
    ...     seedbed.torch.init_module(layer, client, seed=7, rules=rules)
    >>> bool((layer.bias == 0).all()), round(layer.weight.std().item(), 1)
    (True, 0.2)
    """
    if progress is True:
        bars.check_rich()  # on every rank: otherwise the others would wait for the one that fails
    specs = specs_of(module, seed, model, rules, only)
    _check_buffers(module, specs, only)
    tensors = tensors_of(module)
    for name in specs:
        check_not_copied(name, tensors[name])
    _slots(module, specs)  # refuses unsupported placements before anything is changed
    _materialise(module, device, only)
    _fill(_slots(module, specs), client, _of_rank(progress))


def convert(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replaces tensors of a module, as ``module.to`` does, but keeps tied ones tied.

    Args:
        module: The module; parts of it may be wrapped by ``fully_shard``.
        change: Returns the new tensor, or the same one.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    # `to` and `to_empty` call this; FSDP overrides it.
    module._apply(once(change))  # type: ignore[no-untyped-call]
    for first, *others in names.values():
        for other in others:
            owner, _, name = other.rpartition(".")
            setattr(module.get_submodule(owner), name, module.get_parameter(first))


def once(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same change, made once of each tensor, so that tied tensors stay tied."""
    changed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # with the old tensor, so that no other gets its id

    def change_once(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in changed:
            changed[id(tensor)] = tensor, change(tensor)
        return changed[id(tensor)][1]

    return change_once


def dtype_name(tensor: torch.Tensor) -> str:
    """The name of a tensor's dtype, which is Seedbed's if it is served."""
    return str(tensor.dtype).removeprefix("torch.")


def served_dtype(tensor: torch.Tensor) -> str:
    """The dtype that a tensor is served in: its own, or float64 for integers."""
    return dtype_name(tensor) if _nodes.is_served(tensor.dtype) else "float64"


def specs_of(
    module: torch.nn.Module,
    seed: int | None,
    model: Model | None,
    rules: Sequence[Rule] | None,
    only: str | Sequence[str] | None,
) -> dict[str, TensorSpec]:
    """The spec of each tensor, by name.

    Args:
        module: The module.
        seed: As for `init_module`.
        model: As for `init_module`.
        rules: As for `init_module`.
        only: As for `init_module`.

    Raises:
        InvalidRequest: If model or rules do not fit the module, or not one of them is spec.
    """
    if model is not None and rules is None:
        return _specs_of_model(module, model, seed, only)
    if rules is not None and model is None:
        return _specs_by_rules(module, rules, seed or 0, only)
    raise InvalidRequest("model", "give either a model or rules")


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters and buffers by name, tied ones once."""
    return {**parameters_of(module), **buffers_of(module)}


def parameters_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters by the names that they have without wrappers, tied ones once."""
    return {unwrapped(name): tensor for name, tensor in _bare(module).named_parameters()}


def buffers_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's buffers by the names that they have without wrappers."""
    return {unwrapped(name): tensor for name, tensor in _bare(module).named_buffers()}


def unwrapped(name: str) -> str:
    """The name as it is in a checkpoint.

    >>> unwrapped("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    return _WRAPPERS.sub("", name)


def _bare(module: torch.nn.Module) -> torch.nn.Module:
    """The module that DistributedDataParallel or DataParallel wraps."""
    wrappers = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    return module.module if isinstance(module, wrappers) else module


def _is_among(name: str, only: str | Sequence[str] | None) -> bool:
    patterns = [only] if isinstance(only, str) else only
    return patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _among(tensors: Mapping[str, Any], only: str | Sequence[str] | None) -> dict[str, Any]:
    found = {name: tensor for name, tensor in tensors.items() if _is_among(name, only)}
    if not found and only is not None:
        raise InvalidRequest("only", f"{only!r} matches none of {_listed(tensors)}")
    return found


def _specs_of_model(
    module: torch.nn.Module, model: Model, seed: int | None, only: str | Sequence[str] | None
) -> dict[str, TensorSpec]:
    names = collections.Counter(spec.name for spec in model.tensors)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise InvalidRequest("model", f"has several tensors with the same name: {_listed(repeated)}")
    tensors = _among(tensors_of(module), only)
    parameters = {name: tensor for name, tensor in parameters_of(module).items() if name in tensors}
    specs = {spec.name: spec for spec in model.tensors if _is_among(spec.name, only)}
    if missing := parameters.keys() - specs.keys():
        raise InvalidRequest("model", f"lacks parameters of the module: {_listed(missing)}")
    if unknown := specs.keys() - tensors.keys():
        raise InvalidRequest("model", f"has tensors that the module lacks: {_listed(unknown)}")
    left = tensors_of(module).keys() - tensors.keys()
    _check_apart(specs.values(), [spec for spec in model.tensors if spec.name in left], left)
    for name, spec in specs.items():
        _check(tensors[name], spec)
    if seed is None:
        return specs
    number = arguments.integer(seed, "seed", "seed", arguments.UINT64)
    return {name: _with_seed(spec, number) for name, spec in specs.items()}


def _check_apart(specs: Iterable[TensorSpec], others: Iterable[TensorSpec], left: Set[str]) -> None:
    """Refuses to fill one of two tensors with draws in common: the other may hold other values by now.

    Args:
        specs: The specs of tensors that are filled.
        others: The specs of tensors that are left as they are.
        left: The names of all tensors that are left as they are.

    Raises:
        InvalidRequest: If there are two such tensors; names both.
    """
    users = {owner: spec.name for spec in others for owner in _owners(spec)} | {name: name for name in left}
    for spec in specs:
        other = next((users[owner] for owner in _owners(spec) if owner in users), None)
        if other is not None:
            raise InvalidRequest(
                spec.name,
                f"has draws in common with {other}, which is left as it is, so the two may not match; let only name "
                "both or neither, or give rules if they need not match",
            )


def _owners(spec: TensorSpec) -> list[str]:
    """The tensors after which a tensor's streams are named; first, the tensor itself."""
    return [spec.name, *(stream.partition("#")[0] for stream in _streams(spec))]


def _streams(recipe: TensorSpec | Recipe) -> Iterator[str]:
    """The streams that are named in a recipe, and in those within it."""
    if recipe.stream:
        yield recipe.stream
    for part in recipe.parts.parts:
        yield from _streams(part.recipe)
    for step in recipe.expression.steps:
        if step.HasField("recipe"):
            yield from _streams(step.recipe)


def _check(tensor: torch.Tensor, spec: TensorSpec) -> None:
    if (shape := global_shape(tensor)) != tuple(spec.shape):
        raise InvalidRequest(spec.name, f"has shape {shape} in the module and {tuple(spec.shape)} in the model")
    if served_dtype(tensor) != (name := dtypes.name_of(spec.dtype)):
        raise InvalidRequest(spec.name, f"has dtype {dtype_name(tensor)} in the module and {name} in the model")


def _with_seed(spec: TensorSpec, seed: int) -> TensorSpec:
    result = TensorSpec()
    result.CopyFrom(spec)
    result.seed = seed
    return result


def _specs_by_rules(
    module: torch.nn.Module, rules: Sequence[Rule], seed: int, only: str | Sequence[str] | None
) -> dict[str, TensorSpec]:
    specs, unmatched = {}, []
    for name, tensor in _among(parameters_of(module), only).items():
        rule = next((rule for rule in rules if fnmatch.fnmatchcase(name, rule[0])), None)
        if rule is None:
            unmatched.append(name)
            continue
        _, scheme, parameters = rule
        specs[name] = schemes.spec(
            scheme, global_shape(tensor), **parameters, name=name, dtype=dtype_name(tensor), seed=seed
        )
    if unmatched:
        raise InvalidRequest("rules", f'match none of {_listed(unmatched)}; end them with ("*", scheme, parameters)')
    return specs


def _listed(unordered: Iterable[str]) -> str:
    names = sorted(unordered)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _check_buffers(module: torch.nn.Module, specs: Mapping[str, TensorSpec], only: str | Sequence[str] | None) -> None:
    for name, buffer in buffers_of(module).items():
        if buffer.is_meta and name not in specs and _is_among(name, only):
            remedy = (
                "give the model that seedbed.torch.record makes, which has the buffers that the code draws, and build "
                "the module with seedbed.torch.on_meta, which keeps all others"
            )
            raise InvalidRequest(
                name, f"is a buffer on the meta device, without values, and not in the model; {remedy}"
            )


def _materialise(module: torch.nn.Module, device: torch.device | str, only: str | Sequence[str] | None) -> None:
    kept = {id(tensor) for name, tensor in tensors_of(module).items() if not _is_among(name, only)}

    def on_device(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_meta or id(tensor) in kept:
            return tensor
        place = tensor.device_mesh.device_type if isinstance(tensor, DTensor) else device
        return torch.empty_like(tensor, device=place)

    convert(module, on_device)


class _Slot(NamedTuple):
    """A part of a tensor that this rank holds, and its memory."""

    part: TensorSlice
    memory: torch.Tensor


def _slots(module: torch.nn.Module, specs: Mapping[str, TensorSpec]) -> list[_Slot]:
    """What this rank requests, and where it goes."""
    tensors = tensors_of(module)
    return [
        _Slot(TensorSlice(spec=spec, region=region), memory)
        for name, spec in specs.items()
        for region, memory in local_parts(name, tensors[name], spec.HasField("zeros"))
    ]


@torch.no_grad()
def _fill(slots: Sequence[_Slot], client: Client, progress: Progress | bool | None) -> None:
    memories: dict[str, list[torch.Tensor]] = {}
    for part, memory in slots:
        memories.setdefault(part.spec.name, []).append(memory)
    arrays = client.init_model(
        [part for part, _ in slots],
        out=lambda name: _destination(memories[name].pop(0), client),
        progress=progress,
    )
    try:
        for (_, array), (_, memory) in zip(arrays, slots, strict=True):
            if isinstance(array, np.ndarray) and not _is_in_reach(memory):
                memory.copy_(as_tensor(array))
    except InvalidRequest as error:
        if (place := fields.split(error.field)) is None:
            raise
        index, rest = place
        name = slots[index].part.spec.name
        raise InvalidRequest(name + rest.removeprefix(".spec"), error.description) from None


def _destination(memory: torch.Tensor, client: Client) -> Any:  # noqa: ANN401 - an array, or an object that CuPy accepts as one
    """What the client fills: the tensor's own memory, if the client can reach it."""
    if isinstance(client, CudaClient) and _nodes.is_served(memory.dtype):
        return memory
    return as_array(memory) if _is_in_reach(memory) else None


def _is_in_reach(memory: torch.Tensor) -> bool:
    """Whether NumPy can write values there as they are served."""
    return memory.device.type == "cpu" and _nodes.is_served(memory.dtype)


def as_array(tensor: torch.Tensor) -> Array:
    """The same memory as a NumPy array."""
    return outputs.of_torch(tensor, torch)


def as_tensor(array: Array) -> torch.Tensor:
    """The same memory as a tensor."""
    if array.dtype != ml_dtypes.bfloat16:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)


def _of_rank(progress: Progress | bool | None) -> Progress | bool | None:
    """Progress on this rank: only the first one draws a bar."""
    if progress is True and torch.distributed.is_initialized() and torch.distributed.get_rank():
        return None
    return progress
