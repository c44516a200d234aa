"""Compares a module with the model that it was filled from, bit for bit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from seedbed._client.sync import Client
from seedbed._types import Array
from seedbed.errors import InvalidRequest, Mismatch
from seedbed.torch import _nodes
from seedbed.torch._module import Rule, as_array, specs_of, tensors_of
from seedbed.torch._shards import Part, local_parts
from seedbed.v1 import Model, TensorSlice, TensorSpec


def verify_module(
    module: torch.nn.Module,
    client: Client,
    model: Model | None = None,
    seed: int | None = None,
    rules: Sequence[Rule] | None = None,
    only: str | Sequence[str] | None = None,
) -> None:
    """Proves that a module's tensors are the model's, bit for bit; each rank verifies only its own shards.

    All parameters are compared, and the buffers that the model lists, as `init_module` fills them; nothing is changed.
    Ranks do not communicate, so that one may fail where others do not. Values are sampled again piece by piece, and
    those on a GPU are copied to the host piece by piece: this takes memory for the pieces, and for a shard that is not
    contiguous.

    Args:
        module: The module; its parameters may be plain tensors or DTensors, but not on the meta device.
        client: A client, such as ``seedbed.connect("local:")``.
        model: What `record` gives, or a model file: the one that the module was filled from.
        seed: As for `init_module`.
        rules: As for `init_module`, in place of a model.
        only: As for `init_module`; nothing else is compared.

    Raises:
        Mismatch: If a value differs; names the first tensor and element, both values, and how many differ.
        InvalidRequest: If model or rules do not fit the module, or a tensor has no values.
        SeedbedError: If the server is unreachable, or fails.

    >>> import seedbed, torch, seedbed.torch
    >>> model = seedbed.torch.record(lambda: torch.nn.Linear(64, 64), seed=7)
    >>> layer = torch.nn.Linear(64, 64)
    >>> with seedbed.connect("local:") as client:
    ...     seedbed.torch.init_module(layer, client, model=model)
    ...     seedbed.torch.verify_module(layer, client, model=model)
    ...     with torch.no_grad():
    ...         layer.bias[3] = 1
    ...     seedbed.torch.verify_module(layer, client, model=model)
    Traceback (most recent call last):
    ...
    seedbed.errors.Mismatch: bias: element (3,) is 1.0 in the module and ... in the model; 1 of 64 elements differs
    """
    specs = specs_of(module, seed, model, rules, only)
    tensors = tensors_of(module)
    for name in specs:
        if tensors[name].is_meta:
            raise InvalidRequest(
                name, "is on the meta device, without values to verify; fill it with seedbed.torch.init_module first"
            )
    held = [
        _Held(spec, part)
        for name, spec in specs.items()
        for part in local_parts(name, tensors[name], spec.HasField("zeros"))
    ]
    differences = _differences(held, client)
    for name in specs:
        if differences[name]:
            raise _mismatch(
                name, differences[name], sum(each.part.memory.numel() for each in held if each.name == name)
            )


class _Held(NamedTuple):
    """A part of a tensor that this rank holds."""

    spec: TensorSpec
    part: Part

    @property
    def name(self) -> str:
        return self.spec.name


class _Difference(NamedTuple):
    element: tuple[int, ...]
    """The first element that differs, as an index of the whole tensor."""
    values: str
    number: int
    """How many elements differ in the piece."""


def _differences(held: Sequence[_Held], client: Client) -> Mapping[str, list[_Difference]]:
    """The differences in each piece, by tensor."""
    found = defaultdict[str, list[_Difference]](list)

    @lru_cache(maxsize=2)  # a copy, if the shard is not contiguous
    def values(index: int) -> torch.Tensor:
        return held[index].part.memory.reshape(-1)

    def compare(index: int, first: int, made: Any) -> None:  # noqa: ANN401 - as for _as_held
        there = as_array(values(index)[first : first + math.prod(made.shape)].cpu())
        if difference := _difference(held[index], first, _as_held(made, held[index].part.memory.dtype), there):
            found[held[index].name].append(difference)

    client.visit([TensorSlice(spec=spec, region=part.region) for spec, part in held], compare)
    return found


def _difference(held: _Held, first: int, expected: Array, found: Array) -> _Difference | None:
    differing = np.flatnonzero(_words(expected) != _words(found))
    if not differing.size:
        return None
    spec, part = held
    start = tuple(part.region.start) if part.region else (0,) * len(spec.shape)
    here = int(differing[0])
    within = np.unravel_index(first + here, tuple(part.memory.shape))
    element = tuple(int(index) + offset for index, offset in zip(within, start, strict=True))
    return _Difference(element, _compared(found[here : here + 1], expected[here : here + 1]), differing.size)


def _mismatch(name: str, differences: Sequence[_Difference], held: int) -> Mismatch:
    first = min(differences)
    count = sum(difference.number for difference in differences)
    return Mismatch(
        f"{name}: element {first.element} is {first.values}; {count:,} of {held:,} elements "
        f"{'differs' if count == 1 else 'differ'}{_on_this_rank()}"
    )


def _as_held(made: Any, dtype: torch.dtype) -> Array:  # noqa: ANN401 - CuPy has no types
    """Sampled values as an array on the host, converted as `init_module` converts them for integers."""
    values: Array = made if isinstance(made, np.ndarray) else made.get()
    return values if _nodes.is_served(dtype) else torch.from_numpy(values.copy()).to(dtype).numpy()


def _words(values: Array) -> Array:
    """The bits of each element."""
    return values.view(f"u{values.itemsize}")


def _compared(found: Array, expected: Array) -> str:
    """Both values; with their bits if they print alike, as those of NaNs do."""
    texts = [str(values[0]) for values in (found, expected)]
    if texts[0] == texts[1]:
        texts = [f"{values[0]} (0x{_words(values)[0]:0{2 * values.itemsize}x})" for values in (found, expected)]
    return f"{texts[0]} in the module and {texts[1]} in the model"


def _on_this_rank() -> str:
    return f" on rank {torch.distributed.get_rank()}" if torch.distributed.is_initialized() else ""
