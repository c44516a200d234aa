"""Follows every operation that torch dispatches, and notes what it writes."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
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
)
from seedbed.errors import InvalidRequest
from seedbed.torch import _nodes
from seedbed.torch._call import Call
from seedbed.torch._draws import DRAWS, RandomOperation
from seedbed.torch._nodes import Drawing, Site
from seedbed.torch._operations import OPERATIONS, broadcast

_aten = torch.ops.aten

_ALLOCATIONS = (_aten.empty, _aten.empty_strided, _aten.empty_like, _aten.new_empty, _aten.new_empty_strided)
_CONSTANTS: dict[Any, float] = {_aten.zeros: 0.0, _aten.ones: 1.0, _aten.full: 0.0}
_LIKE = (_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros, _aten.new_ones, _aten.new_full)
_VIEWS = (_aten._unsafe_view, _aten.resize_, _aten.set_)  # which torch does not declare as views
_OURS = __name__.rpartition(".")[0]


class _Log(NamedTuple):
    storage: torch.UntypedStorage  # kept, so that no other storage gets its address
    content: Node


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is written where.

    Attributes:
        fake: Makes the tensors without memory.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._logs: dict[int, _Log] = {}
        self._drawings: dict[object, Drawing] = {}
        self._numbers = itertools.count(1)

    # What tensors hold.

    def is_symbolic(self, tensor: torch.Tensor) -> bool:
        return isinstance(tensor, FakeTensor) or tensor.is_meta or _key(tensor) in self._logs

    def is_drawn(self, tensor: torch.Tensor) -> bool:
        """Whether some of a tensor's values are drawn, and none are unknown."""
        node = self.value(tensor) if self.is_symbolic(tensor) else None
        return node is not None and is_drawn(node) and problem_of(node) is None

    def value(self, tensor: torch.Tensor) -> Node:
        """What a tensor holds now."""
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
            text = f"is written as {log.content.dtype} and read as {tensor.dtype}, which no recipe describes"
            return _nodes.problem(text, tuple(tensor.shape), tensor.dtype, log.content)
        return _nodes.viewed(content, Box.of(tensor))

    def write(self, tensor: torch.Tensor, node: Node) -> None:
        """Notes what is written to a tensor."""
        node = _nodes.cast(broadcast(node, tuple(tensor.shape)), tensor.dtype)
        storage = tensor.untyped_storage()
        log = self._logs.get(_key(tensor))
        before = log.content if log else self._before(tensor, storage)
        if before.dtype != tensor.dtype:
            text = f"is written both as {before.dtype} and as {tensor.dtype}, which no recipe describes"
            before = _nodes.problem(text, (storage.nbytes() // tensor.itemsize,), tensor.dtype)
        self._logs[_key(tensor)] = _Log(storage, _nodes.written(before, Box.of(tensor), node))

    def _before(self, tensor: torch.Tensor, storage: torch.UntypedStorage) -> Node:
        """What a storage holds to which no write was noted."""
        count = storage.nbytes() // tensor.itemsize
        if isinstance(tensor, FakeTensor) or tensor.is_meta:
            return _nodes.unset((count,), tensor.dtype)
        with _disable_current_modes(), torch.no_grad():
            flat = tensor.detach().as_strided((count,), (1,), 0)
            node = _nodes.literal(flat)
            if _nodes.is_served(tensor.dtype):
                flat.fill_(torch.nan)  # so that a read that bypasses the recorder shows
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
        """A draw by a scheme. As in torch, the same state of a generator gives the same draw."""
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

    def __torch_dispatch__(  # noqa: PLR0911 - a case for each kind of operation
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        call = Call(func, args, kwargs or {})
        packet = func.overloadpacket
        if packet in _ALLOCATIONS and not call.is_empty:
            return call.run_fake(self.fake)
        if torch.Tag.nondeterministic_seeded in func.tags and (operation := DRAWS.get(call.base)) is not None:
            return self._random(call, operation)
        if packet in _CONSTANTS and call.is_large_constant:
            value = float(call.arguments["fill_value"] or 0.0) if packet is _aten.full else _CONSTANTS[packet]
            return self._noted(call, Full((), torch.float64, value))
        if packet in _LIKE and not call.written:
            return self._like(call)
        if not call.tensors and call.is_on_meta:
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

    def _like(self, call: Call) -> object:
        """A constant in the shape of a tensor, whose values do not matter."""
        if not call.is_large_constant:
            return call.run_on_cpu()
        node = OPERATIONS[call.base](call.arguments, (), torch.float64)
        return self._noted(call, node)

    def _noted(self, call: Call, node: Node) -> object:
        result = call.run_fake(self.fake)
        assert isinstance(result, torch.Tensor)  # for mypy
        self.write(result, node)
        return result

    def _random(self, call: Call, operation: RandomOperation) -> object:
        target = call.target
        result = target if target is not None else call.run_fake(self.fake)
        if not isinstance(result, torch.Tensor):
            raise self._unreadable(call)
        arguments = {name: self._argument(value) for name, value in call.arguments.items()}

        def drawn(scheme: str, parameters: Mapping[str, Any], dtype: torch.dtype | None = None) -> Draw:
            kind = dtype or (result.dtype if _nodes.is_served(result.dtype) else torch.float64)
            return self.drawn(scheme, parameters, tuple(result.shape), kind, call.arguments.get("generator"))

        self.write(result, operation(arguments, drawn, result))
        return result

    def _fill(self, call: Call) -> torch.Tensor:
        """Fills a tensor with a constant, or with another's values."""
        [target] = call.written
        source: Any = call.arguments.get("src", call.arguments.get("value", 0.0))
        if not self.is_symbolic(target) and not (isinstance(source, torch.Tensor) and self.is_symbolic(source)):
            call.run()
            return target
        node = self.value(source) if isinstance(source, torch.Tensor) else _nodes.full((), target.dtype, source)
        self.write(target, node)
        return target

    def _read(self, call: Call) -> float | int | bool:
        """Reads one value, as ``item()`` and ``if`` do."""
        [tensor] = call.tensors
        return self.numbers(call.name, tensor).item()

    def numbers(self, operation: str, tensor: torch.Tensor) -> torch.Tensor:
        """The values of a tensor in which nothing is drawn.

        Raises:
            InvalidRequest: If some are drawn or unknown.
        """
        node = self.value(tensor)
        if problem_of(node) is None and not is_drawn(node):
            with _disable_current_modes(), torch.no_grad():
                return _nodes.evaluated(node)
        raise InvalidRequest("build", _why_unread(operation, tensor, node))

    def _unreadable(self, call: Call) -> InvalidRequest:
        for tensor in call.tensors:
            if self.is_symbolic(tensor):
                return InvalidRequest("build", _why_unread(call.name, tensor, self.value(tensor)))
        return InvalidRequest("build", f"{call.name} draws from a law that is not served{_at(site())}")

    def _argument(self, value: Any) -> Any:  # noqa: ANN401 - tensors and all else
        """An argument, with nodes in place of tensors."""
        if isinstance(value, torch.Tensor):
            return self.value(value)
        return [self._argument(element) for element in value] if isinstance(value, (list, tuple)) else value

    def _compute(self, call: Call, draws: bool) -> object:
        """Computes an operation on symbolic tensors."""
        read = [self.value(tensor) for tensor in call.read if self.is_symbolic(tensor)]
        is_known = not draws and not any(problem_of(node) or is_drawn(node) for node in read)
        if is_known and not (call.keeps_constants and all(map(self._is_one_number, call.tensors))):
            return self._run_for_real(call)
        try:
            result = call.written[0] if len(call.written) == 1 else call.run_fake(self.fake)
        except InvalidRequest:
            raise
        except Exception as error:  # the shape or the result depends on values
            if is_known:
                return self._run_for_real(call)
            if isinstance(error, _NOT_FAKEABLE):
                raise self._unreadable(call) from error
            raise
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        made = self._made(call, results, is_known) if results else []  # none: the result is a shape or a device
        for tensor, node in zip(results, made, strict=True):
            self.write(tensor, node)
        return call.result_in_place() if call.written else result

    def _is_one_number(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a constant that is known without looking at its elements."""
        return (self.is_symbolic(tensor) or tensor.numel() == 1) and isinstance(self.value(tensor), Full)

    def _made(self, call: Call, results: list[torch.Tensor], is_known: bool) -> list[Node]:
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
            arguments = {name: self._argument(value) for name, value in call.arguments.items()}
            first = operation(arguments, shape, dtype)
            if isinstance(first, _nodes.Problem) and first.site is None and not first.is_unset:
                first = located(first, site())
            rest = [self._unknown(call, tensor) for tensor in results[1:]]
            return [first, *rest]
        return [self._unknown(call, tensor) for tensor in results]

    def _unknown(self, call: Call, tensor: torch.Tensor) -> Node:
        shape, dtype = tuple(tensor.shape), tensor.dtype
        for source in call.read:
            if self.is_symbolic(source) and (problem := problem_of(self.value(source))):
                return _nodes.propagated(problem, shape, dtype)
        operation = f"{call.name} of drawn values" if call.tensors else call.name
        text = f"is computed by {operation}, which is not served; draw the final values directly"
        return _nodes.Problem(shape, dtype, text, site())

    def _constant(self, call: Call, result: torch.Tensor) -> Node | None:
        """The result of an elementwise operation on constants, which is one number."""
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

    def _run_for_real(self, call: Call) -> object:
        """Runs an operation on values, none of which is drawn, and notes what it writes."""
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
        if problem_of(node):  # the operation only writes it
            return torch.zeros(tuple(tensor.shape), dtype=tensor.dtype)
        return _nodes.evaluated(node).clone()

    def _qr(self, call: Call, results: list[torch.Tensor]) -> list[Node]:
        """Q of a normal matrix, as an orthogonal draw; of R we know that its diagonal is positive, and nothing else."""
        q, r = results
        source = self.value(call.tensors[0])
        base = source.source if isinstance(source, Viewed) else source
        is_transposed = (
            isinstance(source, Viewed)
            and torch.Size(base.shape).numel() == source.box.size
            and is_same(source.box, box_by(source.shape[::-1], lambda array: array.T))
        )
        is_normal = isinstance(base, Draw) and base.scheme == "normal" and base.parameters["mean"] == 0
        rows, columns = source.shape if len(source.shape) == 2 else (0, 1)
        text = "decomposes a matrix that is wider than high or not drawn from a normal, which is not served"
        if not is_normal or not (is_transposed or base is source) or rows < columns:
            return [_nodes.Problem(tuple(result.shape), result.dtype, text, site()) for result in results]
        assert isinstance(base, Draw)  # for mypy
        shape = (columns, rows) if is_transposed else (rows, columns)
        matrix: Node = Draw(shape, base.dtype, base.drawing, "orthogonal", {"gain": 1.0})
        if is_transposed:
            matrix = _nodes.viewed(matrix, box_by(shape, lambda array: array.T))
        text = "depends on R of a QR decomposition, of which only the diagonal's signs are known"
        shape_of_r = tuple(r.shape)
        signs = _nodes.Signs(shape_of_r, r.dtype, text, site(), boxes=(whole(shape_of_r),), columns=shape_of_r[1])
        return [_nodes.viewed(matrix, whole(tuple(q.shape))), signs]


_NOT_FAKEABLE = (
    torch._subclasses.fake_tensor.DataDependentOutputException,
    torch._subclasses.fake_tensor.DynamicOutputShapeException,
    torch._subclasses.fake_tensor.UnsupportedOperatorException,
    NotImplementedError,
)


def site() -> Site | None:
    """The innermost line that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] != "torch" and name.rpartition(".")[0] != _OURS and name != "contextlib":
            return Site(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def _why_unread(operation: str, tensor: torch.Tensor, node: Node) -> str:
    problem = problem_of(node)
    what = str(problem) if problem else f"depends on drawn values{_at(site_of_draw(node))}"
    return (
        f"{operation} reads a tensor of shape {tuple(tensor.shape)}{_at(site())}, which {what}; it has no values while "
        "the code is recorded, so the code must not depend on them"
    )


def _at(where: object) -> str:
    return f" ({where})" if where else ""


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
