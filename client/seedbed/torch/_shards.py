"""Which part of a tensor is on this rank: from its placements alone, without any communication."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from seedbed.errors import InvalidRequest
from seedbed.torch import _zero
from seedbed.v1 import Region

_Run = tuple[int, int]  # consecutive indices: the first, and one past the last


class Part(NamedTuple):
    """A box of the global tensor, and the memory on this rank that it belongs to."""

    region: Region | None
    """None means all of it."""
    memory: torch.Tensor


def local_parts(name: str, tensor: torch.Tensor) -> list[Part]:
    """What this rank holds of a tensor: all, or its shard of a DTensor, or ZeRO-3's part, in as few boxes as it takes.

    Args:
        name: The tensor's name, for errors.
        tensor: A parameter or buffer.

    Raises:
        InvalidRequest: If a DTensor is placed so that no rank holds its values, or DeepSpeed partitions a parameter in
            a way that is not known.
    """
    if _zero.is_partitioned(tensor):
        return [Part(_region(box), memory) for box, memory in _zero.partition_of(name, tensor).boxes()]
    if not isinstance(tensor, DTensor):
        return [Part(None, tensor.detach())] if tensor.numel() else []
    memory = tensor.to_local().detach()
    if not memory.numel():
        return []
    runs = _local_runs(name, tensor)
    return [Part(_region(box), memory[_within(box, runs)]) for box in itertools.product(*runs)]


def _local_runs(name: str, tensor: DTensor) -> list[list[_Run]]:
    """The global indices along each dimension that this rank holds, in the order in which it holds them."""
    runs = [[(0, size)] for size in tensor.shape]
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None  # for mypy: ranks outside the mesh hold nothing
    for placement, rank, ranks in zip(tensor.placements, coordinate, tensor.device_mesh.shape, strict=True):
        if isinstance(placement, Replicate):
            continue
        if not isinstance(placement, (Shard, _StridedShard)):
            raise InvalidRequest(
                name, f"is placed as {placement!r}, which holds no values to fill; redistribute it first"
            )
        runs[placement.dim] = _share(runs[placement.dim], placement, rank, ranks)
    return runs


def _share(runs: list[_Run], placement: Placement, rank: int, ranks: int) -> list[_Run]:
    """One rank's share, as torch.chunk would cut it; of each of several equal pieces if the shard is strided."""
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
    for wanted, along in zip(box, runs, strict=True):
        before = sum(stop - start for start, stop in along[: along.index(wanted)])
        slices.append(slice(before, before + wanted[1] - wanted[0]))
    return tuple(slices)
