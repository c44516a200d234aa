"""Certificates and keys in PEM files, checked before gRPC gets them, which only logs that they are invalid."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NoReturn

PathLike = str | os.PathLike[str]


def authorities(path: PathLike) -> bytes:
    """Read the certificates of authorities.

    Args:
        path: The file.

    Raises:
        ValueError: The file cannot be read, or holds no certificate.
    """
    try:
        certificates = Path(path).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be used as certificates of authorities: {_reason(error)}") from None
    return certificates


def system_authorities() -> str | None:
    """The file of the authorities that this machine trusts; None if it has none, and gRPC uses its own."""
    return ssl.get_default_verify_paths().cafile


def key_pair(cert: PathLike, key: PathLike) -> tuple[bytes, bytes]:
    """Read a private key and its certificate chain.

    Args:
        cert: The file of the certificate and its intermediates.
        key: The file of the key, without a password.

    Returns:
        The key and the chain, in gRPC's order.

    Raises:
        ValueError: A file cannot be read, or key and certificate do not match.
    """
    try:
        pair = Path(key).read_bytes(), Path(cert).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, _no_password)
    except OSError as error:
        raise ValueError(f"{cert} and {key} cannot be used as certificate and key: {_reason(error)}") from None
    return pair


def _no_password() -> NoReturn:
    raise OSError("the key is protected by a password; give an unprotected one")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not in PEM format").lower().replace("_", " ")
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
