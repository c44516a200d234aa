"""Which part of a tensor is on this rank: from its placement alone, without communication."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from seedbed.errors import InvalidRequest
from seedbed.v1 import Region

_Run = tuple[int, int]  # consecutive indices: the first, and one past the last


class Part(NamedTuple):
    """A box of the global tensor, and its memory on this rank."""

    region: Region | None
    """All of it if None."""
    memory: torch.Tensor


def global_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape of the whole tensor, also of a parameter that DeepSpeed has partitioned."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def check_not_copied(name: str, tensor: torch.Tensor) -> None:
    """Refuses to fill a parameter of which DeepSpeed's optimizer has a copy, since it would write that back.

    Args:
        name: The tensor's name, for errors.
        tensor: A parameter or buffer.

    Raises:
        InvalidRequest: If there is such a copy.
    """
    if hasattr(tensor, "_z3_optimizer"):
        raise InvalidRequest(
            name,
            "has a copy in DeepSpeed's optimizer, which would overwrite what is filled; fill it between "
            "deepspeed.zero.Init and deepspeed.initialize",
        )


def local_parts(name: str, tensor: torch.Tensor, is_zero: bool = False) -> list[Part]:
    """What this rank holds of a tensor: all of it, or its shard of a DTensor, in as few boxes as possible.

    Args:
        name: The tensor's name, for errors.
        tensor: A parameter or buffer.
        is_zero: Whether all of it is zero; then so is each rank's term of a sum over ranks (``Partial``).

    Raises:
        InvalidRequest: If no rank holds the values of a DTensor, because of its placement; or if DeepSpeed has gathered
            a parameter of ZeRO-3, or keeps it elsewhere, quantised or twice.
    """
    if hasattr(tensor, "ds_tensor"):
        return list(_parts_of_zero3(name, tensor))
    if not isinstance(tensor, DTensor):
        return [Part(None, tensor.detach())] if tensor.numel() else []
    memory = tensor.to_local().detach()
    if not memory.numel():
        return []
    runs = _local_runs(name, tensor, is_zero)
    return [Part(_region(box), memory[_within(box, runs)]) for box in itertools.product(*runs)]


def _parts_of_zero3(name: str, parameter: Any) -> Iterator[Part]:  # noqa: ANN401 - with what DeepSpeed adds to it
    """This rank's parts of a ZeRO-3 parameter: an equal run of its elements in row-major order; the last are padded."""
    memory = parameter.ds_tensor
    if parameter.ds_status.name != "NOT_AVAILABLE" or memory.status.name != "AVAILABLE":
        remedy = "fill it outside of GatheredParameters, and between deepspeed.zero.Init and deepspeed.initialize"
        raise InvalidRequest(name, f"is not partitioned in memory by DeepSpeed; {remedy}")
    is_second = getattr(parameter, "ds_secondary_tensor", None) is not None  # which the forward pass would use
    if memory.dtype != parameter.dtype or is_second:
        raise InvalidRequest(
            name,
            "is held by DeepSpeed quantised, or twice, by zero_hpz_partition_size; omit these options, or build the "
            "whole module with seedbed.torch.build and let deepspeed.initialize partition it",
        )
    start = memory.ds_numel * torch.distributed.get_rank(parameter.ds_process_group)
    stop = min(start + memory.ds_numel, parameter.ds_numel)
    shape, position = tuple(parameter.ds_shape), 0
    for box in _boxes_of_run(shape, start, stop):
        extents = [last - first for first, last in box]
        size = math.prod(extents)
        yield Part(_region(box), memory.detach()[position : position + size].view(extents))
        position += size


def _boxes_of_run(shape: tuple[int, ...], start: int, stop: int) -> Iterator[list[_Run]]:
    """The boxes that elements start to stop of a row-major tensor form, in their order.

    >>> list(_boxes_of_run((4, 3), 2, 10))
    [[(0, 1), (2, 3)], [(1, 3), (0, 3)], [(3, 4), (0, 1)]]
    """
    if start >= stop:
        return
    if len(shape) < 2:
        yield [(start, stop)] * len(shape)
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row  # the whole rows
    if first > last:
        yield from _in_row(shape, last, start, stop)
        return
    yield from _in_row(shape, first - 1, start, first * row)
    if first < last:
        yield [(first, last), *((0, size) for size in shape[1:])]
    yield from _in_row(shape, last, last * row, stop)


def _in_row(shape: tuple[int, ...], index: int, start: int, stop: int) -> Iterator[list[_Run]]:
    before = index * math.prod(shape[1:])
    for box in _boxes_of_run(shape[1:], start - before, stop - before):
        yield [(index, index + 1), *box]


def _local_runs(name: str, tensor: DTensor, is_zero: bool) -> list[list[_Run]]:
    """The global indices along each dimension that this rank holds, in its order."""
    runs = [[(0, size)] for size in tensor.shape]
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None  # for mypy: ranks outside the mesh hold nothing
    for placement, rank, ranks in zip(tensor.placements, coordinate, tensor.device_mesh.shape, strict=True):
        if isinstance(placement, Replicate) or (is_zero and isinstance(placement, Partial)):
            continue
        if not isinstance(placement, (Shard, _StridedShard)):
            raise InvalidRequest(
                name, f"is placed as {placement!r}, which holds no values to fill; redistribute it first"
            )
        runs[placement.dim] = _share(runs[placement.dim], placement, rank, ranks)
    return runs


def _share(runs: list[_Run], placement: Placement, rank: int, ranks: int) -> list[_Run]:
    """One rank's share, as torch.chunk cuts it; a share of each of several equal pieces if the shard is strided."""
    pieces = int(placement.split_factor) if isinstance(placement, _StridedShard) else 1
    return [run for piece in _chunks(runs, pieces) for run in _chunk(piece, rank, ranks)]


def _chunks(runs: list[_Run], count: int) -> list[list[_Run]]:
    return [_chunk(runs, index, count) for index in range(count)]


def _chunk(runs: list[_Run], index: int, count: int) -> list[_Run]:
    length = -(-sum(stop - start for start, stop in runs) // count)
    first, last = index * length, (index + 1) * length
    chunk, position = [], 0
    for start, stop in runs:
        begin, end = max(start, start + first - position), min(stop, start + last - position)
        if begin < end:
            chunk.append((begin, end))
        position += stop - start
    return chunk


def _region(box: Sequence[_Run]) -> Region:
    return Region(start=[start for start, _ in box], stop=[stop for _, stop in box])


def _within(box: Sequence[_Run], runs: Sequence[list[_Run]]) -> tuple[slice, ...]:
    """Where a box is in this rank's memory."""
    slices = []
    for run, along in zip(box, runs, strict=True):
        before = sum(stop - start for start, stop in along[: along.index(run)])
        slices.append(slice(before, before + run[1] - run[0]))
    return tuple(slices)
