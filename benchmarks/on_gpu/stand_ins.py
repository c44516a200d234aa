"""Stand-ins for packages that a machine may lack: just good enough to compare bits and to measure."""

from __future__ import annotations

import importlib
import sys
import zlib
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np


def install() -> dict[str, str]:
    """Installs stand-ins for packages that cannot be imported, and returns what each means."""
    replaced = {}
    if is_missing("crc32c"):
        # Both ends of a stream use the same checksum, so it works; it is only slower.
        _put("crc32c", crc32c=zlib.crc32)
        replaced["crc32c"] = "zlib.crc32, a slower checksum; figures over sockets are lower bounds"
    if is_missing("ml_dtypes"):
        # The engine looks up types by their dtype. This dtype belongs to no other type, and is never used.
        _put("ml_dtypes", bfloat16=np.longdouble)
        replaced["ml_dtypes"] = "nothing, because NumPy has no bfloat16; that type is skipped everywhere"
    if is_missing("google.rpc.status_pb2") or is_missing("google.rpc.error_details_pb2"):
        _put_google_rpc()
        replaced["google.rpc"] = "plain objects, which carry errors within a process"
    if is_missing("click"):
        sys.modules["click"] = MagicMock()
        replaced["click"] = "nothing: no arguments go through it here"
    return replaced


def is_missing(name: str) -> bool:
    """Whether a package is unusable here."""
    try:
        importlib.import_module(name)
    except Exception:  # a broken package is as good as missing
        return True
    return False


def _put(name: str, **content: object) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(content)
    return module


def _put_google_rpc() -> None:
    from grpc import StatusCode  # noqa: PLC0415 - only when needed

    _put(
        "google.rpc",
        __path__=[],
        status_pb2=_put("google.rpc.status_pb2", Status=SimpleNamespace),
        code_pb2=_put("google.rpc.code_pb2", **{each.name: each.value[0] for each in StatusCode}),
        error_details_pb2=_put("google.rpc.error_details_pb2"),
    )
