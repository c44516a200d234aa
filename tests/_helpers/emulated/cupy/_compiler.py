"""Compiles the CUDA source into a library for the CPU, in place of NVRTC."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = [
    *(f"{law}_{dtype}" for law, dtype in itertools.product(
        ["uniform", "normal", "trunc_normal", "sparse", "constant"], ["float32", "float16", "bfloat16", "float64"]
    )),
    *(f"{law}_{dtype}" for law, dtype in itertools.product(
        ["trunc_near", "trunc_far"], ["float32", "float16", "bfloat16"]
    )),
    *("disk_float32", "disk_normal_float32"),
    *(f"{kernel}_{bits}" for kernel, bits in itertools.product(["repeat", "ones"], [16, 32, 64])),
]  # fmt: skip

# No fused operations and no excess precision, as NVRTC's options require.
FLAGS = ("-std=c++20", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared", "-w")


def compiler() -> list[str]:
    """The command of a C++ compiler: $CXX, g++, or the compiler of the package ziglang (see the Makefile)."""
    if command := os.environ.get("CXX"):
        return shlex.split(command)
    if shutil.which("g++"):
        return ["g++"]
    return [sys.executable, "-m", "ziglang", "c++"]


def shared_library(source: str) -> bytes:
    """The kernels as a shared library."""
    launchers = "\n".join(f"LAUNCHER({name})" for name in KERNELS)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kernels.cpp").write_text(f'#include "cuda_on_cpu.h"\n{source}\n{launchers}\n')
        command = [*compiler(), *FLAGS, "-I", str(Path(__file__).parent), "-o", "kernels.so", "kernels.cpp"]
        subprocess.run(command, cwd=directory, check=True)
        return (directory / "kernels.so").read_bytes()
