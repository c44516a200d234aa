"""Puts the emulated GPU (``emulated/cupy``) in CuPy's place."""

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
"""Goes onto the PYTHONPATH of processes that shall find the emulated package."""

CACHE = Path(tempfile.gettempdir()) / f"seedbed-emulated-{os.getuid()}"
"""Where compiled kernels are kept, by a digest of their source, so that each is compiled once."""


@contextlib.contextmanager
def emulated_cupy() -> Iterator[ModuleType]:
    """Within the block, ``import cupy`` gives the emulated package, whether there is a real one or not."""
    before = _take_cupy()
    sys.path.insert(0, str(FOLDER))
    try:
        with mock.patch.dict(os.environ, {"CUPY_CACHE_DIR": str(CACHE)}):
            import cupy

            yield cupy
    finally:
        sys.path.remove(str(FOLDER))
        _take_cupy()
        sys.modules.update(before)


def _take_cupy() -> dict[str, ModuleType]:
    """Takes a package that was imported out of the way; the next import looks for it anew."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "cupy"}
