"""The client of a GPU of this process, the target ``local:cuda``, which samples straight into the GPU's memory."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from seedbed import dtypes
from seedbed._ask import arguments, literals, outputs, regions, requests
from seedbed._inside.base import InsideClient, Spans
from seedbed._inside.engine import CudaEngine, Gpu, open_cuda_engine
from seedbed._receive import arrays
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed.common.deadline import Deadline
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec

CupyArray = Any
"""CuPy has no types. As ``out``, it may be another library's array."""

_PIECE_BYTES: Final = 64 << 20
_GROUP_TENSORS: Final = 256
_GROUP_BYTES: Final = 1 << 30
_IN_GPU_MEMORY: Final = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_NOT_SHARED: Final = (BufferError, NotImplementedError, TypeError, ValueError)  # raised by DLPack


class CudaClient(InsideClient[CudaEngine]):
    """A client of one GPU of this process; made by ``seedbed.connect("local:cuda")``, closed by ``with`` or `close`.

    Its methods are those of `seedbed.Client`, with the same arguments, errors and values. Its arrays are on the GPU.
    Only orthogonal matrices are computed on the CPU and copied::

        with seedbed.connect("local:cuda") as client:
            w = client.normal((4096, 4096), dtype="bfloat16")  # a CuPy array
            client.normal((4096, 4096), out=torch.empty((4096, 4096), device="cuda"))

    Differences from a client over a socket:

    - New arrays are CuPy's, with ``ml_dtypes.bfloat16``.
    - ``out`` is an array in this GPU's memory that supports DLPack, such as a CuPy array or a torch tensor. If it is
      not C-contiguous, a second array of its size is filled, and copied on the GPU.
    - Work is queued on CuPy's current stream, or on torch's for torch tensors. Like those of CuPy and torch, calls
      return before it is done. If ``out`` is another library's array, they return when it is filled, because that
      library may use another stream.
    - ``progress`` is called when a tensor's work is queued, and the timeout covers the time until then.
    """

    @functools.cached_property
    def _memory(self) -> _Memory:
        return _Memory(self._engine.device)

    def _open_engine(self) -> CudaEngine:
        return open_cuda_engine(self.target)

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Generator[tuple[str, CupyArray], None, None]:
        """Initialise many tensors; all are validated before work on the first is queued.

        Args:
            model: As for `Client.init_model`.
            out: As for `Client.init_model`, with arrays in the GPU's memory.
            progress: Called as ``progress(done_bytes, total_bytes)`` of the whole model when a tensor's work is queued;
                True draws a bar.
            timeout: Seconds until the last tensor's work is queued, including the caller's work in between.

        Returns:
            An iterator of names and arrays, in the model's order. Tensors are queued in groups, when the iterator
            reaches the first of each. A group has up to 256 tensors and 1 GiB, to which the arrays of a mapping ``out``
            do not count; it is smaller if memory is short.
        """
        return super().init_model(model, out, progress, timeout)

    def _model(
        self, slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, seconds: float | None
    ) -> Generator[tuple[str, CupyArray], None, None]:
        find = arrays.finder(out, slices, self._memory.check)
        return self._tensors("InitModel", slices, find, progress, seconds, isinstance(out, Mapping))

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> Generator[tuple[int, CupyArray], None, None]:
        """Initialise one tensor, or a region of it, in pieces of 64 MiB, for tensors that do not fit on the GPU.

        Args:
            spec: The tensor, such as `seedbed.spec` returns.
            region: As for `Client.iter_chunks`.
            first_element: As for `Client.iter_chunks`.
            timeout: Seconds until the last piece's work is queued, including the caller's work in between.

        Returns:
            An iterator of pairs: the position of a piece's first element, and the piece, a 1-D CuPy array. It belongs
            to the caller, and frees its memory when the caller drops it.
        """
        first = arguments.integer(first_element, "first_element", "element", arguments.INT64)
        return self._in_pieces(requests.tensor_slice(spec, region), first, Deadline(self._seconds(timeout)))

    def visit(
        self,
        model: ModelLike,
        use: Callable[[int, int, Array], object],
        jobs: int | None = None,
        timeout: Timeout = ...,
    ) -> None:
        """As `Client.visit`, with pieces of 64 MiB one after the other on the calling thread, as 1-D CuPy arrays.

        Args:
            model: As for `Client.visit`.
            use: As for `Client.visit`.
            jobs: Ignored.
            timeout: Seconds until the last piece's work is queued, including the calls of ``use``.
        """
        deadline = Deadline(self._seconds(timeout))
        slices = requests.slices(model)
        self._describe("InitModel", slices, deadline)  # validates all tensors before any is sampled
        for index, tensor_slice in enumerate(slices):
            for first, values in self._in_pieces(tensor_slice, 0, deadline):
                use(index, first, values)

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> CupyArray:
        tensor_slice = requests.tensor_slice(spec, region)
        if out is not None and regions.is_sound(tensor_slice):
            self._memory.check(out, tensor_slice)
        [(_, array)] = self._tensors("InitTensor", [tensor_slice], lambda _: out, progress, seconds)
        return array

    def _tensors(
        self,
        method: str,
        slices: Sequence[TensorSlice],
        find: Callable[[str], object],
        progress: Progress | None,
        seconds: float | None,
        has_arrays: bool = False,
    ) -> Generator[tuple[str, CupyArray], None, None]:
        """Make tensors; ``has_arrays`` means that the caller already holds the arrays that ``find`` returns."""
        deadline = Deadline(seconds)
        descriptions = self._describe(method, slices, deadline)
        waiting = deque(map(_Tensor, slices, descriptions))
        done, total = 0, sum(description.byte_count for description in descriptions)
        while waiting:
            with self._engine.device.use():
                group = self._group(waiting, find, has_arrays)
                self._begin(group, deadline)
            while group:
                self.transport.call(_do_nothing, deadline)  # raises if the client was closed
                tensor = group.popleft()
                done += tensor.description.byte_count
                if progress is not None and tensor.description.byte_count:
                    progress(done, total)
                yield tensor.slice.spec.name, tensor.place.result
                del tensor  # the next one may need its memory

    def _group(self, waiting: deque[_Tensor], find: Callable[[str], object], has_arrays: bool) -> deque[_Tensor]:
        """Take the next tensors, and find or allocate their arrays."""
        group: deque[_Tensor] = deque()
        spans, byte_count = Spans(), 0
        while waiting and len(group) < _GROUP_TENSORS:
            tensor = waiting[0]
            if tensor.out is _UNKNOWN:
                tensor.out = find(tensor.slice.spec.name)
            if not has_arrays or tensor.out is None:
                byte_count += tensor.description.byte_count
            if group and byte_count > _GROUP_BYTES:
                break
            try:
                place = self._memory.place(tensor.out, tensor.slice)
            except MemoryError:
                if not group:
                    raise
                break  # the caller may drop earlier arrays
            if not spans.add(*place.span(tensor.description.byte_count)):
                break  # the caller may reuse the same memory for each tensor
            if has_arrays and place.strided is not None:
                byte_count += tensor.description.byte_count
            tensor.place = place
            group.append(waiting.popleft())
        return group

    def _begin(self, group: Sequence[_Tensor], deadline: Deadline) -> None:
        by_stream: dict[int | None, list[_Tensor]] = {}
        for tensor in group:
            by_stream.setdefault(tensor.place.stream, []).append(tensor)
        for stream, tensors in by_stream.items():
            with self._memory.on_stream(stream):
                self._begin_together(tensors, deadline)
        if any(tensor.place.is_synchronous for tensor in group):
            self._memory.synchronize()

    def _begin_together(self, tensors: Sequence[_Tensor], deadline: Deadline) -> None:
        jobs, copies = [], []
        for tensor in tensors:
            place, description = tensor.place, tensor.description
            pointer = place.pointer
            if place.strided is not None:
                contiguous = self._memory.new(description.spec, place.strided.shape)
                copies.append((place.strided, contiguous))
                pointer = contiguous.data.ptr
            jobs.append((description, 0, description.element_count, pointer))
        self._write(jobs, deadline)
        for strided, contiguous in copies:
            strided[...] = contiguous

    def _in_pieces(
        self, tensor_slice: TensorSlice, first: int, deadline: Deadline
    ) -> Generator[tuple[int, CupyArray], None, None]:
        [description] = self._describe("InitTensor", [tensor_slice], deadline, first)
        end = description.element_count
        step = _PIECE_BYTES // dtypes.numpy_dtype(tensor_slice.spec.dtype).itemsize
        for offset in range(first, end, step):
            # The array has no name, which would keep it in memory while the next one is made.
            yield offset, self._piece(description, offset, min(step, end - offset), deadline)

    def _piece(self, description: TensorDescription, first: int, count: int, deadline: Deadline) -> CupyArray:
        with self._engine.device.use():
            array = self._memory.new(description.spec, (count,))
            self._write([(description, first, count, array.data.ptr)], deadline)
        return array

    def _write(self, jobs: Sequence[tuple[TensorDescription, int, int, int]], deadline: Deadline) -> None:
        """Queue jobs: a description, the first element, the number of elements, and the address to write to."""
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        others = []
        for description, first, count, pointer in jobs:
            if not count:
                continue
            if description.law.HasField("literal"):
                values = literals.values(_slice_of(description))[first : first + count]
                self._engine.device.copy_from_host(pointer, values, None)
            else:
                others.append((description, first, count, pointer))
        self.transport.call(partial(self._engine.write_all, others), deadline)


