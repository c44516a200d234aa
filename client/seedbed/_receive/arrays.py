"""Calls that copy the pieces of a stream into arrays: the caller's, or new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from seedbed import dtypes
from seedbed._ask import arguments, literals, outputs, regions, requests
from seedbed._receive import stripes as _stripes
from seedbed._receive.assembler import Assembler, ModelAssembler, Piece, TensorAssembler, check_description
from seedbed._types import Array, Outputs, Progress, RegionLike
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec


class ArrayCall:
    """A call that fills arrays.

    Args:
        assembler: The assembler of its streams.
        slices: The slices of tensors that it fills arrays with.
        destination: Returns the array for a slice by its index, or None for a new one.
        progress: Called with the bytes done and their total after each chunk.
    """

    def __init__(
        self,
        assembler: Assembler,
        slices: Sequence[TensorSlice],
        destination: Callable[[int], Array | None],
        progress: Progress | None,
    ) -> None:
        self.assembler = assembler
        self.slices = slices
        self._destination = destination
        self._progress = progress
        self._done = 0
        self._total = sum(map(regions.byte_count, slices)) if progress else 0
        self._index = -1
        self._array: Array
        self._elements: Array | np.flatiter[Array]

    def accept(self, piece: Piece) -> tuple[str, Array] | None:
        """Copy the piece into its array.

        Returns:
            The tensor's name and its array if this piece completes it, else None.

        Raises:
            InvalidRequest: The destination is not a suitable array.
        """
        if piece.tensor_index != self._index:
            self._open(piece.tensor_index)
        if piece.values.size:
            self._elements[piece.offset : piece.offset + piece.values.size] = piece.values
            self._done += piece.values.nbytes
            if self._progress is not None:
                self._progress(self._done, self._total)
        return (self.slices[piece.tensor_index].spec.name, self._array) if piece.is_last else None

    def _open(self, index: int) -> None:
        tensor_slice, out = self.slices[index], self._destination(index)
        array = new_array(tensor_slice) if out is None else outputs.as_array(out, tensor_slice)
        self._index = index
        self._array = array if out is None else out
        self._elements = array.reshape(-1) if array.flags.c_contiguous else array.flat


def tensor_call(spec: TensorSpec, region: RegionLike | None, out: Array | None, progress: Progress | None) -> ArrayCall:
    """The call for one tensor.

    Raises:
        InvalidRequest: A message cannot carry an argument, or ``out`` is not suitable.
    """
    tensor_slice = requests.tensor_slice(spec, region)
    if out is not None and regions.is_sound(tensor_slice):
        outputs.as_array(out, tensor_slice)
    return ArrayCall(TensorAssembler(tensor_slice), [tensor_slice], lambda _: out, progress)


def large_slice(call: ArrayCall) -> TensorSlice | None:
    """The slice of a call for one tensor, if it is large enough for several connections."""
    [tensor_slice] = call.slices
    if literals.is_literal(tensor_slice) or not regions.is_sound(tensor_slice):
        return None
    return tensor_slice if _stripes.is_large(tensor_slice) else None


def striped_calls(
    description: TensorDescription,
    tensor_slice: TensorSlice,
    out: Array | None,
    progress: Progress | None,
    connections: Sequence[int],
) -> tuple[Array, list[ArrayCall]]:
    """The array of a large tensor, and calls that fill it over several connections at once.

    Args:
        description: A server's description of the slice; all stripes use its version of the stream.
        tensor_slice: The slice.
        out: The array to fill, of the region's shape and the tensor's dtype; None for a new one.
        progress: Called with the bytes done and their total after each chunk, on one thread at a time.
        connections: The connection of each call; their number is the maximum number of calls.

    Raises:
        Corrupted: The description is not of this slice.
    """
    check_description(description, tensor_slice)
    array = new_array(tensor_slice) if out is None else outputs.as_array(out, tensor_slice)
    progress_of = _stripes.summed(progress, description.byte_count) if progress else lambda: None
    calls = []
    stripes = _stripes.split(TensorSlice(spec=description.spec, region=description.region), len(connections))
    for stripe, connection in zip(stripes, connections, strict=False):
        assembler = TensorAssembler(stripe.tensor_slice, connection=connection)
        destination = [array[stripe.place]].__getitem__
        calls.append(ArrayCall(assembler, [stripe.tensor_slice], destination, progress_of()))
    return (array if out is None else out), calls


def chunk_call(spec: TensorSpec, region: RegionLike | None, first_element: int) -> Assembler:
    """The call for the chunks of one tensor, from an element on.

    Raises:
        InvalidRequest: A message cannot carry an argument.
    """
    first = arguments.integer(first_element, "first_element", "element", arguments.INT64)
    return TensorAssembler(requests.tensor_slice(spec, region), first)


def model_call(slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None) -> ArrayCall:
    """The call for many tensors.

    Raises:
        InvalidRequest: A mapping ``out`` lacks an array, or has one that is not suitable.
    """
    names = [tensor_slice.spec.name for tensor_slice in slices]
    find = finder(out, slices, outputs.as_array)
    return ArrayCall(ModelAssembler(slices), slices, lambda index: find(names[index]), progress)


def finder(
    out: Outputs | None, slices: Sequence[TensorSlice], check: Callable[[object, TensorSlice], object]
) -> Callable[[str], Array | None]:
    """The function that returns the caller's array for a tensor's name, or None.

    Args:
        out: A mapping, a function, or None.
        slices: The slices to make.
        check: Refuses an array that is not suitable; called here for those of a mapping.

    Raises:
        InvalidRequest: A mapping lacks an array, or has one that is not suitable.
    """
    if out is None:
        return lambda _: None
    if isinstance(out, Mapping):
        for tensor_slice in slices:
            name = tensor_slice.spec.name
            if name not in out:
                raise InvalidRequest("out", f"has no array for tensor {name!r}; add one, or give a function")
            if regions.is_sound(tensor_slice):
                check(out[name], tensor_slice)
        return out.__getitem__
    if not callable(out):
        raise InvalidRequest("out", f"is a {type(out).__name__}; give a mapping of names to arrays, or a function")
    return out


def new_array(tensor_slice: TensorSlice) -> Array:
    """Allocate an array for the slice.

    Raises:
        InvalidRequest: NumPy has no arrays of this shape.
        MemoryError: There is not enough memory.
    """
    shape, dtype = regions.extents(tensor_slice), dtypes.numpy_dtype(tensor_slice.spec.dtype)
    try:
        return np.empty(shape, dtype)
    except ValueError as error:  # NumPy limits dimensions, and the strides of empty arrays
        raise InvalidRequest("spec.shape", f"NumPy has no arrays of shape {shape}: {error}") from None
    except MemoryError as error:
        gib = math.prod(shape) * dtype.itemsize / 2**30
        remedy = "request regions of it, or use iter_chunks"
        raise MemoryError(f"{gib:.1f} GiB for tensor {tensor_slice.spec.name!r} is unavailable; {remedy}") from error
