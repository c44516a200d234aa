"""The processor's fused multiply-add in Numba functions, through LLVM's intrinsic."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding
from numba import types
from numba.extending import intrinsic


def has_fma() -> bool:
    """Whether the processor has the instruction: all AArch64, and x86-64 since Haswell and Piledriver (2013)."""
    return platform.machine().lower() not in ("x86_64", "amd64") or bool(binding.get_host_cpu_features().get("fma"))


@intrinsic
def fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of three float32 or three float64, rounded once."""
    if a not in (types.float32, types.float64) or not a == b == c:
        return None  # refuse implicit conversions

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), generate
