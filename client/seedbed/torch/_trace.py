"""Runs a model's code without memory for weights, and notes what is written where.

Two of torch's modes are active meanwhile. `_Recorder` sees every operation that torch dispatches. Memory that would be
allocated without a value is a FakeTensor, which says that it is on the CPU and has none; draws are noted instead of
done; what works on constants alone really runs, so that a model's own arithmetic, its masks and tables, has what it
needs. `_Calls` sees the calls in Python that no dispatched operation tells enough of.

A tensor is symbolic if there are no numbers to read: it is fake, or was drawn into. The values of each storage are one
flat node, which tensors view and write into; so views, slices and copies are what they are in torch.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from seedbed._record.boxes import Box, Shape, box_by, is_same, whole
from seedbed._record.nodes import (
    ELEMENTWISE,
    Draw,
    Full,
    Node,
    Viewed,
    is_drawn,
    located,
    problem_of,
    site_of_draw,
    with_dtype,
)
from seedbed.errors import InvalidRequest
from seedbed.torch import _nodes
from seedbed.torch._nodes import Drawing, Site, apply
from seedbed.torch._operations import OPERATIONS, broadcast

_aten = torch.ops.aten

_ALLOCATIONS = (_aten.empty, _aten.empty_strided, _aten.empty_like, _aten.new_empty, _aten.new_empty_strided)
_CONSTANTS: dict[Any, float] = {_aten.zeros: 0.0, _aten.ones: 1.0, _aten.full: 0.0}
_LIKE = (_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros, _aten.new_ones, _aten.new_full)
_VIEWS = (_aten._unsafe_view, _aten.resize_, _aten.set_)  # that are not said to be
_LARGE = 1 << 18
"""Elements from which on a constant takes no memory either."""

_IS_META = torch._C.TensorBase.__dict__["is_meta"].__get__
_SET_DATA = torch._C.TensorBase.__dict__["data"].__set__
_READS = ("tolist", "numpy", "__array__", "__array_interface__", "storage", "data_ptr")  # that torch does not dispatch

# What is asked of drawn values and known: they are finite, or are not served.
_OF_DRAWS = {"isfinite": True, "isnan": False, "isinf": False}

# Functions of several operations, which say what they are, with the parameters that matter.
_COMPOSED = {
    torch.nn.init._no_grad_trunc_normal_.__code__: ("trunc_normal", ("mean", "std", "a", "b")),
    torch.nn.init.orthogonal_.__code__: ("orthogonal", ("gain",)),
    torch.nn.init.sparse_.__code__: ("sparse", ("sparsity", "std")),
    torch.nn.init.dirac_.__code__: ("dirac", ("groups",)),
}
# Before torch 2.12 they do not ask whether the tensor is meta: a call in each that writes to it tells of it, too.
_WRITE = {
    torch.nn.init._no_grad_trunc_normal_.__code__: "uniform_",
    torch.nn.init.orthogonal_.__code__: "mul_",
    torch.nn.init.sparse_.__code__: "normal_",
    torch.nn.init.dirac_.__code__: "zero_",
}
_OTHER_WRITES = ("erfinv_", "mul_", "add_", "clamp_", "__setitem__")
_OURS = __name__.rpartition(".")[0]


class Trace:
    """What the code did.

    Attributes:
        module: What it returned.
    """

    def __init__(self, module: object, recorder: _Recorder) -> None:
        self.module = module
        self._recorder = recorder

    def value(self, tensor: torch.Tensor) -> Node:
        """What a tensor holds in the end."""
        return self._recorder.value(tensor)

    def is_symbolic(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has no numbers of its own."""
        return self._recorder.is_symbolic(tensor)


def trace(build: Callable[[], Any], seed: int) -> Trace:
    """Runs code that makes a module.

    Args:
        build: The code.
        seed: What Python's, NumPy's and torch's generators are seeded with meanwhile.
    """
    recorder = _Recorder()
    with _seeded(seed), _swapping_by_data(), _Calls(recorder), recorder:
        return Trace(build(), recorder)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """So that a recording is a function of the code and the seed, and disturbs nobody."""
    python, numpy, default = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(default)


