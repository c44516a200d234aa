"""Types of arguments that several modules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import EllipsisType
from typing import Any, Literal, Protocol, SupportsIndex, TypedDict

import numpy as np
import numpy.typing as npt

from seedbed.v1 import Model, Region, TensorSlice, TensorSpec

Array = npt.NDArray[Any]
"""Of float32, float16, float64, complex64 or ``ml_dtypes.bfloat16``."""

Shape = SupportsIndex | Iterable[SupportsIndex]
"""The global shape; one integer means one dimension."""

RegionLike = Region | slice | EllipsisType | tuple[slice | EllipsisType, ...]
"""The region of a tensor: slices, as ``np.s_[...]`` makes them, or a message."""

FanModeName = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
"""The fan that scales a variance."""

TorchFanModeName = Literal["fan_in", "fan_out"]
"""The fan modes of ``torch.nn.init``."""

NonlinearityName = Literal[
    "linear",
    "identity",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "selu",
]
"""A nonlinearity, by its name in ``torch.nn.init.calculate_gain``."""

DistributionName = Literal["uniform", "normal", "truncated_normal"]
"""A distribution of ``jax.nn.initializers.variance_scaling``."""

BoundsName = Literal["absolute", "sigma"]
"""The unit of a truncated normal's bounds."""

ModelLike = Model | Iterable[TensorSpec | TensorSlice]
"""Tensors, in the order in which they are served."""

Progress = Callable[[int, int], object]
"""Called as ``progress(done_bytes, total_bytes)`` after each chunk."""


class TorchDType(Protocol):
    """``torch.dtype``, described here so that torch is not imported."""

    @property
    def is_complex(self) -> bool:
        """Whether its numbers are complex."""

    @property
    def is_floating_point(self) -> bool:
        """Whether its numbers are real."""


DTypeLike = npt.DTypeLike | TorchDType
"""An element type, in any form that `seedbed.dtypes.data_type` accepts."""

Outputs = Mapping[str, np.ndarray[Any, Any]] | Callable[[str], np.ndarray[Any, Any] | None]
"""The array to fill for each tensor of a model, by the tensor's name."""

Timeout = float | EllipsisType | None
"""Seconds for the whole call; None waits for ever, ``...`` is the client's timeout."""


class Options(TypedDict, total=False):
    """The keywords that every scheme takes; each method's documentation explains them."""

    seed: SupportsIndex
    name: str
    dtype: DTypeLike
    algorithm_version: SupportsIndex
    stream: str
    region: RegionLike | None
    out: Array | None
    progress: Progress | bool | None
    timeout: Timeout
