"""Fills the tensors of a module in place."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch
from torch.distributed.tensor import DTensor

from seedbed import _arguments, _outputs, dtypes
from seedbed._client import Client
from seedbed._cuda import CudaClient
from seedbed._schemes import spec
from seedbed._stream import OF_TENSOR
from seedbed._types import Array, Progress
from seedbed.errors import InvalidRequest
from seedbed.torch import _zero
from seedbed.torch._shards import local_parts
from seedbed.v1 import Model, Recipe, TensorSlice, TensorSpec

Rule = tuple[str, str, Mapping[str, object]]
"""A pattern of names as in ``fnmatch``, a scheme of `seedbed.SCHEMES`, and the scheme's parameters."""


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
    """Fills a module's parameters in place, each rank its own shards alone.

    Parameters may be plain tensors or the DTensors of ``fully_shard``, ``parallelize_module`` or both, on the CPU or on
    a GPU; those on the meta device are materialised first. They may be partitioned by ``deepspeed.zero.Init``, and not
    yet by ``deepspeed.initialize``. No rank talks to another. Tied parameters are filled once, and stay tied. What is
    filled is the same for every sharding, bit for bit.

    Buffers are filled if the model lists them, and else left as and where they are; one on the meta device has no
    values, so build the module with `on_meta`.

    With the target ``local:cuda`` parameters have to be on the GPU, and are sampled in place there; with other targets
    those on a GPU are sampled in the CPU's memory, one after another, and copied.

    Args:
        module: The module. If the call fails once sampling has begun, it is partly filled: do not use it.
        client: A client, such as ``seedbed.connect("local:")``.
        seed: The seed of every tensor; default the model's own, or 0 with rules.
        model: What `record` gives, or a model file: the scheme of each parameter, by name.
        rules: In place of a model: `Rule`, of which the first that matches a parameter's name counts, such as
            ``[("*.bias", "zeros", {}), ("*", "normal", {"std": 0.02})]``.
        progress: Called as ``progress(done_bytes, total_bytes)`` of this rank's bytes; True writes a line on rank 0.
        device: Where tensors on the meta device go; a DTensor goes where its mesh is.
        only: Names, or patterns of them as in ``fnmatch``, of what to fill, such as ``"*.lora_*"``; all else is left as
            it is, and model or rules need not tell of it. Default everything.

    Raises:
        InvalidRequest: If model or rules do not fit the module, before anything is changed; or if the server refuses
            what they ask for.
        SeedbedError: If the server cannot be reached, or fails.

    >>> import seedbed, torch, seedbed.torch
    >>> layer = torch.nn.Linear(64, 64)
    >>> rules = [("*bias", "zeros", {}), ("*", "kaiming_normal", {"nonlinearity": "relu"})]
    >>> with seedbed.connect("local:") as client:
    ...     seedbed.torch.init_module(layer, client, seed=7, rules=rules)
    >>> bool((layer.bias == 0).all()), round(layer.weight.std().item(), 1)
    (True, 0.2)
    """
    specs = specs_of(module, seed, model, rules, only)
    if only is None:
        _check_buffers(module, specs)
    for name, tensor in _tensors_of(module, specs):
        _zero.check_fillable(name, tensor)
    _wanted(module, specs)  # a placement that cannot be filled is refused before anything is changed
    _materialise(module, specs, device)
    _fill(_wanted(module, specs), client, _printer() if progress is True else progress or None)


