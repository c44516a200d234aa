"""LLVM's code for the laws: vector instructions, wide ones where they pay, and only explicit fused multiply-adds."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers import command
from llvmlite import binding

# Runs in a separate process with an empty cache: code that is loaded from the cache cannot be inspected. Nothing is
# called, so the code may be for other processors.
COMPILE = """
import os
import numba
import numpy as np
from llvmlite import ir
if os.environ.get("UNFUSED"):
    ir.IRBuilder.fma = lambda self, a, b, c: self.fadd(self.fmul(a, b), c)
from seedbed_server.engine.backends import numba_kernels as backend
from seedbed_server.engine.backends import numba_orthogonal as orthogonal
from seedbed_server.engine.backends import numba_sparse as sparse
one, p, words = np.uint64(1), np.ones(7), np.ones(4 * backend._TILE, np.uint32)
runs, floats, doubles, halves = np.ones(1, np.int64), np.empty(8, np.float32), np.empty(8), np.empty(8, np.uint16)
functions = {
    "words": (one, one, one, words),
    "scattered_words": (one, one, one, np.ones(8, np.uint64), words),
    "uniform32": (p, words, floats),
    "normal32": (p, words, floats),
    "trunc_normal32": (p, words, floats),
    "near_row32": (p, words),
    "far_row32": (p, words),
    "disk32": (p, words, floats),
    "uniform64": (p, words, doubles),
    "normal64": (p, words, doubles),
    "trunc_normal64": (p, words, doubles),
    "quantiles": (doubles, doubles, np.empty(9, np.int64), 8),
    "to_bfloat16": (floats, halves),
    "to_float16": (floats, halves),
    "fill32": (0, p, one, one, runs, runs, runs, floats),
}

def print_assembly(name, function, arguments):
    function.compile(tuple(map(numba.typeof, arguments)))
    print("FUNCTION", name)
    print(*function.inspect_asm().values())

for name, arguments in functions.items():
    print_assembly(name, getattr(backend, name if name == "fill32" else f"_{name}"), arguments)

matrix = np.ones((8, 8))
functions = {
    "add_inner": (1, 1, 64, 48, 64, 1, 48),
    "add_outer": (1, 64, 1, 1, 48),
    "reflectors": (matrix, 8, doubles, np.ones(8, np.bool_)),
    "factor": (matrix, doubles, matrix),
    "add_gram": (matrix, matrix),
    "scaled_identity": (matrix, matrix, doubles),
    "unfold_rows": (matrix, 0, matrix),
}
for name, arguments in functions.items():
    print_assembly(name, getattr(orthogonal, f"_{name}", None) or getattr(orthogonal, name), arguments)

limit, table = (np.uint32(1), np.uint32(1)), np.ones(sparse.TABLE, np.uint32)
functions_of_sparse = {
    "draw_keys": (table, words.astype(np.uint64), one, one),
    "feistel": (table, table, 8, limit),
    "replace_outside": (table, table, 8, limit),
    "zero_below": (table, limit, words, words[0]),
}
for name, arguments in functions_of_sparse.items():
    print_assembly(name, getattr(sparse, f"_{name}"), arguments)

@numba.njit
def users_own(x, y):
    for i in range(len(x)):
        x[i] *= y[i]

