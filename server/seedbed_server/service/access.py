"""Access control: TLS, tokens, and the refusal to serve other machines in plaintext by accident.

Files are reloaded while the server runs: certificates when a client connects after they have changed, tokens on SIGHUP.
If a new file cannot be used, the previous one stays in use, and the log says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from seedbed_server.service import listening
from seedbed_server.service.observer import Observer
from seedbed_server.service.settings import Settings
from seedbed_server.service.tls import Certificates
from seedbed_server.service.tokens import TokenInterceptor, Tokens


class AccessControl:
    """Decides who may connect to a server, and how.

    Args:
        settings: The addresses, certificate files, token file and whether plaintext is allowed.

    Raises:
        ValueError: A file cannot be used, settings contradict each other, or an address that other machines reach would
            be served in plaintext.
        OSError: The host of an address is unknown.
    """

    def __init__(self, settings: Settings) -> None:
        _check_combination(settings)
        self._tokens = None if settings.tokens is None else Tokens(settings.tokens)
        self._settings = settings
        self._certificates = self._load_certificates()
        self._check_addresses()

    def credentials(self) -> grpc.ServerCredentials | None:
        """Credentials for one address; None for plaintext.

        Raises:
            ValueError: A file cannot be used.
        """
        certificates = self._load_certificates()  # per address, because gRPC polls each address for changes
        return None if certificates is None else certificates.credentials()

    def interceptors(self, observer: Observer) -> list[grpc.ServerInterceptor[bytes, bytes]]:
        """The interceptors that refuse calls before they reach a handler.

        Args:
            observer: Reports the calls that are refused.
        """
        return [] if self._tokens is None else [TokenInterceptor(self._tokens, observer)]

    def client_name(self, context: grpc.ServicerContext) -> str:
        """The name of a call's client: that of its token, else of its certificate, else ""."""
        if self._tokens is not None:
            return self._tokens.owner_of(context) or ""
        properties: Mapping[str, Iterable[Any]] = context.auth_context()  # empty without a certificate
        names = [*properties.get("x509_common_name", ()), *properties.get("x509_subject_alternative_name", ())]
        return next((str(name, errors="replace") for name in names if name), "")

    @property
    def reloads(self) -> bool:
        """Whether any files can be reloaded, by `reload_tokens` or when a client connects."""
        return self._certificates is not None or self._tokens is not None

    def reload_tokens(self) -> None:
        """Reads the tokens again."""
        if self._tokens is not None:
            self._tokens.reload()

    def _load_certificates(self) -> Certificates | None:
        settings = self._settings
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def _check_addresses(self) -> None:
        if self._certificates or (self._settings.insecure and not self._tokens):
            return
        for address in self._settings.listen:
            if listening.is_local(address):
                continue
            if self._tokens:
                raise ValueError(
                    f"listen: {address} would expose tokens in plaintext on the network; "
                    "give --tls-cert and --tls-key, or listen on 127.0.0.1 or a unix: socket"
                )
            raise ValueError(
                f"listen: {address} is open to other machines; give --tls-cert and --tls-key to serve them over TLS, "
                "or --insecure to serve anyone who reaches the address in plaintext"
            )


def _check_combination(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ValueError("tls: a certificate needs its key; give both --tls-cert and --tls-key")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise ValueError("tls: --tls-client-ca requires TLS; give --tls-cert and --tls-key too")
    if settings.insecure and settings.tls_cert is not None:
        raise ValueError("tls: --insecure and --tls-cert contradict each other; omit one of them")
