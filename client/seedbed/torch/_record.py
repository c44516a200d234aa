"""Records which initialiser each parameter and buffer of a model receives, from the model's own code.

The code runs under two of torch's modes. `_Recorder` sees every operation that torch dispatches: memory that would be
allocated without a value is not (it goes to the meta device), and draws are noted instead of done; whatever works on
constants alone really runs, so that a model's own arithmetic, its masks and tables, has what it needs. What an
operation makes of values that were only noted is unknown, unless it is their copy or the same for every element.
`_Initialisers` sees the calls in Python; it recognises the four functions of ``torch.nn.init`` that are more than one
operation.
"""

from __future__ import annotations

import copy
import itertools
import sys
import warnings
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from seedbed import dtypes
from seedbed.errors import InvalidRequest
from seedbed.torch import _module
from seedbed.torch._values import Geometry, Value, constant, content
from seedbed.v1 import Model, Region, TensorSpec

_aten = torch.ops.aten

_ALLOCATIONS = (_aten.empty, _aten.empty_strided, _aten.empty_like, _aten.new_empty, _aten.new_empty_strided)
_Scheme = Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]  # from an operation's arguments
_DRAWS: dict[Any, _Scheme] = {
    _aten.uniform_: lambda given: ("uniform", {"a": given["from"], "b": given["to"]}),
    _aten.normal_: lambda given: ("normal", {"mean": given["mean"], "std": given["std"]}),
    _aten.rand: lambda _: ("uniform", {"a": 0.0, "b": 1.0}),
    _aten.rand_like: lambda _: ("uniform", {"a": 0.0, "b": 1.0}),
    _aten.randn: lambda _: ("normal", {"mean": 0.0, "std": 1.0}),
    _aten.randn_like: lambda _: ("normal", {"mean": 0.0, "std": 1.0}),
    _aten.normal.float_float: lambda given: ("normal", {"mean": given["mean"], "std": given["std"]}),
}
_LIKE = (_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros, _aten.new_ones, _aten.new_full)
_COPIES = (_aten.clone, _aten._to_copy)
_IS_META = torch._C.TensorBase.__dict__["is_meta"].__get__
_SET_DATA = torch._C.TensorBase.__dict__["data"].__set__
_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
_READS = ("tolist", "numpy", "__array__")  # methods that torch does not dispatch
_UNSET = Value(problem="is never initialised: its memory is as it was allocated")

# Functions of several operations, which torch leaves out on the meta device, with the parameters that matter.
_COMPOSED = {
    torch.nn.init._no_grad_trunc_normal_.__code__: ("trunc_normal", ("mean", "std", "a", "b")),
    torch.nn.init.orthogonal_.__code__: ("orthogonal", ("gain",)),
    torch.nn.init.sparse_.__code__: ("sparse", ("sparsity", "std")),
    torch.nn.init.dirac_.__code__: ("dirac", ("groups",)),
}


def record(build: Callable[[], torch.nn.Module], seed: int = 0) -> Model:
    """The initial values of a model, read off its own code: which scheme fills each parameter and buffer.

    ``build`` runs once, without memory for weights and without drawing. Recorded is what torch computes: the bounds of
    ``uniform_``, the standard deviation of ``normal_``, whichever functions call them; ``trunc_normal_``,
    ``orthogonal_``, ``sparse_``, ``dirac_`` and ``eye_``; constants, also in parts such as an embedding's row for
    padding. A tensor that is filled again has its last values.

    Listed are all parameters, tied ones once by their first name, and those buffers that are constant or drawn, such
    as the running statistics of batch norms. Other buffers (counters, masks, tables that the code computes) are no
    part of a model file: `on_meta` keeps them.

    Args:
        build: Makes the module anew; a class or function without arguments. Numbers from Python's or NumPy's generators
            are constants here.
        seed: The seed of every tensor.

    Returns:
        A Model message, for `init_module`, `seedbed.Client.init_model` or a model file.

    Raises:
        InvalidRequest: If a parameter's initial values cannot be served; names it and the operation.

    Warns:
        UserWarning: If several tensors hold copies of the same drawing, as the layers of ``TransformerEncoder`` do.
            Here they are independent, since each draws by its own name.

    >>> import torch, seedbed.torch
    >>> model = seedbed.torch.record(lambda: torch.nn.Linear(16, 4), seed=7)
    >>> [(spec.name, list(spec.shape), round(spec.uniform.b, 6)) for spec in model.tensors]
    [('weight', [4, 16], 0.25), ('bias', [4], 0.25)]
    """
    module, recorder = _build(build)
    held = _Held(recorder, seed)
    for name, parameter in module.named_parameters():
        held.add_parameter(name, parameter)
    for name, buffer in module.named_buffers():
        held.add_buffer(name, buffer)
    held.warn_of_copies()
    return Model(name=type(module).__name__, tensors=held.specs)


