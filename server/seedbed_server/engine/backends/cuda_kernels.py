"""The CUDA source of the laws, its constants, and its compilation; none of this needs a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np

from .. import constants

THREADS: Final = 256
"""Threads of a CUDA block."""

_ITEMS: Final = 4
"""Philox blocks that a thread computes."""

TILE: Final = _ITEMS * THREADS
"""Philox blocks (or units of 16 bytes of a constant) that a CUDA block computes."""

MAX_OUTER_DIMENSIONS: Final = 40
"""A region of at most 2^63 elements has at most 39 dimensions outside its runs.

A dimension that the region covers is merged with the one before (engine/regions.py), so each remaining one is covered
partially and has at least 3 elements. The same holds for a part of a tensor.
"""

DRAW_TASKS: Final = 16
REPEAT_TASKS: Final = 128
ONES_TASKS: Final = 32
"""The entries for first CUDA blocks in a table, a power of two; the table holds one task less."""

# CuPy adds -ftz=true to every compilation, which flushes subnormals, so we call NVRTC directly.
OPTIONS: Final = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


@cache
def source() -> str:
    """The whole source: the laws' constants as macros, and the kernels."""
    kernels = resources.files(__package__).joinpath("cuda_kernels.cu").read_text(encoding="utf-8")
    macros = "".join(f"#define {name} {value}\n" for name, value in _macros().items())
    return f"{macros}\n{kernels}"


def compiled(nvrtc: Any, text: str, architecture: int, options: Sequence[str] = OPTIONS) -> bytes:
    """The machine code of a CUDA source.

    Args:
        nvrtc: ``cupy.cuda.nvrtc``, or an object with the same functions.
        text: The source, such as that of `source`.
        architecture: The compute capability, such as 90.
        options: Further options for NVRTC.
    """
    program = nvrtc.createProgram(text, "cuda_kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture=sm_{architecture}", *options))
        cubin: bytes = nvrtc.getCUBIN(program)
        return cubin
    finally:
        nvrtc.destroyProgram(program)


def _macros() -> dict[str, str]:
    macros = {
        "PHILOX_M0": f"{constants.PHILOX_M[0]:#x}u",
        "PHILOX_M1": f"{constants.PHILOX_M[1]:#x}u",
        "PHILOX_W0": f"{constants.PHILOX_W[0]:#x}u",
        "PHILOX_W1": f"{constants.PHILOX_W[1]:#x}u",
        "PHILOX_ROUNDS": str(constants.PHILOX_ROUNDS),
        "FEISTEL_ROUNDS": str(constants.FEISTEL_ROUNDS),
        "MURMUR_M0": f"{constants.MURMUR_M[0]:#x}u",
        "MURMUR_M1": f"{constants.MURMUR_M[1]:#x}u",
        "THREADS": f"{THREADS}u",
        "ITEMS": f"{_ITEMS}u",
        "MAX_OUTER_DIMENSIONS": str(MAX_OUTER_DIMENSIONS),
        "DRAW_TASKS": str(DRAW_TASKS),
        "REPEAT_TASKS": str(REPEAT_TASKS),
        "ONES_TASKS": str(ONES_TASKS),
    }
    for name in ("LOG32", "SIN32", "COS32", "MIDDLE32", "NEAR32", "FAR32"):
        macros[name] = _floats(getattr(constants, name))
    for name in ("MIDDLE_FROM32", "MIDDLE_SLOPE32", "MIDDLE_LARGEST32", "NEAR_CENTRE32", "FAR_CENTRE32"):
        macros[name] = _floats([getattr(constants, name)])
    for name in ("LOG64", "SIN64", "COS64"):
        macros[name] = _doubles(getattr(constants, name))
    for name in ("QUANTILE_HALF_WIDTH", "QUANTILE_HALF_WIDTH_SQUARED", "QUANTILE_TAIL_SHIFT", "QUANTILE_FAR_SHIFT"):
        macros[name] = _doubles([getattr(constants, name)])
    for name in ("TWO_LN2", "EIGHTH_TURN"):
        macros[f"{name}_32"], macros[f"{name}_64"] = (
            write([getattr(constants, name)]) for write in (_floats, _doubles)
        )
    for name in ("QUANTILE_CENTRAL", "QUANTILE_TAIL", "QUANTILE_FAR"):
        numerator, denominator = getattr(constants, name)
        macros[f"{name}0"], macros[f"{name}1"] = _doubles(numerator), _doubles(denominator)
    return macros


def _floats(values: Any) -> str:
    return ", ".join(f"{float(np.float32(value)).hex()}f" for value in values)


def _doubles(values: Any) -> str:
    return ", ".join(value.hex() for value in values)
