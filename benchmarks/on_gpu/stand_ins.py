"""Stand-ins for packages that a machine lent for measuring may lack: just good enough to prove and to measure."""

from __future__ import annotations

import importlib
import sys
import zlib
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np


def put_in() -> dict[str, str]:
    """Puts stand-ins in the places of what cannot be imported, and tells of each what it means."""
    told = {}
    if is_missing("crc32c"):
        # Both ends of each stream take the same one, so that it is a checksum all right; but a slow one.
        _put("crc32c", crc32c=zlib.crc32)
        told["crc32c"] = "zlib.crc32, a slower checksum: figures over sockets are lower bounds"
    if is_missing("ml_dtypes"):
        # The engine looks its types up by their dtype; this one is no other type's, and nothing is made of it.
        _put("ml_dtypes", bfloat16=np.longdouble)
        told["ml_dtypes"] = "nothing makes bfloat16 for NumPy: that type is left out everywhere"
    if is_missing("google.rpc.status_pb2") or is_missing("google.rpc.error_details_pb2"):
        _put_google_rpc()
        told["google.rpc"] = "plain objects, in which errors are told within a process"
    if is_missing("click"):
        sys.modules["click"] = MagicMock()
        told["click"] = "nothing: no arguments go through it here"
    return told


def is_missing(name: str) -> bool:
    """Whether a package cannot be used here."""
    try:
        importlib.import_module(name)
    except Exception:  # a package that is broken helps as little as one that is not there
        return True
    return False


def _put(name: str, **content: object) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(content)
    return module


def _put_google_rpc() -> None:
    from grpc import StatusCode  # noqa: PLC0415 - only where it is needed

    _put(
        "google.rpc",
        __path__=[],
        status_pb2=_put("google.rpc.status_pb2", Status=SimpleNamespace),
        code_pb2=_put("google.rpc.code_pb2", **{each.name: each.value[0] for each in StatusCode}),
        error_details_pb2=_put("google.rpc.error_details_pb2"),
    )
