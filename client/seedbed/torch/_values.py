"""What a tensor holds while a model's code is recorded: schemes instead of numbers, and where they were written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from seedbed._schemes import spec
from seedbed.v1 import Patch, Region, TensorSpec

_ELEMENTWISE = ("zeros", "ones", "constant", "uniform", "normal", "trunc_normal")  # whose law no shape enters
_CONSTANT = ("zeros", "ones", "constant")


@dataclasses.dataclass(frozen=True)
class Value:
    """A scheme with its parameters, and the parts that are constant instead; or why there is none."""

    scheme: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    patches: tuple[tuple[Region, float], ...] = ()
    draw: int = 0
    """Tells drawings apart: a copy has its original's. 0 if nothing was drawn."""
    problem: str = ""
    """Why it cannot be replayed."""

    @property
    def constant(self) -> float | None:
        """What every element is, if they are all the same."""
        if self.problem or self.patches or self.scheme not in _CONSTANT:
            return None
        return {"zeros": 0.0, "ones": 1.0}.get(self.scheme, self.parameters.get("val"))

    @property
    def depends_on_shape(self) -> bool:
        return bool(self.patches) or self.scheme not in _ELEMENTWISE

    def but(self, problem: str) -> Value:
        """The same, spoilt; what was wrong first is told."""
        return Value(draw=self.draw, problem=self.problem or problem)

    def patched(self, region: Region, val: float) -> Value:
        """The same, but for a part that is constant."""
        if self.problem or self.constant == val:
            return self
        return dataclasses.replace(self, patches=(*self.patches, (region, val)))

    def spec(self, shape: torch.Size, **identity: object) -> TensorSpec:
        """The message for a tensor of this value."""
        message = spec(self.scheme, shape, **self.parameters, **identity)
        message.patches.extend(Patch(region=region, val=val) for region, val in self.patches)
        return message


def constant(val: float) -> Value:
    """The value of a tensor whose elements are all the same."""
    if not math.isfinite(val):
        return Value(problem=f"is filled with {val}, which cannot be served")
    if val == 1:
        return Value("ones")
    if val == 0 and math.copysign(1, val) > 0:
        return Value("zeros")
    return Value("constant", {"val": val})


def content(tensor: torch.Tensor) -> Value:
    """What is seen in a tensor that holds numbers: a constant, but for one box perhaps; or the identity."""
    if tensor.is_complex() or not bool(tensor.isfinite().all()):
        return Value(problem="holds values that are not finite or not real, which cannot be served")
    ends = tensor.reshape(-1)[[0, -1]]
    if bool((tensor == ends[0]).all()):
        return constant(float(ends[0]))
    if tensor.ndim == 2 and torch.equal(tensor, torch.eye(*tensor.shape, dtype=tensor.dtype)):
        return Value("eye")
    for usual in ends:
        region = _bounding_box(tensor != usual)
        box = tensor[tuple(map(slice, region.start, region.stop))].reshape(-1)
        if bool((box == box[0]).all()):
            return constant(float(usual)).patched(region, float(box[0]))
    return Value(problem="holds values that the model's code computes; only what it draws and constants can be served")


def _bounding_box(mask: torch.Tensor) -> Region:
    region = Region()
    for axis in range(mask.ndim):
        indices = mask.movedim(axis, 0).flatten(1).any(1).nonzero() if mask.ndim > 1 else mask.nonzero()
        region.start.append(int(indices[0]))
        region.stop.append(int(indices[-1]) + 1)
    return region


class Geometry(NamedTuple):
    """Where a tensor's elements are in its storage."""

    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Geometry:
        return cls(int(tensor.storage_offset()), tuple(tensor.size()), tuple(tensor.stride()))

    def covers(self, other: Geometry) -> bool:
        """Whether all of the other's elements are among these; if in doubt, not."""
        if other.box_in(self) is not None:
            return True
        return self._is_dense and self.offset <= other.offset and other._end <= self._end

    def is_apart_from(self, other: Geometry) -> bool:
        return self._end <= other.offset or other._end <= self.offset

    def box_in(self, whole: Geometry) -> Region | None:
        """The region of another tensor that these elements are; None if they are none."""
        start, stop = [0] * len(whole.size), [1] * len(whole.size)
        axes = sorted(whole._axes, key=lambda axis: -whole.stride[axis])
        rest = self.offset - whole.offset
        for axis in axes:
            start[axis], rest = divmod(rest, whole.stride[axis]) if whole.stride[axis] else (0, rest)
            stop[axis] = start[axis] + 1
        for own in self._axes:
            same = [axis for axis in axes if whole.stride[axis] == self.stride[own]]
            if not same:
                return None
            axes.remove(same[0])
            stop[same[0]] = start[same[0]] + self.size[own]
        fits = rest == 0 and min(start, default=0) >= 0 and all(map(int.__le__, stop, whole.size))
        return Region(start=start, stop=stop) if fits else None

    @property
    def repeats(self) -> bool:
        """Whether several indices are one element, as in an expanded tensor."""
        return math.prod(self.size) > self._end - self.offset

    @property
    def _axes(self) -> list[int]:
        """Those along which there is more than one element; the others' strides mean nothing."""
        return [axis for axis, size in enumerate(self.size) if size > 1]

    @property
    def _end(self) -> int:
        return self.offset + 1 + sum((self.size[axis] - 1) * self.stride[axis] for axis in self._axes)

    @property
    def _is_dense(self) -> bool:
        expected = 1
        for axis in sorted(self._axes, key=lambda axis: self.stride[axis]):
            if self.stride[axis] != expected:
                return False
            expected *= self.size[axis]
        return True
