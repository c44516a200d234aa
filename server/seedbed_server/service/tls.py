"""Server certificates, reloaded when their files change."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import grpc

from seedbed.common import pem

_log = logging.getLogger(__name__)


class Certificates:
    """The server's certificate and key, and the authorities that issue its clients' certificates.

    Args:
        cert: The PEM file of the certificate chain.
        key: The PEM file of the key.
        client_ca: The PEM file of the authorities. Default clients need no certificate.

    Raises:
        ValueError: A file cannot be used.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._lock = threading.Lock()
        self._versions = self._read_versions()
        self._initial = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one address. gRPC asks for changes whenever a client connects."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self._changed,  # type: ignore[arg-type]  # the stubs omit None, which means no change
            require_client_authentication=self._client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None if the files are unchanged or cannot be used."""
        with self._lock:
            versions = self._read_versions()
            if versions == self._versions:
                return None
            self._versions = versions
            try:
                configuration = self._read()
            except ValueError as error:
                _log.error("keeping the previous certificate: tls: %s", error)
                return None
            _log.info("reloaded the certificate from %s", self._cert)
            return configuration

    def _read_versions(self) -> list[tuple[int, ...] | None]:
        return [_file_version(path) for path in (self._cert, self._key, self._client_ca) if path is not None]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = pem.key_pair(self._cert, self._key)
        authorities = None if self._client_ca is None else pem.authorities(self._client_ca)
        return grpc.ssl_server_certificate_configuration([pair], authorities)


def _file_version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
