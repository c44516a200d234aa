"""What LLVM made of the laws: vector instructions, wide ones where they pay, fused multiply-adds where asked for."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, with an empty cache: code that is loaded from the cache cannot be looked at. Nothing is
# called, so that it may be code for other processors.
COMPILE = """
import numba
import numpy as np
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
    "zero_below": (table, limit, words),
}
for name, arguments in functions_of_sparse.items():
    print_assembly(name, getattr(sparse, f"_{name}"), arguments)

@numba.njit
def users_own(x, y):
    for i in range(len(x)):
        x[i] *= y[i]

print_assembly("users_own", users_own, (floats, floats))
"""


def compiled(cache: Path, **environment: str) -> dict[str, str]:
    """The assembly of each function, as it is compiled in such an environment."""
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "client"), str(root / "server")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    printed = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    ).stdout
    parts = re.split(r"^FUNCTION (\w+)$", printed, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return compiled(tmp_path_factory.mktemp("numba"))


FUSED = {"add_inner", "add_outer", "reflectors", "factor", "add_gram", "scaled_identity", "unfold_rows"}
"""Those of orthogonal matrices, whose law asks for it (docs/stream-v1.md)."""


@pytest.mark.slow
def test_nothing_is_fused_but_what_is_to_be(assembly: dict[str, str]) -> None:
    assert len(assembly) == 20
    for name, code in assembly.items():
        is_fused = bool(re.search(r"\bv?fn?m(add|sub|la|ls)\w*", code))
        assert is_fused == (name in FUSED), name
        assert is_fused or "mul" in code or name.startswith("to_"), name


@pytest.mark.slow
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
        *((name, r"vfmadd\w+pd") for name in sorted(FUSED)),
        ("draw_keys", "vpmuludq|pmuludq"),
        ("feistel", "pmulld"),
        ("replace_outside", "[yz]mm"),
        ("zero_below", "[yz]mm"),
    ],
)
def test_loops_are_vectorised(assembly: dict[str, str], name: str, packed: str) -> None:
    assert re.search(packed, assembly[name])


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for processors of x86-64")
@pytest.mark.parametrize(("processor", "is_wide"), [("skylake-avx512", False), ("sapphirerapids", True)])
def test_vectors_are_wide_where_that_pays(tmp_path: Path, processor: str, is_wide: bool) -> None:
    code = compiled(tmp_path, NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES="")  # those that the processor has
    for name in ("normal32", "normal64", "quantiles", "to_bfloat16", "to_float16", "fill32", "feistel"):
        arithmetic = re.findall(r"\bv(?:mul|add|sub)p[sd]\b.*|\bvp(?:add|srl)d\b.*", code[name])
        wide, narrow = (sum(register in each for each in arithmetic) for register in ("%zmm", "%ymm"))
        # Few of the others: the rests of loops, and what LLVM puts together of two.
        assert (wide > 2 * narrow) if is_wide else (narrow > 2 * wide), (name, wide, narrow)
        assert not re.search(r"\bv?fn?m(add|sub)\w*", code[name]), name
    assert "%ymm" in code["users_own"]
    assert "%zmm" not in code["users_own"]


TILES = {"haswell": ("+avx2,+fma", "%ymm", 12), "sapphirerapids": ("+avx512f,+avx512vl,+fma", "%zmm", 24)}
"""Processors with their features, their widest registers, and the sums that a tile holds there."""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for processors of x86-64")
@pytest.mark.parametrize("processor", TILES)
def test_tiles_of_orthogonal_matrices_fill_the_registers(tmp_path: Path, processor: str) -> None:
    """The innermost loop has a multiply-add for each sum, and leaves the sums where they are."""
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
