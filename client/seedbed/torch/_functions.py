"""Python functions of torch whose dispatched operations do not say enough."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from seedbed.torch._recorder import Recorder

_IS_META = torch._C.TensorBase.__dict__["is_meta"].__get__
_SET_DATA = torch._C.TensorBase.__dict__["data"].__set__
_READS = ("tolist", "numpy", "__array__", "__array_interface__", "storage", "data_ptr")  # not dispatched

# Known of drawn values: they are finite, or are not served.
_OF_DRAWS = {"isfinite": True, "isnan": False, "isinf": False}

# Functions of several operations that are schemes, with the parameters of these.
_COMPOSED = {
    torch.nn.init._no_grad_trunc_normal_.__code__: ("trunc_normal", ("mean", "std", "a", "b")),
    torch.nn.init.orthogonal_.__code__: ("orthogonal", ("gain",)),
    torch.nn.init.sparse_.__code__: ("sparse", ("sparsity", "std")),
    torch.nn.init.dirac_.__code__: ("dirac", ("groups",)),
}
# Before torch 2.12 these do not read is_meta: then the first call in each that writes the tensor stands for it.
_WRITE = {
    torch.nn.init._no_grad_trunc_normal_.__code__: "uniform_",
    torch.nn.init.orthogonal_.__code__: "mul_",
    torch.nn.init.sparse_.__code__: "normal_",
    torch.nn.init.dirac_.__code__: "zero_",
}
_OTHER_WRITES = ("erfinv_", "mul_", "add_", "clamp_", "__setitem__")


class Functions(TorchFunctionMode):
    """Follows the calls in Python whose dispatched operations do not say enough.

    Args:
        recorder: Where their results are noted.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(  # noqa: PLR0911 - a case for each kind of call
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if (frame := _composed_caller()) is not None:
            if func == _IS_META:
                self._draw_composed(frame, args[0])
                return True  # so that the function itself does nothing
            if func.__name__ == _WRITE[frame.f_code]:
                self._draw_composed(frame, args[0])
                return args[0]
            if func.__name__ in _OTHER_WRITES:
                return args[0]
        if func == _SET_DATA and isinstance(args[0], FakeTensor) != isinstance(args[1], FakeTensor):
            return func(args[0], self._moved(args[1], to_fake=isinstance(args[0], FakeTensor)))
        if func.__name__ in _OF_DRAWS and self._recorder.is_drawn(args[0]):
            return torch.full(tuple(args[0].shape), _OF_DRAWS[func.__name__])
        if func.__name__ == "share_memory_" and self._recorder.is_symbolic(args[0]):
            return args[0]
        if func is torch.Tensor.__deepcopy__:
            return self._deep_copied(args[0], args[1])
        if func.__name__ in _READS and self._recorder.is_symbolic(args[0]):
            return getattr(self._recorder.numbers(func.__name__, args[0]), func.__name__)(*args[1:], **kwargs)
        return func(*args, **kwargs)

    def _draw_composed(self, frame: FrameType, tensor: torch.Tensor) -> None:
        scheme, names = _COMPOSED[frame.f_code]
        parameters = {name: frame.f_locals[name] for name in names}
        self._recorder.draw(tensor, scheme, parameters, frame.f_locals.get("generator"))

    def _deep_copied(self, tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
        """A copy of a tensor; torch copies the storage, not by an operation."""
        if id(tensor) in memo:
            return memo[id(tensor)]  # type: ignore[no-any-return]
        if not self._recorder.is_symbolic(tensor):
            with _disable_current_modes():
                return copy.deepcopy(tensor, memo)
        with torch.no_grad():
            copied = self._moved(tensor.detach(), to_fake=True)
        if isinstance(tensor, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, requires_grad=tensor.requires_grad)
        else:
            copied.requires_grad_(tensor.requires_grad)
        for name, value in attributes(tensor).items():
            setattr(copied, name, copy.deepcopy(value, memo))
        memo[id(tensor)] = copied
        return copied

    def _moved(self, tensor: torch.Tensor, to_fake: bool) -> torch.Tensor:
        """The same values in a tensor that is fake, or is not."""
        node = self._recorder.value(tensor)
        with self._recorder.fake if to_fake else _disable_current_modes():
            moved = torch.empty_strided(tuple(tensor.size()), tuple(tensor.stride()), dtype=tensor.dtype)
        self._recorder.write(moved, node)
        return moved


_PLAIN_ATTRIBUTES = frozenset(vars(torch.nn.Parameter(FakeTensorMode().from_tensor(torch.zeros(1)))))


def attributes(tensor: torch.Tensor) -> dict[str, Any]:
    """What a model's code has attached to a tensor."""
    return {name: value for name, value in vars(tensor).items() if name not in _PLAIN_ATTRIBUTES}


def _composed_caller() -> FrameType | None:
    """The frame of the calling function, past other modes, if the function is one of `_COMPOSED`."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    return frame if frame is not None and frame.f_code in _COMPOSED else None
