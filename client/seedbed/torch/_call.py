"""One call of an operation that torch dispatches: its arguments by name, and ways to run it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

_LARGE = 1 << 18
"""Elements from which on a constant is not held in memory."""


class Call:
    """A call of one of torch's operations."""

    def __init__(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = func.overloadpacket.__name__
        self.base = self.name.removesuffix("_")  # the same for in-place operations
        schema = func._schema.arguments
        self.arguments = {
            argument.name: args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
            for index, argument in enumerate(schema)
        }
        self.tensors = _tensors(self.arguments.values())
        changed = [argument.name for argument in schema if argument.alias_info and argument.alias_info.is_write]
        self.written = _tensors(self.arguments[name] for name in changed)
        outputs = [argument.name for argument in schema if argument.name in changed and argument.is_out]
        self.read = _tensors(value for name, value in self.arguments.items() if name not in outputs)

    @property
    def target(self) -> torch.Tensor | None:
        """The tensor that the operation writes, if there is one."""
        return self.written[0] if self.written else None

    @property
    def is_empty(self) -> bool:
        """Whether the result has no elements, as parameters of lazy modules before the first call."""
        size = self.arguments.get("size")
        return size is not None and torch.Size(size).numel() == 0

    @property
    def is_large_constant(self) -> bool:
        """Whether the result is a constant in floating point, too large to be held."""
        size = self.arguments.get("size")
        count = torch.Size(size).numel() if size is not None else self.tensors[0].numel() if self.tensors else 0
        dtype = self.arguments.get("dtype") or (self.tensors[0].dtype if self.tensors else torch.get_default_dtype())
        return count >= _LARGE and bool(dtype.is_floating_point) and not self.written

    @property
    def keeps_constants(self) -> bool:
        """Whether the result is a constant wherever the arguments are."""
        return torch.Tag.pointwise in self.func.tags or self.base in ("clone", "_to_copy")

    @property
    def is_on_meta(self) -> bool:
        """Whether the result shall be on the meta device."""
        device = self.arguments.get("device")
        return device is not None and torch.device(device).type == "meta"

    def run(self) -> object:
        return self.func(*self.args, **self.kwargs)

    def run_on_cpu(self) -> object:
        """Runs an operation that reads no values of its tensors."""
        with _disable_current_modes():
            args, kwargs = tree_map_only(torch.Tensor, _bare, (self.args, self.kwargs))
            return self.func(*args, **self.on_cpu(kwargs))

    def on_cpu(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments, for a result on the CPU."""
        if kwargs.get("device") is None and not kwargs.get("pin_memory"):
            return kwargs
        return {**kwargs, "device": torch.device("cpu"), "pin_memory": None}

    def run_fake(self, mode: FakeTensorMode) -> object:
        """Runs it without values, for the result's shape, dtype and strides."""
        with mode:
            return self.func(*self.args, **self.on_cpu(self.kwargs))

    def result_in_place(self) -> object:
        """The result of an operation that writes its arguments."""
        if not self.func._schema.returns:
            return None
        return self.written[0] if len(self.written) == 1 else tuple(self.written)


def _bare(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of this shape with uninitialised memory, which is never read."""
    return torch.empty_strided(tuple(tensor.size()), tuple(tensor.stride()), dtype=tensor.dtype)


def _tensors(arguments: Iterable[object]) -> list[torch.Tensor]:
    """The tensors among arguments, and in lists among them."""
    tensors: list[torch.Tensor] = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            tensors.append(argument)
        elif isinstance(argument, (list, tuple)):
            tensors += _tensors(argument)
    return tensors
