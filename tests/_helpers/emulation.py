"""Replaces CuPy by the emulated GPU (``emulated/cupy``)."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

FOLDER = Path(__file__).parent / "emulated"
"""Belongs on the PYTHONPATH of processes that use the emulated package."""

CACHE = Path(tempfile.gettempdir()) / f"seedbed-emulated-{os.getuid()}"
"""The cache of compiled kernels, by a digest of their source, so that each is compiled once."""


@contextlib.contextmanager
def emulated_cupy() -> Iterator[ModuleType]:
    """Makes ``import cupy`` import the emulated package within the block, even if CuPy is installed."""
    before = _unload_cupy()
    sys.path.insert(0, str(FOLDER))
    try:
        with mock.patch.dict(os.environ, {"CUPY_CACHE_DIR": str(CACHE)}):
            import cupy

            yield cupy
    finally:
        sys.path.remove(str(FOLDER))
        _unload_cupy()
        sys.modules.update(before)


def _unload_cupy() -> dict[str, ModuleType]:
    """Removes CuPy from the imported modules and returns them; the next import searches the path again."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "cupy"}
