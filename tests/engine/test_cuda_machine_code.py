"""What NVRTC made of the laws: not one fused multiply-add, nothing flushed to zero, nothing spilled."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from seedbed_server.engine.backends import cuda_kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="NVIDIA has a compiler for Linux and Windows only"),
]

ARCHITECTURES = [75, 90]

# Divisions and roots are rounded correctly by refining an estimate with fused multiply-adds; without them, none is left
WITHOUT_ROOTS = """
#define WITHOUT_ROOTS
__device__ inline float root(float x) { return __uint_as_float(__float_as_uint(x) >> 1); }
__device__ inline double root(double x) { return __longlong_as_double(__double_as_longlong(x) >> 1); }
__device__ inline double quotient(double x, double y) {
  return __longlong_as_double(__double_as_longlong(x) - __double_as_longlong(y));
}
"""

Instructions = Mapping[str, list[str]]
"""The instructions of each function."""


@pytest.fixture(scope="module")
def disassembled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Instructions]:
    from cupy.cuda import nvrtc

    directory = tmp_path_factory.mktemp("cubin")
    known: dict[tuple, Instructions] = {}

    def disassemble(architecture: int, prefix: str = "", options: tuple[str, ...] = ()) -> Instructions:
        key = architecture, prefix, options
        if key not in known:
            text = prefix + cuda_kernels.source()
            cubin = cuda_kernels.compiled(nvrtc, text, architecture, options or cuda_kernels.OPTIONS)
            path = directory / f"{len(known)}.cubin"
            path.write_bytes(cubin + b"\0")  # CuPy cuts the last byte off
            known[key] = _functions(subprocess.check_output([nvdisasm(), "-c", path], text=True))
        return known[key]

    return disassemble


def nvdisasm() -> Path:
    files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
    [path] = [file for file in files if file.name == "nvdisasm"]
    return Path(str(path.locate()))


def _functions(listing: str) -> Instructions:
    functions: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            functions[section[1]] = current = []
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;", line):
            current.append(instruction[1])
    return functions


def fused(instructions: list[str]) -> list[str]:
    """Multiply-adds of floating point; those of the constant 0 are moves."""
    return [i for i in instructions if re.match(r"[FDH]FMA", i) and not re.search(r"-RZ, RZ,", i)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_fused(architecture: int, disassembled) -> None:
    functions = disassembled(architecture, WITHOUT_ROOTS)
    assert {"uniform_float32", "normal_float32", "normal_float64", "trunc_normal_bfloat16"} <= functions.keys()
    assert {name: fused(instructions) for name, instructions in functions.items() if fused(instructions)} == {}
    assert any(i.startswith("DMUL") for i in functions["normal_float64"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_roots_and_divisions_are_fused(architecture: int, disassembled) -> None:
    functions = disassembled(architecture)
    with_fused = {name for name, instructions in functions.items() if fused(instructions)}
    assert not {name for name in with_fused if name.startswith(("uniform", "constant", "repeat", "ones"))}
    # two roots a block, in each of three ways through the kernel, each of three multiply-adds, and the slow path's own
    assert 0 < len(fused(functions["normal_float32"])) < 50


def test_the_test_would_see_what_is_fused(disassembled) -> None:
    functions = disassembled(90, WITHOUT_ROOTS, ("--std=c++17", "--fmad=true"))
    assert len(fused(functions["normal_float32"])) > 50
    assert len(fused(functions["uniform_float64"])) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_subnormals_are_kept(architecture: int, disassembled) -> None:
    for name, instructions in disassembled(architecture, WITHOUT_ROOTS).items():
        assert not [i for i in instructions if re.match(r"F(ADD|MUL|SETP|SEL)\S*\.FTZ", i)], name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_registers(architecture: int, disassembled) -> None:
    for name, instructions in disassembled(architecture).items():
        assert not [i for i in instructions if re.match(r"(STL|LDL)", i)], name


def test_blocks_are_stored_whole(disassembled) -> None:
    functions = disassembled(90)
    for name in ("uniform_float32", "normal_float32", "normal_float64"):
        assert sum(i.startswith("STG.E.128") for i in functions[name]) >= 2, name
    assert sum(i.startswith("STG.E.64") for i in functions["normal_bfloat16"]) >= 2