@contextlib.contextmanager
def _swapping_by_data() -> Iterator[None]:
    """``module.half()`` swaps fake parameters, which torch refuses if anybody else knows of them, as FakeTensors do."""
    swap = torch.utils.swap_tensors

    def swapped(a: torch.Tensor, b: torch.Tensor) -> None:
        if not (isinstance(a, FakeTensor) and isinstance(b, FakeTensor)):
            swap(a, b)  # type: ignore[no-untyped-call]
            return
        with torch.no_grad(), _disable_current_modes():
            _SET_DATA(a, b.detach())

    torch.utils.swap_tensors = swapped
    try:
        yield
    finally:
        torch.utils.swap_tensors = swap


def site() -> Site | None:
    """The innermost line that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] != "torch" and name.rpartition(".")[0] != _OURS and name != "contextlib":
            return Site(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


class _Log(NamedTuple):
    storage: torch.UntypedStorage  # kept, so that no other gets its address
    content: Node


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is written where."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._logs: dict[int, _Log] = {}
        self._drawings: dict[object, Drawing] = {}
        self._numbers = itertools.count(1)

    # What tensors hold.

    def is_symbolic(self, tensor: torch.Tensor) -> bool:
        return isinstance(tensor, FakeTensor) or tensor.is_meta or _key(tensor) in self._logs

    def is_drawn(self, tensor: torch.Tensor) -> bool:
        """Whether anything in a tensor was drawn, and nothing in it is unknown."""
        node = self.value(tensor) if self.is_symbolic(tensor) else None
        return node is not None and is_drawn(node) and problem_of(node) is None

    def value(self, tensor: torch.Tensor) -> Node:
        """What a tensor holds by now."""
        log = self._logs.get(_key(tensor))
        if log is None:
            if isinstance(tensor, FakeTensor) or tensor.is_meta:
                return _nodes.unset(tuple(tensor.shape), tensor.dtype)
            with _disable_current_modes(), torch.no_grad():
                return _nodes.literal(tensor)
        content = log.content
        if content.dtype != tensor.dtype and not is_drawn(content) and not problem_of(content):
            with _disable_current_modes():
                content = _nodes.literal(_nodes.evaluated(content).view(tensor.dtype))
        if tensor.dtype == torch.complex64:
            content = _nodes.as_complex(content) or content
        if content.dtype != tensor.dtype:
            text = f"is written as {log.content.dtype} and read as {tensor.dtype}; that cannot be said"
            return _nodes.problem(text, tuple(tensor.shape), tensor.dtype, log.content)
        return _nodes.viewed(content, Box.of(tensor))

    def write(self, tensor: torch.Tensor, node: Node) -> None:
        """Notes what is written to a tensor."""
        node = _nodes.cast(broadcast(node, tuple(tensor.shape)), tensor.dtype)
        storage = tensor.untyped_storage()
        log = self._logs.get(_key(tensor))
        before = log.content if log else self._before(tensor, storage)
        if before.dtype != tensor.dtype:
            text = f"is written as {before.dtype} and as {tensor.dtype}; that cannot be said"
            before = _nodes.problem(text, (storage.nbytes() // tensor.itemsize,), tensor.dtype)
        self._logs[_key(tensor)] = _Log(storage, _nodes.written(before, Box.of(tensor), node))

    def _before(self, tensor: torch.Tensor, storage: torch.UntypedStorage) -> Node:
        """What a storage holds of which nothing was noted."""
        count = storage.nbytes() // tensor.itemsize
        if isinstance(tensor, FakeTensor) or tensor.is_meta:
            return _nodes.unset((count,), tensor.dtype)
        with _disable_current_modes(), torch.no_grad():
            flat = tensor.detach().as_strided((count,), (1,), 0)
            node = _nodes.literal(flat)
            if _nodes.is_served(tensor.dtype):
                flat.fill_(torch.nan)  # should it be read past us, this shows
        return node

    def draw(self, tensor: torch.Tensor, scheme: str, parameters: Mapping[str, Any], generator: Any = None) -> None:  # noqa: ANN401
        """Notes that a tensor is drawn."""
        self.write(tensor, self.drawn(scheme, parameters, tuple(tensor.shape), tensor.dtype, generator))

    def drawn(
        self,
        scheme: str,
        parameters: Mapping[str, Any],
        shape: Shape,
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> Draw:
        """What a scheme draws next. From the same state of a generator the same is drawn, as in torch."""
        numel = torch.Size(shape).numel()
        extent: object = numel if scheme in ELEMENTWISE else shape
        with _disable_current_modes():
            source = generator if generator is not None else torch.default_generator
            state = source.get_state().numpy().tobytes()
            key = hashlib.blake2b(state + repr((scheme, extent, dtype)).encode(), digest_size=16).digest()
            source.manual_seed(int.from_bytes(key[:8], "little") % 2**63)
        drawing = self._drawings.setdefault(key, Drawing(site(), next(self._numbers)))
        return Draw(shape, dtype, drawing, scheme, dict(parameters))

    # What operations do.

    def __torch_dispatch__(  # noqa: PLR0911 - a table of what operations are
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        call = _Call(func, args, kwargs or {})
        packet = func.overloadpacket
        if packet in _ALLOCATIONS and not call.is_empty:
            return call.run_fake(self._fake)
        if torch.Tag.nondeterministic_seeded in func.tags and (random_ := _DRAWS.get(call.base)) is not None:
            return self._random(call, random_)
        if packet in _CONSTANTS and call.is_large_constant:
            value = float(call.given["fill_value"] or 0.0) if packet is _aten.full else _CONSTANTS[packet]
            return self._noted(call, Full((), torch.float64, value))
        if packet in _LIKE and not call.written:
            return self._like(call)
        if not call.tensors and call.is_meta_asked_for:
            return call.run_on_cpu()
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if not draws and not any(map(self.is_symbolic, call.tensors)):
            return call.run()
        if func.is_view or torch.Tag.inplace_view in func.tags or packet in _VIEWS:
            return call.run()
        if func is _aten._local_scalar_dense.default:
            return self._read(call)
        if packet in (_aten.fill_, _aten.zero_, _aten.copy_):
            return self._fill(call)
        return self._compute(call, draws)

    def _like(self, call: _Call) -> object:
        """Constants of the shape of a tensor, whose values do not matter."""
        if not call.is_large_constant:
            return call.run_on_cpu()
        node = OPERATIONS[call.base](call.given, (), torch.float64)
        return self._noted(call, node)

    def _noted(self, call: _Call, node: Node) -> object:
        result = call.run_fake(self._fake)
        assert isinstance(result, torch.Tensor)  # for mypy
        self.write(result, node)
        return result

    def _random(self, call: _Call, make: _Draws) -> object:
        target = call.target
        result = target if target is not None else call.run_fake(self._fake)
        if not isinstance(result, torch.Tensor):
            raise self._no_numbers(call)
        given = {name: self._argument(value) for name, value in call.given.items()}

        def drawn(scheme: str, parameters: Mapping[str, Any], dtype: torch.dtype | None = None) -> Draw:
            kind = dtype or (result.dtype if _nodes.is_served(result.dtype) else torch.float64)
            return self.drawn(scheme, parameters, tuple(result.shape), kind, call.given.get("generator"))

        self.write(result, make(given, drawn, result))
        return result

    def _fill(self, call: _Call) -> torch.Tensor:
        """Fills a tensor with a constant, or another's values."""
        [target] = call.written
        source: Any = call.given.get("src", call.given.get("value", 0.0))
        if not self.is_symbolic(target) and not (isinstance(source, torch.Tensor) and self.is_symbolic(source)):
            call.run()
            return target
        node = self.value(source) if isinstance(source, torch.Tensor) else _nodes.full((), target.dtype, source)
        self.write(target, node)
        return target

    def _read(self, call: _Call) -> float | int | bool:
        """Reads one value, as ``item()`` and ``if`` do."""
        [tensor] = call.tensors
        return self.numbers(call.name, tensor).item()

    def numbers(self, operation: str, tensor: torch.Tensor) -> torch.Tensor:
        """The numbers of a tensor, if nothing in it was drawn.

        Raises:
            InvalidRequest: There are none.
        """
        node = self.value(tensor)
        if problem_of(node) is None and not is_drawn(node):
            with _disable_current_modes(), torch.no_grad():
                return _nodes.evaluated(node)
        raise InvalidRequest("build", _why_unread(operation, tensor, node))

    def _no_numbers(self, call: _Call) -> InvalidRequest:
        for tensor in call.tensors:
            if self.is_symbolic(tensor):
                return InvalidRequest("build", _why_unread(call.name, tensor, self.value(tensor)))
        return InvalidRequest("build", f"{call.name} draws what no scheme is for{_at(site())}; draw something else")

    def _argument(self, value: Any) -> Any:  # noqa: ANN401 - tensors and all else
        """An argument, tensors in it as nodes."""
        if isinstance(value, torch.Tensor):
            return self.value(value)
        return [self._argument(one) for one in value] if isinstance(value, (list, tuple)) else value

    def _compute(self, call: _Call, draws: bool) -> object:
        """What an operation makes of symbolic tensors."""
        read = [self.value(tensor) for tensor in call.read if self.is_symbolic(tensor)]
        is_known = not draws and not any(problem_of(node) or is_drawn(node) for node in read)
        if is_known and not (call.keeps_one_number and all(map(self._is_one_number, call.tensors))):
            return self._run_for_real(call)
        try:
            result = call.written[0] if len(call.written) == 1 else call.run_fake(self._fake)
        except InvalidRequest:
            raise
        except Exception as error:  # its shape or result depends on values
            if is_known:
                return self._run_for_real(call)
            if isinstance(error, _NOT_FAKEABLE):
                raise self._no_numbers(call) from error
            raise
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        made = self._made(call, results, is_known) if results else []  # none: it asked for a shape or device
        for tensor, node in zip(results, made, strict=True):
            self.write(tensor, node)
        return call.result_in_place() if call.written else result

    def _is_one_number(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a constant that is known without looking at its elements."""
        return (self.is_symbolic(tensor) or tensor.numel() == 1) and isinstance(self.value(tensor), Full)

    def _made(self, call: _Call, results: list[torch.Tensor], is_known: bool) -> list[Node]:
        """The nodes of an operation's results."""
        if is_known and len(results) == 1:
            constant = self._constant(call, results[0])
            if constant is not None:
                return [constant]
        if call.base == "linalg_qr":
            return self._qr(call, results)
        shape, dtype = tuple(results[0].shape), results[0].dtype
        operation = OPERATIONS.get(call.base)
        if operation is not None:
            given = {name: self._argument(value) for name, value in call.given.items()}
            first = operation(given, shape, dtype)
            if isinstance(first, _nodes.Problem) and first.site is None and not first.is_unset:
                first = located(first, site())
            rest = [self._unknown(call, tensor) for tensor in results[1:]]
            return [first, *rest]
        return [self._unknown(call, tensor) for tensor in results]

    def _unknown(self, call: _Call, tensor: torch.Tensor) -> Node:
        shape, dtype = tuple(tensor.shape), tensor.dtype
        for source in call.read:
            if self.is_symbolic(source) and (problem := problem_of(self.value(source))):
                return _nodes.spoilt(problem, shape, dtype)
        what = "draws what no scheme is for" if not call.tensors else "of values that were drawn is not served"
        return _nodes.Problem(shape, dtype, f"{call.name} {what}; draw the final values at once", site())

    def _constant(self, call: _Call, result: torch.Tensor) -> Node | None:
        """The one number that an elementwise operation on constants gives."""
        if torch.Tag.pointwise not in call.func.tags:
            return None

        def scalar(tensor: torch.Tensor) -> torch.Tensor:
            node = self.value(tensor)
            assert isinstance(node, Full)  # for mypy: they all are
            return torch.full((1,) * tensor.ndim, node.value, dtype=tensor.dtype)

        with _disable_current_modes(), torch.no_grad():
            args, kwargs = tree_map_only(torch.Tensor, scalar, (call.args, call.kwargs))
            number = call.func(*args, **kwargs)
        if not isinstance(number, torch.Tensor):
            return None
        return _nodes.full(tuple(result.shape), result.dtype, number.item())

    def _run_for_real(self, call: _Call) -> object:
        """Runs an operation on numbers, since nothing in them was drawn; what it writes is noted."""
        with _disable_current_modes(), torch.no_grad():
            numbers = {id(tensor): self._numbers_of(tensor) for tensor in call.tensors}
            args, kwargs = tree_map_only(torch.Tensor, lambda tensor: numbers[id(tensor)], (call.args, call.kwargs))
            result = call.func(*args, **call.on_cpu(kwargs))
        if not call.written:
            return result
        for tensor in call.written:
            self.write(tensor, _nodes.literal(numbers[id(tensor)]))
        return call.result_in_place()

    def _numbers_of(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self.is_symbolic(tensor):
            return tensor.detach()
        node = self.value(tensor)
        if problem_of(node):  # it is only written
            return torch.zeros(tuple(tensor.shape), dtype=tensor.dtype)
        return _nodes.evaluated(node).clone()

    def _qr(self, call: _Call, results: list[torch.Tensor]) -> list[Node]:
        """Q of a normal matrix is an orthogonal one; only the signs of R's diagonal are known, which are made so."""
        q, r = results
        source = self.value(call.tensors[0])
        seen = source.source if isinstance(source, Viewed) else source
        is_transposed = (
            isinstance(source, Viewed)
            and torch.Size(seen.shape).numel() == source.box.size
            and is_same(source.box, box_by(source.shape[::-1], lambda array: array.T))
        )
        is_normal = isinstance(seen, Draw) and seen.scheme == "normal" and seen.parameters["mean"] == 0
        rows, columns = source.shape if len(source.shape) == 2 else (0, 1)
        text = "a decomposition of anything but a normal matrix at least as high as wide is not served"
        if not is_normal or not (is_transposed or seen is source) or rows < columns:
            return [_nodes.Problem(tuple(one.shape), one.dtype, text, site()) for one in results]
        assert isinstance(seen, Draw)  # for mypy
        shape = (columns, rows) if is_transposed else (rows, columns)
        matrix: Node = Draw(shape, seen.dtype, seen.drawing, "orthogonal", {"gain": 1.0})
        if is_transposed:
            matrix = _nodes.viewed(matrix, box_by(shape, lambda array: array.T))
        signs = _nodes.Signs(tuple(r.shape), r.dtype, "only the signs of R's diagonal are served", site())
        return [_nodes.viewed(matrix, whole(tuple(q.shape))), signs]


_NOT_FAKEABLE = (
    torch._subclasses.fake_tensor.DataDependentOutputException,
    torch._subclasses.fake_tensor.DynamicOutputShapeException,
    torch._subclasses.fake_tensor.UnsupportedOperatorException,
    NotImplementedError,
)


class _Call:
    """A call of one of torch's operations."""

    def __init__(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = func.overloadpacket.__name__
        self.base = self.name.removesuffix("_")  # of which an in-place operation is a form
        schema = func._schema.arguments
        self.given = {
            argument.name: args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
            for index, argument in enumerate(schema)
        }
        self.tensors = _tensors(self.given.values())
        changed = [argument.name for argument in schema if argument.alias_info and argument.alias_info.is_write]
        self.written = _tensors(self.given[name] for name in changed)
        outputs = [argument.name for argument in schema if argument.name in changed and argument.is_out]
        self.read = _tensors(value for name, value in self.given.items() if name not in outputs)

    @property
    def target(self) -> torch.Tensor | None:
        """The tensor written, if the operation writes one."""
        return self.written[0] if self.written else None

    @property
    def is_empty(self) -> bool:
        """Whether the result has no elements, as lazy modules' parameters before their first call."""
        size = self.given.get("size")
        return size is not None and torch.Size(size).numel() == 0

    @property
    def is_large_constant(self) -> bool:
        """Whether the result is a constant of floats that is not worth its memory."""
        size = self.given.get("size")
        count = torch.Size(size).numel() if size is not None else self.tensors[0].numel() if self.tensors else 0
        dtype = self.given.get("dtype") or (self.tensors[0].dtype if self.tensors else torch.get_default_dtype())
        return count >= _LARGE and bool(dtype.is_floating_point) and not self.written

    @property
    def keeps_one_number(self) -> bool:
        """Whether of constant tensors it makes a constant one."""
        return torch.Tag.pointwise in self.func.tags or self.base in ("clone", "_to_copy")

    @property
    def is_meta_asked_for(self) -> bool:
        device = self.given.get("device")
        return device is not None and torch.device(device).type == "meta"

    def run(self) -> object:
        return self.func(*self.args, **self.kwargs)

    def run_on_cpu(self) -> object:
        """Runs what needs no numbers of its tensors."""
        with _disable_current_modes():
            args, kwargs = tree_map_only(torch.Tensor, _bare, (self.args, self.kwargs))
            return self.func(*args, **self.on_cpu(kwargs))

    def on_cpu(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keywords, for a result on the CPU."""
        if kwargs.get("device") is None and not kwargs.get("pin_memory"):
            return kwargs
        return {**kwargs, "device": torch.device("cpu"), "pin_memory": None}

    def run_fake(self, mode: FakeTensorMode) -> object:
        """Runs it without numbers: for the result's shape, dtype and memory."""
        with mode:
            return self.func(*self.args, **self.on_cpu(self.kwargs))

    def result_in_place(self) -> object:
        """What is returned by an operation that changes its arguments."""
        if not self.func._schema.returns:
            return None
        return self.written[0] if len(self.written) == 1 else tuple(self.written)


def _bare(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of this shape whose memory is never touched."""
    return torch.empty_strided(tuple(tensor.size()), tuple(tensor.stride()), dtype=tensor.dtype)


def _tensors(arguments: Iterable[object]) -> list[torch.Tensor]:
    """The tensors among arguments, of which some may be lists."""
    tensors: list[torch.Tensor] = []
    for one in arguments:
        if isinstance(one, torch.Tensor):
            tensors.append(one)
        elif isinstance(one, (list, tuple)):
            tensors += _tensors(one)
    return tensors


# Draws. Each is made of what schemes draw, as torch makes it of uniforms and normals.

_Drawn = Callable[..., Draw]
_Draws = Callable[[Mapping[str, Any], _Drawn, torch.Tensor], Node]

_TINY = 2.0**-54
"""Below all draws of 53 bits but 0: a uniform from here on is never 0."""


def _uniform(given: Mapping[str, Any], drawn: _Drawn, _: torch.Tensor) -> Node:
    return drawn("uniform", {"a": given.get("from", 0.0), "b": given.get("to", 1.0)})


def _normal(given: Mapping[str, Any], drawn: _Drawn, _: torch.Tensor) -> Node:
    mean, std = given.get("mean", 0.0), given.get("std", 1.0)
    if not (isinstance(mean, Node) or isinstance(std, Node)):
        return drawn("normal", {"mean": mean, "std": std})
    return apply("add", apply("multiply", drawn("normal", {"mean": 0.0, "std": 1.0}), std), mean)


def _open_uniform(drawn: _Drawn) -> Node:
    return drawn("uniform", {"a": _TINY, "b": 1.0}, torch.float64)


def _exponential(given: Mapping[str, Any], drawn: _Drawn, _: torch.Tensor) -> Node:
    return apply("divide", apply("negate", apply("log", _open_uniform(drawn))), given["lambd"])


def _log_normal(given: Mapping[str, Any], drawn: _Drawn, _: torch.Tensor) -> Node:
    return apply("exp", drawn("normal", {"mean": given["mean"], "std": given["std"]}))


def _cauchy(given: Mapping[str, Any], drawn: _Drawn, _: torch.Tensor) -> Node:
    angle = apply("multiply", apply("subtract", _open_uniform(drawn), 0.5), torch.pi)
    tangent = apply("divide", apply("sin", angle), apply("cos", angle))
    return apply("add", apply("multiply", tangent, given["sigma"]), given["median"])


def _geometric(given: Mapping[str, Any], drawn: _Drawn, _: torch.Tensor) -> Node:
    trials = apply("divide", apply("log", _open_uniform(drawn)), apply("log1p", Full((), torch.float64, -given["p"])))
    return apply("add", apply("floor", trials), 1.0)


def _bernoulli(given: Mapping[str, Any], drawn: _Drawn, result: torch.Tensor) -> Node:
    p = given.get("p")
    if p is None:
        p = given["self"]  # torch.bernoulli(probabilities)
    return apply("less", drawn("uniform", {"a": 0.0, "b": 1.0}, torch.float64), p, dtype=result.dtype)


def _integers(given: Mapping[str, Any], drawn: _Drawn, result: torch.Tensor) -> Node:
    low, high = given.get("low", given.get("from", 0)), given.get("high", given.get("to"))
    if high is None:  # random_()
        digits = torch.finfo(result.dtype).eps if result.is_floating_point() else 0.0
        high = round(2 / digits) + 1 if digits else min(torch.iinfo(result.dtype).max, 2**53)
    integers = apply("floor", drawn("uniform", {"a": float(low or 0), "b": float(high)}, torch.float64))
    return with_dtype(integers, result.dtype)


def _permutation(given: Mapping[str, Any], drawn: _Drawn, result: torch.Tensor) -> Node:
    return with_dtype(drawn("permutation", {}, torch.float64), result.dtype)


_DRAWS: dict[str, _Draws] = {
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


class _Calls(TorchFunctionMode):
    """Sees the calls in Python that no dispatched operation tells enough of."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(  # noqa: PLR0911 - a table of what calls are
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if (frame := _composed_caller()) is not None:
            if func == _IS_META:
                self._draw_composed(frame, args[0])
                return True  # then they do nothing
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
        given = {name: frame.f_locals[name] for name in names}
        self._recorder.draw(tensor, scheme, given, frame.f_locals.get("generator"))

    def _deep_copied(self, tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
        """A copy of a tensor, which torch makes of storages and not of operations."""
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
        """The same values in a tensor of the other kind."""
        node = self._recorder.value(tensor)
        with self._recorder._fake if to_fake else _disable_current_modes():
            moved = torch.empty_strided(tuple(tensor.size()), tuple(tensor.stride()), dtype=tensor.dtype)
        self._recorder.write(moved, node)
        return moved


_PLAIN_ATTRIBUTES = frozenset(vars(torch.nn.Parameter(FakeTensorMode().from_tensor(torch.zeros(1)))))


def attributes(tensor: torch.Tensor) -> dict[str, Any]:
    """What a model's code has attached to a tensor."""
    return {name: value for name, value in vars(tensor).items() if name not in _PLAIN_ATTRIBUTES}


def _composed_caller() -> FrameType | None:
    """The function of `_COMPOSED` that calls, past the modes that others have set."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    return frame if frame is not None and frame.f_code in _COMPOSED else None


def _why_unread(operation: str, tensor: torch.Tensor, node: Node) -> str:
    problem = problem_of(node)
    what = str(problem) if problem else f"comes of values that were drawn{_at(site_of_draw(node))}"
    return (
        f"{operation} reads a tensor of shape {tuple(tensor.shape)}, which {what}; there are no numbers to "
        f"read{_at(site())}: let the code not depend on them"
    )


def _at(where: object) -> str:
    return f" ({where})" if where else ""


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
