"""What LLVM made of the laws: vector instructions, and not one fused multiply-add."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, with an empty cache: code that is loaded from the cache cannot be looked at.
COMPILE = """
import numpy as np
from seedbed_server.engine.backends import numba_kernels as backend
one, p, words = np.uint64(1), np.ones(7), np.ones(4 * backend._TILE, np.uint32)
backend._words(one, one, one, words)
backend._scattered_words(one, one, one, np.ones(8, np.uint64), words)
for law in ("uniform", "normal", "trunc_normal"):
    getattr(backend, f"_{law}32")(p, words, np.empty(8, np.float32))
    getattr(backend, f"_{law}64")(p, words, np.empty(8))
backend._quantiles(np.empty(8), np.empty(8), np.empty(9, np.int64), 8)
backend._to_bfloat16(np.empty(8, np.float32), np.empty(8, np.uint16))
backend._to_float16(np.empty(8, np.float32), np.empty(8, np.uint16))
backend._reflect(np.ones((4, 32)), 0, np.ones(4), 1.0)
for name in ("words", "scattered_words", "uniform32", "normal32", "uniform64", "normal64", "trunc_normal32",
             "trunc_normal64", "quantiles", "to_bfloat16", "to_float16", "reflect"):
    print("FUNCTION", name)
    print(*getattr(backend, "_" + name).inspect_asm().values())
"""


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("numba"))}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "client"), str(root / "server")])
    printed = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    ).stdout
    parts = re.split(r"^FUNCTION (\w+)$", printed, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.slow
def test_nothing_is_fused(assembly: dict[str, str]) -> None:
    assert len(assembly) == 12
    for name, code in assembly.items():
        assert "mul" in code or name.startswith("to_"), name
        assert not re.search(r"\bv?fn?m(add|sub|la|ls)\w*", code), name


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
        ("reflect", "mulpd"),
    ],
)
def test_loops_are_vectorised(assembly: dict[str, str], name: str, packed: str) -> None:
    assert re.search(packed, assembly[name])