def convert(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replaces tensors of a module, as ``module.to`` does, but what is tied stays tied.

    Args:
        module: The module; parts of it may be wrapped by ``fully_shard``.
        change: Gives the new tensor, or the same.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    changed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # with the old one, so that no other gets its id

    def change_once(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in changed:
            changed[id(tensor)] = tensor, change(tensor)
        return changed[id(tensor)][1]

    # What `to` and `to_empty` are made of; FSDP takes part in it.
    module._apply(change_once)  # type: ignore[no-untyped-call]
    for first, *others in names.values():
        for other in others:
            owner, _, name = other.rpartition(".")
            setattr(module.get_submodule(owner), name, module.get_parameter(first))


def dtype_name(tensor: torch.Tensor) -> str:
    """The name of a tensor's element type, as Seedbed's if it has it."""
    return str(tensor.dtype).removeprefix("torch.")


def served_dtype(tensor: torch.Tensor) -> str:
    """The dtype that a tensor is served in: its own, or float64, which holds what is drawn into integers."""
    return dtype_name(tensor) if _is_served(tensor) else "float64"


def specs_of(
    module: torch.nn.Module,
    seed: int | None,
    model: Model | None,
    rules: Sequence[Rule] | None,
    only: str | Sequence[str] | None,
) -> dict[str, TensorSpec]:
    """What each tensor shall hold, by name.

    Args:
        module: The module.
        seed: As for `init_module`.
        model: As for `init_module`.
        rules: As for `init_module`.
        only: As for `init_module`.

    Raises:
        InvalidRequest: If model or rules do not fit the module, not one of them is given, or ``only`` names nothing.
    """
    parameters = dict(module.named_parameters())
    if model is not None and rules is None:
        chosen = _chosen([*parameters, *(given.name for given in model.tensors)], only)
        return _specs_of_model(module, model, seed, chosen)
    if rules is not None and model is None:
        chosen = _chosen(parameters, only)
        return _specs_by_rules({name: parameters[name] for name in parameters if name in chosen}, rules, seed or 0)
    raise InvalidRequest("model", "give either a model or rules")


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters and buffers by name, tied ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _chosen(names: Iterable[str], only: str | Sequence[str] | None) -> set[str]:
    """The names that are meant.

    Raises:
        InvalidRequest: If one of ``only`` means none.
    """
    names = set(names)
    if only is None:
        return names
    chosen: set[str] = set()
    if not only:
        raise InvalidRequest("only", "is empty, which would fill nothing; give names or patterns, or leave it out")
    for pattern in [only] if isinstance(only, str) else only:
        matched = {pattern} & names or set(fnmatch.filter(names, pattern))
        if not matched:
            raise InvalidRequest("only", f"{pattern!r} matches none of {_listed(names)}; give names or patterns")
        chosen |= matched
    return chosen


def _tensors_of(module: torch.nn.Module, names: Iterable[str]) -> list[tuple[str, torch.Tensor]]:
    tensors = tensors_of(module)
    return [(name, tensors[name]) for name in names]


def _specs_of_model(module: torch.nn.Module, model: Model, seed: int | None, chosen: set[str]) -> dict[str, TensorSpec]:
    parameters = {name for name, _ in module.named_parameters()} & chosen
    tensors = tensors_of(module)
    specs = {given.name: given for given in model.tensors}
    if len(specs) < len(model.tensors):
        raise InvalidRequest("model", "has several tensors of one name")
    if missing := parameters - specs.keys():
        raise InvalidRequest("model", f"lacks parameters of the module: {_listed(missing)}")
    if unknown := specs.keys() - tensors.keys():
        raise InvalidRequest("model", f"has tensors that the module lacks: {_listed(unknown)}")
    _check_apart(specs.values(), tensors.keys() - chosen)
    specs = {name: given for name, given in specs.items() if name in chosen}
    for name, given in specs.items():
        _check(tensors[name], given)
    if seed is None:
        return specs
    number = _arguments.integer(seed, "seed", "seed", _arguments.UINT64)
    return {name: _with_seed(given, number) for name, given in specs.items()}


def _check_apart(specs: Iterable[TensorSpec], left: set[str]) -> None:
    """Refuses to fill one tensor of two that are made of the same draws: the other holds something else by now.

    Args:
        specs: All that the model tells of.
        left: The tensors that are not filled.

    Raises:
        InvalidRequest: If there are such; names both.
    """
    users = {name: name for name in left}
    for given in specs:
        if given.name in left:
            users |= {owner: given.name for owner in _owners(given) if owner not in left}
    for given in specs:
        other = next((users[owner] for owner in _owners(given) if owner in users), None)
        if given.name not in left and other is not None:
            raise InvalidRequest(
                given.name,
                f"has draws in common with {other}, which is left as it is, so that the two would not fit; let only "
                "name both or neither, or give rules if they need not fit",
            )


def _owners(given: TensorSpec) -> list[str]:
    """The tensors after which the streams of a tensor are named, itself first."""
    return [given.name, *(stream.partition("#")[0] for stream in _streams(given))]


def _streams(given: TensorSpec | Recipe) -> Iterator[str]:
    """The streams that are named in a message, and in what it is made of."""
    if given.stream:
        yield given.stream
    for part in given.parts.parts:
        yield from _streams(part.recipe)
    for step in given.expression.steps:
        if step.HasField("recipe"):
            yield from _streams(step.recipe)


def _check(tensor: torch.Tensor, given: TensorSpec) -> None:
    if (shape := _zero.shape_of(tensor)) != tuple(given.shape):
        raise InvalidRequest(given.name, f"has shape {shape} in the module and {tuple(given.shape)} in the model")
    if served_dtype(tensor) != (name := dtypes.name_of(given.dtype)):
        raise InvalidRequest(given.name, f"has dtype {dtype_name(tensor)} in the module and {name} in the model")


def _with_seed(given: TensorSpec, seed: int) -> TensorSpec:
    result = TensorSpec()
    result.CopyFrom(given)
    result.seed = seed
    return result


def _specs_by_rules(parameters: Mapping[str, torch.Tensor], rules: Sequence[Rule], seed: int) -> dict[str, TensorSpec]:
    specs, unmatched = {}, []
    for name, tensor in parameters.items():
        rule = next((rule for rule in rules if fnmatch.fnmatchcase(name, rule[0])), None)
        if rule is None:
            unmatched.append(name)
            continue
        _, scheme, arguments = rule
        shape = _zero.shape_of(tensor)
        specs[name] = spec(scheme, shape, **arguments, name=name, dtype=dtype_name(tensor), seed=seed)
    if unmatched:
        raise InvalidRequest("rules", f'match none of {_listed(unmatched)}; end them with ("*", scheme, parameters)')
    return specs


def _listed(unordered: Iterable[str]) -> str:
    names = sorted(unordered)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _check_buffers(module: torch.nn.Module, specs: Mapping[str, TensorSpec]) -> None:
    for name, buffer in module.named_buffers():
        if buffer.is_meta and name not in specs:
            remedy = (
                "give the model that seedbed.torch.record makes, which has what the code draws, and build the module "
                "with seedbed.torch.on_meta, which keeps all other buffers"
            )
            raise InvalidRequest(
                name, f"is a buffer on the meta device, without values, and not in the model; {remedy}"
            )


def _materialise(module: torch.nn.Module, names: Iterable[str], device: torch.device | str) -> None:
    wanted = {id(tensor) for _, tensor in _tensors_of(module, names)}

    def on_device(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_meta or id(tensor) not in wanted:
            return tensor
        place = tensor.device_mesh.device_type if isinstance(tensor, DTensor) else device
        return torch.empty_like(tensor, device=place)

    convert(module, on_device)


class _Wanted(NamedTuple):
    part: TensorSlice
    memory: torch.Tensor


def _wanted(module: torch.nn.Module, specs: Mapping[str, TensorSpec]) -> list[_Wanted]:
    """What this rank asks for, and where it goes."""
    tensors = tensors_of(module)
    return [
        _Wanted(TensorSlice(spec=given, region=region), memory)
        for name, given in specs.items()
        for region, memory in local_parts(name, tensors[name])
    ]


@torch.no_grad()
def _fill(wanted: Sequence[_Wanted], client: Client, progress: Progress | None) -> None:
    memories: dict[str, list[torch.Tensor]] = {}
    for part, memory in wanted:
        memories.setdefault(part.spec.name, []).append(memory)
    arrays = client.init_model(
        [part for part, _ in wanted],
        out=lambda name: _destination(memories[name].pop(0), client),
        progress=progress,
    )
    try:
        for (_, array), (_, memory) in zip(arrays, wanted, strict=True):
            if isinstance(array, np.ndarray) and not _is_in_reach(memory):
                memory.copy_(as_tensor(array))
    except InvalidRequest as error:
        match = OF_TENSOR.match(error.field)
        if match is None:
            raise
        name = wanted[int(match[1])].part.spec.name
        raise InvalidRequest(name + error.field[match.end() :].removeprefix(".spec"), error.description) from None


def _destination(memory: torch.Tensor, client: Client) -> Any:  # noqa: ANN401 - an array, or what CuPy takes for one
    """What the client fills: the tensor's own memory, if it can reach that."""
    if isinstance(client, CudaClient) and _is_served(memory):
        return memory
    return as_array(memory) if _is_in_reach(memory) else None


def _is_in_reach(memory: torch.Tensor) -> bool:
    """Whether NumPy can write there, and what is served."""
    return memory.device.type == "cpu" and _is_served(memory)


def _is_served(tensor: torch.Tensor) -> bool:
    """Whether its elements come as they are."""
    return tensor.is_floating_point() or tensor.is_complex()


def as_array(tensor: torch.Tensor) -> Array:
    """The same memory as a NumPy array."""
    return _outputs.of_torch(tensor, torch)


def as_tensor(array: Array) -> torch.Tensor:
    """The same memory as a tensor."""
    if array.dtype != ml_dtypes.bfloat16:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)


def _printer() -> Progress | None:
    """Writes one line, on rank 0."""
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return None
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total
        if percent != shown:
            shown = percent
            end = "\n" if done == total else ""
            print(f"\rinitialising: {percent} % of {total / 1e6:,.0f} MB", end=end, file=sys.stderr, flush=True)

    return show
