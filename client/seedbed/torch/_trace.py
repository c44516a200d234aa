"""Runs a model's code without memory for weights, and notes what it writes where.

Two of torch's modes are active meanwhile. `Recorder` follows every operation that torch dispatches. Uninitialised
allocations become FakeTensors, which have no memory but say that they are on the CPU; draws are noted instead of done;
operations on constants alone really run, so that a model's arithmetic, masks and tables have their values. `Functions`
follows the calls in Python whose dispatched operations do not say enough.

A tensor is symbolic if it has no values to read: it is fake, or was drawn into. The values of each storage are one flat
node, which tensors view and write into; so views, slices and copies behave as in torch.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from seedbed._record.nodes import Node
from seedbed.torch._functions import Functions
from seedbed.torch._recorder import Recorder

_SET_DATA = torch._C.TensorBase.__dict__["data"].__set__


class Trace:
    """What the code returned, and what its tensors hold.

    Attributes:
        module: The result.
    """

    def __init__(self, module: object, recorder: Recorder) -> None:
        self.module = module
        self._recorder = recorder

    def value(self, tensor: torch.Tensor) -> Node:
        """What a tensor holds at the end."""
        return self._recorder.value(tensor)

    def is_symbolic(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has no values to read."""
        return self._recorder.is_symbolic(tensor)


def trace(build: Callable[[], Any], seed: int) -> Trace:
    """Runs code that makes a module.

    Args:
        build: The code.
        seed: Seeds Python's, NumPy's and torch's generators meanwhile.
    """
    recorder = Recorder()
    with _seeded(seed), _swapping_by_data(), Functions(recorder), recorder:
        return Trace(build(), recorder)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators, so that a recording depends on code and seed alone; restores them afterwards."""
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
    """Lets ``module.half()`` swap fake parameters, which torch refuses because FakeTensorMode refers to them."""
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
