"""The backends: other ways to compute the same bits."""

from __future__ import annotations

import os

from .base import Backend, Sampler

__all__ = ["Backend", "Sampler", "open_backend"]

_NAMES = ("auto", "numpy", "numba")


def open_backend(name: str | None = None, threads: int | None = None) -> Backend:
    """Opens a backend.

    Args:
        name: ``auto`` (the fastest that works here), ``numpy`` or ``numba``. By default the environment variable
            SEEDBED_BACKEND, else ``auto``.
        threads: How many threads share the work of one call. By default the environment variable SEEDBED_THREADS,
            else one for each core that this process may use.

    Raises:
        ValueError: If there is no such backend, or it cannot be used here; says what to do.

    >>> open_backend("numpy", threads=1).name
    'numpy'
    """
    name = name or os.environ.get("SEEDBED_BACKEND") or "auto"
    threads = threads if threads is not None else _threads_of_environment()
    if threads is not None and threads < 1:
        raise ValueError(f"threads: {threads} is less than 1; give 1 or more")
    if name not in _NAMES:
        raise ValueError(f"backend: there is no {name!r}; use one of {', '.join(_NAMES)}")
    if name == "numpy":
        return _open_numpy(threads, "asked for")
    try:
        return _open_numba(threads, "asked for" if name == "numba" else "the fastest on a CPU")
    except ImportError as error:
        if name == "auto":
            return _open_numpy(threads, f"numba cannot be imported ({error})")
        raise ValueError(
            f"backend: numba cannot be imported ({error}); run pip install 'seedbed[server]', or use numpy"
        ) from error


def _open_numpy(threads: int | None, reason: str) -> Backend:
    from .numpy import NumpyBackend  # noqa: PLC0415 - a backend is imported when it is chosen

    return NumpyBackend(threads, reason)


def _open_numba(threads: int | None, reason: str) -> Backend:
    from .numba import NumbaBackend  # noqa: PLC0415

    return NumbaBackend(threads, reason)


def _threads_of_environment() -> int | None:
    text = os.environ.get("SEEDBED_THREADS")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"SEEDBED_THREADS: {text!r} is not a number; give 1 or more") from None
