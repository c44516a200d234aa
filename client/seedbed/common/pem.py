"""Certificates and keys in PEM files, checked before gRPC gets them: it would only log that they are no good."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NoReturn

PathLike = str | os.PathLike[str]


def authorities(path: PathLike) -> bytes:
    """Reads the certificates of authorities.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be read, or holds none.
    """
    try:
        found = Path(path).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be used as certificates of authorities: {_reason(error)}") from None
    return found


def system_authorities() -> str | None:
    """The file of the authorities that this machine trusts; None if it has none, where gRPC trusts those it brings."""
    return ssl.get_default_verify_paths().cafile


def key_pair(cert: PathLike, key: PathLike) -> tuple[bytes, bytes]:
    """Reads a key, and its certificate with those between it and the authority.

    Args:
        cert: The file of the certificates.
        key: The file of the key, which no password protects.

    Returns:
        The key and the certificates, in gRPC's order.

    Raises:
        ValueError: One cannot be read, or they do not belong together.
    """
    try:
        found = Path(key).read_bytes(), Path(cert).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, _no_password)
    except OSError as error:
        raise ValueError(f"{cert} and {key} cannot be used as certificate and key: {_reason(error)}") from None
    return found


def _no_password() -> NoReturn:
    raise OSError("the key is protected by a password; give one that is not")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "one is not in PEM format").lower().replace("_", " ")
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