def on_meta(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Builds a module whose parameters take no memory yet, but whose buffers have their values.

    Under ``with torch.device("meta")`` buffers lose theirs, and nothing brings those back that the code computes.

    Args:
        build: Makes the module anew; a class or function without arguments.

    Returns:
        The module, its parameters on the meta device, for ``fully_shard`` or ``parallelize_module``, then
        `init_module`.

    >>> import torch, seedbed.torch
    >>> norm = seedbed.torch.on_meta(lambda: torch.nn.BatchNorm1d(2))
    >>> norm.weight.device, norm.running_var
    (device(type='meta'), tensor([1., 1.]))
    """
    module, _ = _build(build)
    _module.convert(module, lambda tensor: tensor.to("meta") if isinstance(tensor, torch.nn.Parameter) else tensor)
    return module


def _build(build: Callable[[], torch.nn.Module]) -> tuple[torch.nn.Module, _Recorder]:
    recorder = _Recorder()
    with _Initialisers(recorder), recorder:
        module = build()
    if not isinstance(module, torch.nn.Module):
        raise InvalidRequest("build", f"returned a {type(module).__name__}; give what returns a torch.nn.Module")
    return module, recorder


class _Held:
    """The tensors of a module and what they hold."""

    def __init__(self, recorder: _Recorder, seed: int) -> None:
        self.specs: list[TensorSpec] = []
        self._recorder = recorder
        self._seed = seed
        self._parts: dict[int, list[tuple[str, Geometry]]] = {}
        self._drawn: dict[int, dict[int, str]] = {}

    def add_parameter(self, name: str, parameter: torch.Tensor) -> None:
        if _module.dtype_name(parameter) not in dtypes.NAMES:
            raise InvalidRequest(name, f"has dtype {parameter.dtype}; only {', '.join(dtypes.NAMES)} are served")
        value = self._recorder.value(parameter)
        if value.problem:
            raise InvalidRequest(name, value.problem)
        self._add(name, parameter, value)

    def add_buffer(self, name: str, buffer: torch.Tensor) -> None:
        if _module.dtype_name(buffer) not in dtypes.NAMES:
            return
        value = self._recorder.value(buffer)
        if value.problem and value.draw:
            raise InvalidRequest(name, value.problem)
        if not value.problem:
            self._add(name, buffer, value)

    def _add(self, name: str, tensor: torch.Tensor, value: Value) -> None:
        key, geometry = _key(tensor), Geometry.of(tensor)
        parts = self._parts.setdefault(key, [])
        for other, other_geometry in parts:
            if tensor.numel() and not geometry.is_apart_from(other_geometry):
                raise InvalidRequest(name, f"shares memory with {other}; to tie them, make them the same Parameter")
        parts.append((name, geometry))
        if value.draw:
            self._drawn.setdefault(value.draw, {}).setdefault(key, name)
        self.specs.append(value.spec(tensor.shape, name=name, dtype=_module.dtype_name(tensor), seed=self._seed))

    def warn_of_copies(self) -> None:
        groups = [list(names.values()) for names in self._drawn.values() if len(names) > 1]
        if groups:
            examples = "; ".join(" = ".join(names[:3]) for names in groups[:3])
            warnings.warn(
                f"the model's code fills {len(groups)} groups of tensors with copies of the same values ({examples}"
                f"{'; ...' if len(groups) > 3 else ''}); with Seedbed each draws values of its own, by the same law",
                stacklevel=3,
            )


class _Write(NamedTuple):
    part: Geometry
    dtype: torch.dtype
    value: Value


class _Log(NamedTuple):
    storage: torch.UntypedStorage  # kept, so that no other gets its address
    writes: list[_Write]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is written where. A tensor is symbolic if it has no numbers: on the meta device, or drawn."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._logs: dict[int, _Log] = {}
        self._draws = itertools.count(1)

    def value(self, tensor: torch.Tensor) -> Value:
        """What a tensor holds by now."""
        if not tensor.numel():
            return constant(0)
        whole = Geometry.of(tensor)
        value = None
        for part, dtype, written in self._writes(tensor):
            if dtype != tensor.dtype:
                value = written.but(f"is written as {dtype} and read as {tensor.dtype}; that cannot be replayed")
            elif part.covers(whole):
                value = _seen_as(written, part, whole)
            elif not part.is_apart_from(whole):
                value = _patched(value or self._unwritten(tensor), written, part.box_in(whole))
        return value or self._unwritten(tensor)

    def draw(self, tensor: torch.Tensor, scheme: str, parameters: Mapping[str, Any]) -> None:
        """Notes that a tensor is drawn."""
        self.write(tensor, Value(scheme, parameters, draw=next(self._draws)))

    def write(self, tensor: torch.Tensor, value: Value) -> None:
        """Notes what is written to a tensor."""
        log = self._logs.setdefault(_key(tensor), _Log(tensor.untyped_storage(), []))
        part = Geometry.of(tensor)
        log.writes[:] = [one for one in log.writes if one.dtype != tensor.dtype or not part.covers(one.part)]
        log.writes.append(_Write(part, tensor.dtype, value))
        if not tensor.is_meta and tensor.is_floating_point():
            with _disable_current_modes(), torch.no_grad():
                tensor.fill_(torch.nan)  # should it be read past us, this shows

    def check_has_values(self, operation: str, tensor: torch.Tensor) -> None:
        """Refuses to read numbers that are not there."""
        if self.is_symbolic(tensor):
            raise _no_values(operation, tensor, self.value(tensor))

    def __torch_dispatch__(  # noqa: PLR0911 - a table of what operations are
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        call = _Call(func, args, kwargs or {})
        if func.overloadpacket in _ALLOCATIONS and call.makes_floats:
            return call.run_on("meta")
        scheme = _DRAWS.get(func.overloadpacket) or _DRAWS.get(func)
        if scheme and call.makes_floats:
            return self._draw(call, scheme)
        if func.overloadpacket in (_aten.fill_, _aten.zero_, _aten.copy_, _aten.eye) and call.target is not None:
            return self._fill(call)
        if not call.written and (not call.tensors or func.overloadpacket in _LIKE) and call.device_is_meta:
            return call.run_on("cpu")  # constants, of which the numbers may be wanted
        draws = torch.Tag.nondeterministic_seeded in func.tags and call.makes_floats
        if not draws and not any(map(self.is_symbolic, call.tensors)):
            return call.run()
        if func.is_view or torch.Tag.inplace_view in func.tags:
            return call.run()
        if func is _aten._local_scalar_dense.default:
            return self._read(call)
        return self._compute(call)

    def _draw(self, call: _Call, scheme: _Scheme) -> torch.Tensor:
        tensor = call.run_on("meta") if call.target is None else call.target
        assert isinstance(tensor, torch.Tensor)  # for mypy
        self.draw(tensor, *scheme(call.given))
        return tensor

    def _fill(self, call: _Call) -> torch.Tensor:
        """Fills a tensor with a constant, the identity, or another's values."""
        [target] = call.written
        is_noted = call.func.overloadpacket is _aten.eye and target.is_floating_point()
        if is_noted or any(map(self.is_symbolic, call.tensors)):
            self.write(target, self._filling(call, target))
        else:
            call.run()
        return target

    def _filling(self, call: _Call, target: torch.Tensor) -> Value:
        if call.func.overloadpacket is _aten.eye:
            return Value("eye")
        source: Any = call.given.get("src", call.given.get("value", 0.0))
        if not isinstance(source, torch.Tensor):
            return constant(float(source))
        return self._copied(source, target)

    def _copied(self, source: torch.Tensor, target: torch.Tensor) -> Value:
        """The source's values, converted and broadcast."""
        value = self.value(source)
        widens = source.dtype.itemsize < target.dtype.itemsize
        if value.constant is not None:
            return constant(torch.tensor(value.constant, dtype=source.dtype).item()) if widens else value
        if source.shape != target.shape:
            return value.but("is filled with another tensor's values, repeated; that cannot be replayed")
        if widens and value.draw:
            return value.but(f"is drawn in {source.dtype}, then converted to {target.dtype}; draw it in that")
        return value

    def _read(self, call: _Call) -> float:
        """Reads one value, as ``item()`` and ``if`` do."""
        [tensor] = call.tensors
        value = self.value(tensor)
        if value.constant is not None:
            return value.constant
        raise _no_values(call.name, tensor, value)

    def _compute(self, call: _Call) -> object:
        """What an operation makes of symbolic tensors: a constant still, a copy, or something unknown."""
        if call.written:
            value = self._computed(call)
            for tensor in call.written:
                self.write(tensor, value)
            return call.result_in_place()
        try:
            result = call.run_on("meta")
        except (NotImplementedError, RuntimeError) as error:  # its shape or result depends on values
            tensor = next(filter(self.is_symbolic, call.tensors))
            raise _no_values(call.name, tensor, self.value(tensor)) from error
        inputs = set(map(_key, call.tensors))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in inputs:
                copies = call.func.overloadpacket in _COPIES
                self.write(tensor, self._copied(call.tensors[0], tensor) if copies else self._computed(call))
        return result

    def _computed(self, call: _Call) -> Value:
        folded = self._folded(call)
        if folded is not None:
            return folded
        if torch.Tag.nondeterministic_seeded in call.func.tags:
            return Value(draw=next(self._draws), problem=f"is drawn by {call.name}, which is no scheme that is served")
        return self._source(call).but(
            f"{call.name} on values that were drawn before cannot be replayed; draw the final ones at once"
        )

    def _source(self, call: _Call) -> Value:
        """What the operation's symbolic tensors hold; of several, one that was drawn."""
        values = [self.value(tensor) for tensor in call.tensors if self.is_symbolic(tensor)]
        return max(values, key=lambda value: value.draw)

    def _folded(self, call: _Call) -> Value | None:
        """The one number that an elementwise operation on constants gives."""
        if torch.Tag.pointwise not in call.func.tags:
            return None
        constants: dict[int, float] = {}
        for tensor in call.tensors:
            val = self.value(tensor).constant
            if val is None:
                return None
            constants[id(tensor)] = val

        def scalar(tensor: torch.Tensor) -> torch.Tensor:
            return torch.full((), constants[id(tensor)], dtype=tensor.dtype)

        args, kwargs = tree_map_only(torch.Tensor, scalar, (call.args, call.kwargs))
        result = call.func(*args, **kwargs)
        return constant(result.item()) if isinstance(result, torch.Tensor) else None

    def is_symbolic(self, tensor: torch.Tensor) -> bool:
        """Whether there are no numbers to read."""
        return tensor.is_meta or _key(tensor) in self._logs

    def _writes(self, tensor: torch.Tensor) -> list[_Write]:
        log = self._logs.get(_key(tensor))
        return log.writes if log else []

    def _unwritten(self, tensor: torch.Tensor) -> Value:
        """What a tensor holds that nothing was noted of."""
        if tensor.is_meta:
            return _UNSET
        with _disable_current_modes(), torch.no_grad():
            return content(tensor.detach())


class _Call:
    """A call of one of torch's operations."""

    def __init__(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = func.overloadpacket.__name__
        self.tensors: list[torch.Tensor] = [
            leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        ]
        schema = func._schema.arguments
        self.given = {
            argument.name: args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
            for index, argument in enumerate(schema)
        }
        changed = [argument.name for argument in schema if argument.alias_info and argument.alias_info.is_write]
        self.written: list[torch.Tensor] = tree_leaves([self.given[name] for name in changed])

    @property
    def target(self) -> torch.Tensor | None:
        """The tensor written, if the operation writes one."""
        return self.written[0] if self.written else None

    @property
    def device_is_meta(self) -> bool:
        """Whether the result would be on the meta device, asked for or as the tensor that it is like."""
        device = self.given.get("device")
        return device.type == "meta" if device is not None else any(tensor.is_meta for tensor in self.tensors)

    @property
    def makes_floats(self) -> bool:
        """Whether the result has floating-point numbers."""
        if self.target is not None:
            return self.target.is_floating_point()
        dtype = self.given.get("dtype")
        if dtype is None:
            dtype = self.tensors[0].dtype if self.tensors else torch.get_default_dtype()
        return bool(dtype.is_floating_point)

    def run(self) -> object:
        return self.func(*self.args, **self.kwargs)

    def run_on(self, device: str) -> object:
        """Runs it on tensors without numbers: for the result's shape and dtype, or for what needs no numbers."""
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (self.args, self.kwargs))
        if "device" in self.given:
            kwargs = {**kwargs, "device": torch.device(device), "pin_memory": None}
        return self.func(*args, **kwargs)

    def result_in_place(self) -> object:
        """What is returned by an operation that changes its arguments."""
        if not self.func._schema.returns:
            return None
        return self.written[0] if len(self.written) == 1 else tuple(self.written)


class _Initialisers(TorchFunctionMode):
    """Sees the calls in Python that no dispatched operation tells enough of."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func == _IS_META and (frame := _composed_caller()) is not None:
            scheme, names = _COMPOSED[frame.f_code]
            self._recorder.draw(args[0], scheme, {name: frame.f_locals[name] for name in names})
            return True  # then they do nothing
        if func == _SET_DATA and args[0].is_meta != args[1].is_meta:
            return func(args[0], self._moved(args[1], args[0].device))
        if func in _FROM_DATA and kwargs and torch.device(kwargs.get("device") or "cpu").type == "meta":
            kwargs = {**kwargs, "device": "cpu"}  # the device was a parameter's
        if func is torch.Tensor.__deepcopy__ and not args[0].is_meta:
            return self._deep_copied(args[0], args[1])
        if func.__name__ in _READS:
            self._recorder.check_has_values(func.__name__, args[0])
        return func(*args, **(kwargs or {}))

    def _deep_copied(self, tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
        """A copy of a tensor with memory, which torch makes of storages and not of operations."""
        with _disable_current_modes():
            copied = copy.deepcopy(tensor, memo)
        if self._recorder.is_symbolic(tensor):
            self._recorder.write(copied, self._recorder.value(tensor))
        return copied

    def _moved(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The same values where torch wants them."""
        value = self._recorder.value(tensor)
        with _disable_current_modes():
            moved = torch.empty_like(tensor, device=device)
        self._recorder.write(moved, value)
        return moved


def _composed_caller() -> FrameType | None:
    """The function of `_COMPOSED` that asks, past the modes that others have set."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    return frame if frame is not None and frame.f_code in _COMPOSED else None


def _seen_as(value: Value, part: Geometry, whole: Geometry) -> Value:
    """The value of a part, of a tensor that is all of it or less."""
    if value.draw and whole.repeats:
        return value.but("is filled with another tensor's values, repeated; that cannot be replayed")
    if part == whole or value.problem or not value.depends_on_shape:
        return value
    return value.but(f"is written by {value.scheme} through a tensor of another shape, {part.size}")


def _patched(before: Value, written: Value, region: Region | None) -> Value:
    if written.constant is None:
        problem = written.problem or f"{written.scheme} of a part cannot be replayed; draw the whole tensor"
        return Value(draw=written.draw or before.draw, problem=problem)
    if region is None:
        return before.but("is filled in part, and the part is no box of its indices; that cannot be replayed")
    return before.patched(region, written.constant)


def _no_values(operation: str, tensor: torch.Tensor, value: Value) -> InvalidRequest:
    what = "comes of values that were drawn" if value.draw else value.problem
    return InvalidRequest(
        "build",
        f"{operation} reads a tensor of shape {tuple(tensor.shape)}, which {what}; there are no numbers to read",
    )


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