print_assembly("users_own", users_own, (floats, floats))
"""


def environment_of(cache: Path, **environment: str) -> dict[str, str]:
    """The environment of a process that finds our packages and caches machine code in a folder."""
    return command.environment(NUMBA_CACHE_DIR=str(cache), **environment)


def compiled(cache: Path, **environment: str) -> dict[str, str]:
    """The assembly of each function, compiled in such an environment."""
    environment = environment_of(cache, **environment)
    printed = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    ).stdout
    parts = re.split(r"^FUNCTION (\w+)$", printed, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return compiled(tmp_path_factory.mktemp("numba"))


ORTHOGONAL = {"add_inner", "add_outer", "reflectors", "factor", "add_gram", "scaled_identity", "unfold_rows"}
LAWS32 = {"normal32", "near_row32", "far_row32", "disk32"}
FUSED = {*ORTHOGONAL, *LAWS32, "normal64", "trunc_normal32", "trunc_normal64", "quantiles", "fill32"}
"""Functions whose laws specify fused multiply-adds (docs/stream-v1.md)."""


def fused(code: str) -> list[str]:
    """The multiply-adds, of x86-64 or AArch64."""
    return re.findall(r"\bv?fn?m(?:add|sub|la|ls)\w*.*", code)


@pytest.mark.nightly
def test_the_laws_are_fused(assembly: dict[str, str]) -> None:
    assert assembly.keys() >= FUSED
    for name, code in assembly.items():
        assert bool(fused(code)) == (name in FUSED), name


@pytest.mark.nightly
def test_only_explicit_calls_are_fused(tmp_path: Path) -> None:
    """With each explicit multiply-add replaced by a multiplication and an addition, none is left."""
    code = compiled(tmp_path, UNFUSED="1")
    in_vectors = {"add_inner", "add_outer"}  # written in LLVM vectors
    assert {name for name in code if fused(code[name])} == in_vectors
    assert all("mul" in code[name] for name in FUSED - {"fill32"})


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the vector instructions of x86-64 only")
def test_laws_of_float32_use_no_float64(assembly: dict[str, str]) -> None:
    for name in ("near_row32", "far_row32"):
        assert not re.search(r"\bv?(?:mul|add|sub|sqrt|fmadd\d+|cvtps2|cvtpd2)[ps]d\b", assembly[name]), name


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the vector instructions of x86-64 only")
@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("words", "vpmuludq|pmuludq"),
        ("scattered_words", "vpmuludq|pmuludq"),
        ("uniform32", "mulps"),
        ("normal32", "sqrtps"),
        ("uniform64", "mulpd"),
        ("normal64", "sqrtpd"),
        ("quantiles", "divpd"),
        ("to_bfloat16", "vpsrld|psrld"),
        *((name, r"vfmadd\w+pd") for name in sorted({*ORTHOGONAL, "normal64", "quantiles"})),
        *((name, r"vfmadd\w+ps") for name in sorted(LAWS32)),
        ("draw_keys", "vpmuludq|pmuludq"),
        ("feistel", "pmulld"),
        ("replace_outside", "[yz]mm"),
        ("zero_below", "[yz]mm"),
    ],
)
def test_loops_are_vectorised(assembly: dict[str, str], name: str, packed: str) -> None:
    assert re.search(packed, assembly[name])


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for processors of x86-64")
@pytest.mark.parametrize(("processor", "is_wide"), [("skylake-avx512", False), ("sapphirerapids", True)])
def test_vectors_are_wide_where_that_pays(tmp_path: Path, processor: str, is_wide: bool) -> None:
    code = compiled(tmp_path, NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES="")  # the features of that processor
    for name in ("normal32", "near_row32", "normal64", "quantiles", "to_bfloat16", "to_float16", "feistel"):
        arithmetic = re.findall(r"\bv(?:mul|add|sub|fmadd\d+)p[sd]\b.*|\bvp(?:add|srl)d\b.*", code[name])
        wide, narrow = (sum(register in each for each in arithmetic) for register in ("%zmm", "%ymm"))
        # Few others: remainders of loops, and vectors that LLVM combines from two.
        assert (wide > 2 * narrow) if is_wide else (narrow > 2 * wide), (name, wide, narrow)
    assert "%ymm" in code["users_own"]
    assert "%zmm" not in code["users_own"]


TILES = {"haswell": ("+avx2,+fma", "%ymm", 12), "sapphirerapids": ("+avx512f,+avx512vl,+fma", "%zmm", 24)}
"""Processors with their features, their widest registers, and the sums of a register tile."""


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for processors of x86-64")
@pytest.mark.parametrize("processor", TILES)
def test_register_tiles_of_orthogonal_matrices_fill_the_registers(tmp_path: Path, processor: str) -> None:
    """The innermost loop has one multiply-add for each sum, and does not move the sums."""
    features, register, sums = TILES[processor]
    code = compiled(tmp_path, NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES=features)
    for name in ("add_inner", "add_outer"):
        loops = [block.split("\tj")[0] for block in re.split(r"^\.L\w+:", code[name], flags=re.MULTILINE)]
        loops = [loop for loop in loops if "vfmadd" in loop]
        assert loops
        for loop in loops:
            multiply_adds = re.findall(r"vfmadd\d+pd.*", loop)
            assert len(multiply_adds) % sums == 0
            assert all(register in each for each in multiply_adds)
            assert not re.search(r"vmov\w+\s+%[yz]mm\d+, .*\(", loop), "stored"


RUN = """
import sys
import pytest
from seedbed_server.engine.backends import numba_kernels
code = pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]])
print("ASSEMBLY", *numba_kernels._normal32.inspect_asm().values())
sys.exit(code)
"""


@pytest.mark.nightly
@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2"), reason="runs machine code that needs AVX2")
def test_bits_are_the_same_without_avx512(tmp_path: Path) -> None:
    """The golden vectors and large tensors, with code for Haswell, which has AVX2 and FMA but fewer registers."""
    tests = ["test_golden.py", "test_bits.py::test_large_tensors_agree"]
    arguments = [f"{Path(__file__).parent / name}" for name in tests]
    environment = environment_of(tmp_path, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="", EMULATED_GPU="0")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    report, _, assembly = done.stdout.partition("ASSEMBLY")
    assert done.returncode == 0, report
    assert "%ymm" in assembly
    assert not re.search(r"%zmm|%[xy]mm(1[6-9]|[23]\d)|%k[0-7]", assembly)
