"""Pieces of a stream into arrays: the caller's, or new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from seedbed import dtypes
from seedbed._ask import arguments, literals, outputs, regions
from seedbed._ask.requests import tensor_slice
from seedbed._receive import stripes as _stripes
from seedbed._receive.assembler import Assembler, ModelAssembler, Piece, TensorAssembler, check_description
from seedbed._types import Array, Outputs, Progress, RegionLike
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec


class ArrayCall:
    """A call that fills arrays.

    Args:
        assembler: What follows the stream.
        wanted: What was asked for.
        destination: Gives the array of a tensor by its index, or None for a new one.
        progress: Told the bytes done and their total after each chunk.
    """

    def __init__(
        self,
        assembler: Assembler,
        wanted: Sequence[TensorSlice],
        destination: Callable[[int], Array | None],
        progress: Progress | None,
    ) -> None:
        self.assembler = assembler
        self.wanted = wanted
        self._destination = destination
        self._progress = progress
        self._done = 0
        self._total = sum(regions.byte_count(part) for part in wanted) if progress else 0
        self._index = -1
        self._array: Array
        self._elements: Array | np.flatiter[Array]

    def accept(self, piece: Piece) -> tuple[str, Array] | None:
        """Copies the piece to its place.

        Returns:
            The name and the array of the tensor, if it is complete now.

        Raises:
            InvalidRequest: If the tensor's destination is not as it has to be.
        """
        if piece.tensor_index != self._index:
            self._open(piece.tensor_index)
        if piece.values.size:
            self._elements[piece.offset : piece.offset + piece.values.size] = piece.values
            self._done += piece.values.nbytes
            if self._progress is not None:
                self._progress(self._done, self._total)
        return (self.wanted[piece.tensor_index].spec.name, self._array) if piece.is_last else None

    def _open(self, index: int) -> None:
        wanted = self.wanted[index]
        given = self._destination(index)
        plain = new_array(wanted) if given is None else outputs.as_array(given, wanted)
        self._index = index
        self._array = plain if given is None else given
        self._elements = plain.reshape(-1) if plain.flags.c_contiguous else plain.flat


def tensor_call(spec: TensorSpec, region: RegionLike | None, out: Array | None, progress: Progress | None) -> ArrayCall:
    """The call for one tensor.

    Raises:
        InvalidRequest: If an argument cannot be sent, or ``out`` does not fit.
    """
    wanted = tensor_slice(spec, region)
    if out is not None and regions.is_sound(wanted):
        outputs.as_array(out, wanted)
    return ArrayCall(TensorAssembler(wanted), [wanted], lambda _: out, progress)


def large_part(call: ArrayCall) -> TensorSlice | None:
    """The part of a tensor that a call wants, if it is worth dividing among several connections."""
    [wanted] = call.wanted
    if literals.is_literal(wanted) or not regions.is_sound(wanted):
        return None
    return wanted if _stripes.is_large(wanted) else None


def striped_calls(
    description: TensorDescription,
    wanted: TensorSlice,
    out: Array | None,
    progress: Progress | None,
    connections: Sequence[int],
) -> tuple[Array, list[ArrayCall]]:
    """The array of a large tensor, and calls that fill it over several connections at once.

    Args:
        description: What one of them says of the part wanted; all are asked for its version of the stream.
        wanted: The part.
        out: The array, of the part's shape and dtype; None for a new one.
        progress: Told the bytes done and their total after each chunk, by one thread at a time.
        connections: Over which connection each call is to go, of as many as there may be.

    Raises:
        Corrupted: If the description is not of the part wanted.
    """
    check_description(description, wanted)
    array = new_array(wanted) if out is None else outputs.as_array(out, wanted)
    progress_of = _stripes.summed(progress, description.byte_count) if progress else lambda: None
    calls = []
    stripes = _stripes.split(TensorSlice(spec=description.spec, region=description.region), len(connections))
    for (part, where), connection in zip(stripes, connections, strict=False):
        assembler = TensorAssembler(part, connection=connection)
        calls.append(ArrayCall(assembler, [part], [array[where]].__getitem__, progress_of()))
    return (array if out is None else out), calls


def chunk_call(spec: TensorSpec, region: RegionLike | None, first_element: int) -> Assembler:
    """The call for the chunks of one tensor, from some element on.

    Raises:
        InvalidRequest: If an argument cannot be sent.
    """
    first = arguments.integer(first_element, "first_element", "element", arguments.INT64)
    return TensorAssembler(tensor_slice(spec, region), first)


def model_call(wanted: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None) -> ArrayCall:
    """The call for many tensors.

    Raises:
        InvalidRequest: If a mapping ``out`` lacks an array or has one that does not fit.
    """
    names = [part.spec.name for part in wanted]
    find = finder(out, wanted, outputs.as_array)
    return ArrayCall(ModelAssembler(wanted), wanted, lambda index: find(names[index]), progress)


def finder(
    out: Outputs | None, wanted: Sequence[TensorSlice], check: Callable[[object, TensorSlice], object]
) -> Callable[[str], Array | None]:
    """The function that gives a tensor's array by its name.

    Args:
        out: A mapping, a function, or None.
        wanted: The tensors.
        check: Refuses an array that does not fit; asked at once for those of a mapping.

    Raises:
        InvalidRequest: If a mapping lacks an array or has one that does not fit.
    """
    if out is None:
        return lambda _: None
    if isinstance(out, Mapping):
        for part in wanted:
            if part.spec.name not in out:
                raise InvalidRequest("out", f"has no array for tensor {part.spec.name!r}; add one, or give a function")
            if regions.is_sound(part):
                check(out[part.spec.name], part)
        return out.__getitem__
    if not callable(out):
        raise InvalidRequest("out", f"is a {type(out).__name__}; give a mapping of names to arrays, or a function")
    return out


def new_array(wanted: TensorSlice) -> Array:
    """A new array for the part wanted.

    Raises:
        InvalidRequest: If NumPy has no arrays of this shape.
        MemoryError: If there is no memory for it.
    """
    shape, dtype = regions.extents(wanted), dtypes.numpy_dtype(wanted.spec.dtype)
    try:
        return np.empty(shape, dtype)
    except ValueError as error:  # NumPy's own limits on dimensions and on the strides of empty arrays
        raise InvalidRequest("spec.shape", f"{shape} is no shape that NumPy can hold: {error}") from None
    except MemoryError as error:
        gib = math.prod(shape) * dtype.itemsize / 2**30
        remedy = "ask for regions of it, or use iter_chunks"
        raise MemoryError(f"{gib:.1f} GiB for tensor {wanted.spec.name!r} is unavailable; {remedy}") from error
