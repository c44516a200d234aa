"""Tables of tasks, the arguments of kernels: one launch does the tasks of many tensors. None of this needs a GPU."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import cuda_kernels

_MOST_BLOCKS: Final = 2**31 - 1  # of one launch
_NO_BLOCK: Final = 2**32 - 1


class Task(NamedTuple):
    """Elements that a kernel computes."""

    kernel: str
    blocks: int
    """The number of CUDA blocks."""
    packed: bytes
    """The task as a structure of the kernel."""
    axes: bytes = b""


Layers = Sequence[Sequence[Task]]
"""The tasks of a layer run in any order, after those of earlier layers."""


class _Form(NamedTuple):
    """A table of cuda_kernels.cu."""

    begins: int
    task: struct.Struct
    axes: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        fields: list[Any] = [("begins", "u4", self.begins), ("tasks", "u1", (self.begins - 1, self.task.size))]
        if self.axes:
            fields += [("first_axes", "u4", self.begins), ("axes", "u1", (self.axes, AXIS.size))]
        return np.dtype(fields)


DRAW: Final = struct.Struct("<4QqQq4QqQ2I4H2Q56s")
"""``DrawTask``: the fields of ``Target``, a seed, a stream and packed parameters."""
REPEAT: Final = struct.Struct("<3Q")
ONES: Final = struct.Struct("<10q4Q")
AXIS: Final = struct.Struct("<3q")

_DRAWS: Final = _Form(cuda_kernels.DRAW_TASKS, DRAW, cuda_kernels.MAX_OUTER_DIMENSIONS)
_FORMS: Final = {
    "repeat": _Form(cuda_kernels.REPEAT_TASKS, REPEAT),
    "ones": _Form(cuda_kernels.ONES_TASKS, ONES),
}
_DTYPES: Final = {form: form.dtype for form in (_DRAWS, *_FORMS.values())}


class Launch(NamedTuple):
    """A table for a kernel."""

    kernel: str
    blocks: int
    table: NDArray[Any]


def launches(layers: Layers) -> Iterator[Launch]:
    """The fewest launches for the tasks, in an order that the layers allow."""
    for layer in layers:
        by_kernel: dict[str, list[Task]] = {}
        for task in layer:
            by_kernel.setdefault(task.kernel, []).append(task)
        for kernel, tasks in by_kernel.items():
            form = _FORMS.get(kernel.partition("_")[0], _DRAWS)
            for some in _fitting(form, tasks):
                yield Launch(kernel, sum(task.blocks for task in some), _table(form, some))


def merged(jobs: Sequence[Layers]) -> Layers:
    """The layers of several independent jobs, merged."""
    together = itertools.zip_longest(*jobs, fillvalue=())
    return [list(itertools.chain.from_iterable(layers)) for layers in together]


def _fitting(form: _Form, tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """The tasks, grouped so that each group fits into a table."""
    some: list[Task] = []
    blocks = axes = 0
    for task in tasks:
        blocks += task.blocks
        axes += len(task.axes)
        if len(some) == form.begins - 1 or blocks > _MOST_BLOCKS or axes > form.axes * AXIS.size:
            yield some
            some, blocks, axes = [], task.blocks, len(task.axes)
        some.append(task)
    yield some


def _table(form: _Form, tasks: Sequence[Task]) -> NDArray[Any]:
    dtype = _DTYPES[form]
    table = bytearray(dtype.itemsize)
    _put_numbers(table, 0, itertools.accumulate((task.blocks for task in tasks[:-1]), initial=0), form.begins)
    packed = b"".join([task.packed for task in tasks])
    begin = 4 * form.begins
    table[begin : begin + len(packed)] = packed
    if axes := b"".join([task.axes for task in tasks]):
        firsts = itertools.accumulate((len(task.axes) // AXIS.size for task in tasks[:-1]), initial=0)
        begin += (form.begins - 1) * form.task.size
        _put_numbers(table, begin, firsts, form.begins)
        begin += 4 * form.begins
        table[begin : begin + len(axes)] = axes
    return np.frombuffer(table, dtype)


def _put_numbers(table: bytearray, begin: int, numbers: Iterator[int], length: int) -> None:
    padded = itertools.islice(itertools.chain(numbers, itertools.repeat(_NO_BLOCK)), length)
    struct.pack_into(f"<{length}I", table, begin, *padded)
