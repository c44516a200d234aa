"""The fast CPU path: the numpy reference's bits, from compiled kernels."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..constants import FEISTEL_ROUNDS
from ..errors import Cancelled
from ..parameters import NormalParameters, Parameters, SparseMask, UniformParameters
from ..regions import Runs
from ..views import Indices
from . import numba_kernels as kernels
from .base import IsCancelled, Stream, never
from .cpu import CpuBackend
from .numpy import permuted

_TOGETHER = np.zeros(0, np.int64)
"""Positions of runs that follow each other."""

_STRIP = 64
"""Columns of a matrix that are worked on at once, in the second-level cache."""


class NumbaBackend(CpuBackend):
    """The compiled backend."""

    name = "numba"
    tile = 1 << 22
    share: ClassVar = {"uniform": 1 << 19, "normal": 1 << 18, "trunc_normal": 1 << 16, "sparse": 1 << 12}

    def prepare(self) -> None:
        runs = np.array([1]), np.array([1])
        for dtype in (np.float32, np.float64, np.float16):
            out = np.empty(1, dtype)
            self.sample(NormalParameters(0.0, 1.0), Stream(0, 0), runs, out)
            self.mask(SparseMask(2, 2, 1, 0), 0, runs, out)
            bits = out.view(f"u{out.itemsize}")
            self.repeat(bits[0], bits)
            self.scatter(out, np.array([0]), np.array([1]), out)
        self.orthonormal(np.ones((2, 1)), never)

    def sample(self, parameters: Parameters, stream: Stream, runs: Runs, out: NDArray[Any]) -> None:
        self._sample(parameters, stream, runs, _TOGETHER, out)

    def sample_apart(
        self, parameters: Parameters, stream: Stream, runs: Runs, positions: Indices, out: NDArray[Any]
    ) -> None:
        self._sample(parameters, stream, runs, positions, out)

    def _sample(
        self, parameters: Parameters, stream: Stream, runs: Runs, positions: Indices, out: NDArray[Any]
    ) -> None:
        law, numbers = _arguments(parameters)
        key, counter = np.uint64(stream.seed), np.uint64(stream.stream)
        if out.dtype == np.float64:
            kernels.fill64(law, numbers, key, counter, *runs, positions, out)
        elif out.dtype == np.float32:
            kernels.fill32(law, numbers, key, counter, *runs, positions, out)
        else:
            is_bfloat16 = out.dtype != np.float16
            kernels.fill16(law, numbers, key, counter, *runs, positions, out.view(np.uint16), is_bfloat16)

    def repeat(self, bits: np.unsignedinteger[Any], out: NDArray[np.unsignedinteger[Any]]) -> None:
        kernels.repeat(bits, out)

    def scatter(self, values: NDArray[Any], positions: Indices, lengths: Indices, out: NDArray[Any]) -> None:
        bits = np.dtype(f"u{out.itemsize}")
        kernels.scatter(values.view(bits), positions, lengths, out.view(bits))

    def mask(self, mask: SparseMask, seed: int, runs: Runs, out: NDArray[Any]) -> None:
        size = min(mask.columns, len(out))
        known, keys = np.full(size, -1, np.int64), np.empty((size, FEISTEL_ROUNDS), np.uint32)
        rows, columns, zeros, bits = map(np.uint64, (mask.rows, mask.columns, mask.zeros, mask.bits))
        bits_of_out = out.view(np.dtype(f"u{out.dtype.itemsize}"))
        kernels.mask(
            rows, columns, zeros, bits, np.uint64(seed), np.uint64(mask.stream), *runs, known, keys, bits_of_out
        )

    def places(self, permutation: SparseMask, seed: int, indices: Indices) -> NDArray[np.uint64]:
        return permuted(indices.astype(np.uint64), np.zeros_like(indices, np.uint64), permutation, seed)

    def orthonormal(self, gaussian: NDArray[np.float64], cancelled: IsCancelled) -> NDArray[np.float64]:
        m, n = gaussian.shape
        v, tau, diagonal = np.zeros((n, m)), np.zeros(n), np.zeros(n)
        q = np.empty((m, n))
        for first in range(0, n, _STRIP):
            if cancelled():
                raise Cancelled
            strip = gaussian[:, first : first + _STRIP].copy()
            kernels.factor_strip(strip, first, v, tau, diagonal)
        for first in range(0, n, _STRIP):
            if cancelled():
                raise Cancelled
            strip = np.empty((m, min(_STRIP, n - first)))
            kernels.unfold_strip(strip, first, v, tau)
            q[:, first : first + _STRIP] = strip
        return q * np.where(diagonal < 0, -1.0, 1.0)


def _arguments(parameters: Parameters) -> tuple[int, NDArray[np.float64]]:
    numbers = _numbers(struct.pack(f"{len(parameters)}d", *parameters))
    if isinstance(parameters, UniformParameters):
        return kernels.UNIFORM, numbers
    return (kernels.NORMAL if isinstance(parameters, NormalParameters) else kernels.TRUNC_NORMAL), numbers


@lru_cache(maxsize=1024)
def _numbers(packed: bytes) -> NDArray[np.float64]:
    """A law's parameters; by their bytes, since a cache of floats would take -0.0 for 0.0."""
    numbers = np.zeros(7)
    numbers[: len(packed) // 8] = np.frombuffer(packed)
    return numbers
