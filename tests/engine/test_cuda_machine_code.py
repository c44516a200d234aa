"""NVRTC's code for the laws: its size, only explicit multiply-adds, no flushed subnormals, no spilled registers."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from seedbed_server.engine.backends import cuda_kernels

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(sys.platform != "linux", reason="NVIDIA has a compiler for Linux and Windows only"),
]

ARCHITECTURES = [75, 90]

# Divisions and roots refine an estimate with fused multiply-adds, to round correctly. Without them, and with each
# explicit multiply-add replaced by a multiplication and an addition, none is left.
UNFUSED = """
#define WITHOUT_ROOTS
#define UNFUSED
__device__ inline float root(float x) { return __uint_as_float(__float_as_uint(x) >> 1); }
__device__ inline double root(double x) { return __longlong_as_double(__double_as_longlong(x) >> 1); }
__device__ inline double quotient(double x, double y) {
  return __longlong_as_double(__double_as_longlong(x) - __double_as_longlong(y));
}
"""
ROUNDS_PAIRS = 80
"""The first architecture with an instruction that rounds two values to 16 bits."""

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
            path.write_bytes(cubin + b"\0")  # CuPy removes the last byte
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
    """Floating-point multiply-adds; those with the constant 0 are moves."""
    return [i for i in instructions if re.match(r"[FDH]FMA", i) and not re.search(r"-RZ, RZ,", i)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_explicit_calls_are_fused(architecture: int, disassembled) -> None:
    functions = disassembled(architecture, UNFUSED)
    assert {"uniform_float32", "normal_float32", "normal_float64", "trunc_near_bfloat16"} <= functions.keys()
    assert {name: fused(instructions) for name, instructions in functions.items() if fused(instructions)} == {}
    assert any(i.startswith("DMUL") for i in functions["normal_float64"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_uniforms_and_constants_are_not_fused(architecture: int, disassembled) -> None:
    functions = disassembled(architecture)
    with_fused = {name for name, instructions in functions.items() if fused(instructions)}
    assert not {name for name in with_fused if name.startswith(("uniform", "constant", "repeat", "ones"))}
    assert {"normal_float32", "trunc_near_float32", "trunc_far_float16", "normal_float64"} <= with_fused


def test_fused_instructions_are_detected(disassembled) -> None:
    functions = disassembled(90, UNFUSED, ("--std=c++17", "--fmad=true"))
    assert len(fused(functions["normal_float32"])) > 50
    assert len(fused(functions["uniform_float64"])) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_laws_of_float32_use_no_float64(architecture: int, disassembled) -> None:
    functions = disassembled(architecture)
    for law, dtype in itertools.product(("trunc_near", "trunc_far"), ("float32", "float16", "bfloat16")):
        assert not [i for i in functions[f"{law}_{dtype}"] if re.match(r"D[A-Z]|F2F.*F64|I2F.*F64", i)]
    # The mean and the std are passed as float64.
    assert not [i for i in functions["normal_float32"] if re.match(r"D[A-Z]|I2F.*F64", i)]


@pytest.mark.parametrize(
    ("kernel", "most"),
    [("normal_float32", 40), ("normal_bfloat16", 40), ("trunc_near_float32", 61), ("trunc_far_float32", 79)],
)
def test_the_number_of_instructions_for_a_value(kernel: str, most: int, disassembled) -> None:
    """On the path of most values: sixteen per thread without branches, the prologue included."""
    ahead = max(re.split(r"\n(?:BRA|EXIT|RET)[^\n]*", "\n".join(disassembled(90)[kernel])), key=len)
    assert len(ahead.splitlines()) / 16 <= most


def test_16_bits_are_rounded_in_pairs(disassembled) -> None:
    for architecture, name in itertools.product(
        ARCHITECTURES, ("normal_float16", "normal_bfloat16", "trunc_near_float16")
    ):
        has_pairs = any(i.startswith("F2FP") for i in disassembled(architecture)[name])
        assert has_pairs == (architecture >= ROUNDS_PAIRS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_subnormals_are_kept(architecture: int, disassembled) -> None:
    for name, instructions in disassembled(architecture, UNFUSED).items():
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
