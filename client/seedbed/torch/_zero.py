"""What this rank holds of a parameter that DeepSpeed's ZeRO-3 partitions: a run of its elements in row-major order.

Read off the attributes that ``deepspeed.zero.Init`` gives a parameter; DeepSpeed is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch

from seedbed.errors import InvalidRequest

_Run = tuple[int, int]  # consecutive indices: the first, and one past the last


class Partition(NamedTuple):
    """A rank's part of a parameter, without the padding that makes all parts as long."""

    shape: tuple[int, ...]
    """The whole parameter's."""
    first: int
    """The first element, in row-major order."""
    memory: torch.Tensor
    """One-dimensional."""

    def boxes(self) -> Iterator[tuple[tuple[_Run, ...], torch.Tensor]]:
        """The partition as boxes of the parameter, in its order, each with its memory."""
        done = 0
        for box in boxes(self.shape, self.first, self.first + self.memory.numel()):
            extents = [stop - start for start, stop in box]
            size = math.prod(extents)
            yield box, self.memory[done : done + size].view(extents)
            done += size


def is_partitioned(tensor: torch.Tensor) -> bool:
    """Whether ``deepspeed.zero.Init`` made the tensor a parameter of its own."""
    return hasattr(tensor, "ds_tensor")


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape; of a partitioned one, which is empty meanwhile, that of the whole."""
    return tuple(cast("Any", tensor).ds_shape if is_partitioned(tensor) else tensor.shape)


def partition_of(name: str, tensor: torch.Tensor) -> Partition:
    """What this rank holds.

    Args:
        name: The tensor's name, for errors.
        tensor: One that `is_partitioned`.

    Raises:
        InvalidRequest: If it is not held as ZeRO-3 does by default.
    """
    parameter = cast("Any", tensor)
    held: torch.Tensor = parameter.ds_tensor
    size, group = parameter.ds_numel, parameter.ds_process_group
    length = -(-size // torch.distributed.get_world_size(group))
    is_copied = getattr(parameter, "ds_secondary_tensor", None) is not None  # which the forward pass would take
    if held.numel() != length or held.dtype != tensor.dtype or is_copied:
        raise InvalidRequest(
            name,
            "is partitioned by DeepSpeed into other than equal parts in memory: on NVMe, quantised, or twice, by "
            "zero_hpz_partition_size; leave these options off, or build the whole module with seedbed.torch.build, for "
            "deepspeed.initialize to partition",
        )
    first = min(torch.distributed.get_rank(group) * length, size)
    return Partition(shape_of(tensor), first, held.detach()[: min(length, size - first)])


def check_fillable(name: str, tensor: torch.Tensor) -> None:
    """Refuses a parameter of which DeepSpeed holds a copy, which would count and not what is filled.

    Args:
        name: The tensor's name, for errors.
        tensor: Any tensor.

    Raises:
        InvalidRequest: If there is a copy.
    """
    if not is_partitioned(tensor):
        return
    if hasattr(tensor, "_z3_optimizer"):
        raise InvalidRequest(
            name,
            "has a copy in DeepSpeed's optimizer, which would overwrite what is filled; fill the module before "
            "deepspeed.initialize",
        )
    if cast("Any", tensor).ds_status.name != "NOT_AVAILABLE":
        raise InvalidRequest(
            name, "is gathered; fill the module outside of deepspeed.zero.GatheredParameters, each rank its own part"
        )


def boxes(shape: tuple[int, ...], first: int, last: int) -> Iterator[tuple[_Run, ...]]:
    """Cuts consecutive elements of a tensor, in row-major order, into the fewest boxes that hold them in this order.

    Args:
        shape: The tensor's.
        first: The first element.
        last: One past the last.

    >>> list(boxes((4, 3), 2, 10))
    [((0, 1), (2, 3)), ((1, 3), (0, 3)), ((3, 4), (0, 1))]
    """
    if first >= last:
        return
    if not shape:
        yield ()
        return
    rest = shape[1:]
    size = math.prod(rest)
    begin, end = -(-first // size), last // size  # the rows that are whole
    if begin > end:  # all within one row
        yield from _within(rest, end, first - end * size, last - end * size)
        return
    if first < begin * size:
        yield from _within(rest, begin - 1, first - (begin - 1) * size, size)
    if begin < end:
        yield ((begin, end), *((0, extent) for extent in rest))
    yield from _within(rest, end, 0, last - end * size)


def _within(shape: tuple[int, ...], row: int, first: int, last: int) -> Iterator[tuple[_Run, ...]]:
    for box in boxes(shape, first, last):
        yield ((row, row + 1), *box)