_UNKNOWN: Final = object()


@dataclass
class _Tensor:
    """A tensor of the call."""

    slice: TensorSlice
    description: TensorDescription
    out: object = _UNKNOWN
    place: _Place = field(init=False)


class _Place(NamedTuple):
    """The memory of a tensor."""

    result: object
    """The array that the caller gets."""
    pointer: int
    strided: CupyArray | None = None
    """The array of this memory, if it is not contiguous."""
    stream: int | None = None
    """The address of torch's stream; None means CuPy's."""
    is_synchronous: bool = False
    """Whether the call returns only when the array is filled."""

    def span(self, byte_count: int) -> tuple[int, int]:
        """Its first address, and the one past its last."""
        if self.strided is None:
            return self.pointer, self.pointer + byte_count
        reaches = [step * (size - 1) for step, size in zip(self.strided.strides, self.strided.shape, strict=True)]
        end = self.strided.dtype.itemsize + sum(reach for reach in reaches if reach > 0)
        return self.pointer + sum(reach for reach in reaches if reach < 0), self.pointer + end


def _do_nothing() -> None:
    pass


def _slice_of(description: TensorDescription) -> TensorSlice:
    return TensorSlice(spec=description.spec, region=description.region)


class _Memory:
    """Arrays in the memory of one GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: Gpu) -> None:
        self._cupy = device.cupy
        self._number = device.number

    def new(self, spec: TensorSpec, shape: tuple[int, ...]) -> CupyArray:
        """Allocate an array of a tensor's dtype on the current device.

        Raises:
            InvalidRequest: CuPy has no arrays of this shape.
            MemoryError: There is not enough memory.
        """
        dtype = dtypes.numpy_dtype(spec.dtype)
        try:
            return self._cupy.empty(shape, dtype)
        except ValueError as error:
            raise InvalidRequest("spec.shape", f"CuPy has no arrays of shape {shape}: {error}") from None
        except MemoryError as error:
            gib = math.prod(shape) * dtype.itemsize / 2**30
            remedy = "request regions of it, use iter_chunks, or free other memory"
            raise MemoryError(
                f"{gib:.1f} GiB on GPU {self._number} for tensor {spec.name!r} is unavailable; {remedy}"
            ) from error

    def place(self, out: CupyArray, tensor_slice: TensorSlice) -> _Place:
        """The memory of ``out``, or of a new array.

        Raises:
            InvalidRequest: As for `as_cupy`.
            MemoryError: There is not enough memory for a new array.
        """
        if out is None:
            array = self.new(tensor_slice.spec, regions.extents(tensor_slice))
            return _Place(array, array.data.ptr)
        stream = self._torch_stream(out)
        if stream is not None and self._is_plain(out, tensor_slice):
            return _Place(out, out.data_ptr(), stream=stream)
        with self.on_stream(stream):
            array = self.as_cupy(out, tensor_slice)
        strided = None if array.flags.c_contiguous else array
        return _Place(out, array.data.ptr, strided, stream, stream is None and array is not out)

    def check(self, out: object, tensor_slice: TensorSlice) -> None:
        """Refuse an array that is not suitable as ``out``, with the errors of `as_cupy`."""
        stream = self._torch_stream(out)
        if stream is not None and self._is_plain(out, tensor_slice):
            return
        with self.on_stream(stream):
            self.as_cupy(out, tensor_slice)

    def on_stream(self, stream: int | None) -> contextlib.AbstractContextManager[object]:
        """Make the stream at an address CuPy's current one for a ``with`` block; None changes nothing."""
        if stream is None:
            return contextlib.nullcontext()
        cuda = self._cupy.cuda
        context: contextlib.AbstractContextManager[object]
        context = cuda.ExternalStream(stream, self._number) if stream else cuda.Stream.null
        return context

    def _torch_stream(self, out: CupyArray) -> int | None:
        """The address of torch's current stream on this GPU; None if the array is not a torch tensor on a GPU."""
        torch: Any = sys.modules.get("torch")  # imported already, if the array is a tensor
        tensor_type: Any = getattr(torch, "Tensor", ())
        if not isinstance(out, tensor_type) or not out.is_cuda:
            return None
        return int(torch.cuda.current_stream(self._number).cuda_stream)

    def _is_plain(self, out: CupyArray, tensor_slice: TensorSlice) -> bool:
        """Whether a torch tensor is suitable, and contiguous on this GPU; much faster than through DLPack."""
        torch = sys.modules["torch"]
        return (
            type(out) in (torch.Tensor, torch.nn.Parameter)
            and out.layout is torch.strided
            and out.device.index == self._number
            and tuple(out.shape) == regions.extents(tensor_slice)
            and str(out.dtype) == f"torch.{dtypes.name_of(tensor_slice.spec.dtype)}"
            and out.is_contiguous()
        )

    def as_cupy(self, out: object, tensor_slice: TensorSlice) -> CupyArray:
        """View the memory of ``out`` as a CuPy array.

        Raises:
            InvalidRequest: ``out`` is not in this GPU's memory, has another shape or dtype, or is read-only.
        """
        label = outputs.label(tensor_slice)
        array = self._shared(out, label)
        if (device := array.device.id) != self._number:
            remedy = f"give an array on GPU {self._number}, or connect to local:cuda:{device}"
            raise InvalidRequest("out", f"is in GPU {device}'s memory{label}; {remedy}")
        outputs.check_fit(array.shape, array.dtype, tensor_slice)
        outputs.check_no_overlap(array, tensor_slice)
        return array

    def _shared(self, out: object, label: str) -> CupyArray:
        if isinstance(out, self._cupy.ndarray):
            return out
        locate, detach = getattr(out, "__dlpack_device__", None), getattr(out, "detach", None)
        if locate is None:
            remedy = "give a CuPy array, or one that supports DLPack, such as a torch tensor"
            raise InvalidRequest("out", f"is a {type(out).__name__}{label}; {remedy}")
        if locate()[0] not in _IN_GPU_MEMORY:
            remedy = f"give an array on GPU {self._number}, or connect to local:"
            raise InvalidRequest("out", f"is not in a GPU's memory{label}; {remedy}")
        if type(out).__module__.startswith("jax"):  # CuPy would write to it
            remedy = "omit it, and pass the result to jax.dlpack.from_dlpack"
            raise InvalidRequest("out", f"is a JAX array{label}, which is read-only; {remedy}")
        try:
            # A torch tensor that requires a gradient shares its memory only once it is detached.
            return self._cupy.from_dlpack(detach() if detach else out)
        except _NOT_SHARED as error:
            raise InvalidRequest("out", f"cannot be shared with CuPy{label}: {error}; give a CuPy array") from error

    def synchronize(self) -> None:
        """Wait for the work on the current stream."""
        self._cupy.cuda.get_current_stream().synchronize()
