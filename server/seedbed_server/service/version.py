"""The installed version of the package."""

from __future__ import annotations

import functools
import importlib.metadata


@functools.cache
def version() -> str:
    """The installed version, or ``unknown`` in a source tree that is not installed."""
    try:
        return importlib.metadata.version("seedbed")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
