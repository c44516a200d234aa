"""Who may ask, and who may listen in: TLS, tokens, and the refusal to do without where strangers come.

Files are read again while the server runs: certificates when a client connects after they changed, tokens when the
process gets SIGHUP. New files that cannot be used change nothing, and the log tells why.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from google.rpc import code_pb2, status_pb2

from seedbed.common import pem
from seedbed_server.service import listening, observing
from seedbed_server.service.servicer import STREAMS, UNARY

_HEALTH: Final = "/grpc.health.v1.Health/"
_TOKEN_LINE: Final = re.compile(r"(?P<name>[\w.@-]+):(?P<digest>[0-9a-fA-F]{64})", re.ASCII)
_NO_TOKEN: Final = "this server wants a token; give connect(..., token=...) or SEEDBED_TOKEN one that its keeper made"
_WRONG_TOKEN: Final = "this server does not know the token, or not any more; ask its keeper for a new one"

_log = logging.getLogger(__name__)


class Security:
    """What keeps strangers out.

    Args:
        tls_cert: A PEM file with the server's certificate, and those between it and its authority. Default plaintext.
        tls_key: A PEM file with its key.
        tls_client_ca: A PEM file of the authorities that clients' certificates have to come from. Default no client
            needs one.
        tokens: A file with the hashes of tokens, one of which each call but a health check has to bring: lines
            ``name:sha256hex``, as `seedbed token` prints them, empty lines and comments after ``#``. Default none.
        insecure: Whether addresses that other machines reach may be served in the clear.

    Raises:
        ValueError: A file cannot be used, or arguments do not go together.
    """

    def __init__(
        self,
        *,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_client_ca: Path | None = None,
        tokens: Path | None = None,
        insecure: bool = False,
    ) -> None:
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("tls: a certificate and its key belong together; give both --tls-cert and --tls-key")
        if tls_client_ca is not None and tls_cert is None:
            raise ValueError("tls: --tls-client-ca needs TLS; give --tls-cert and --tls-key too")
        if insecure and tls_cert is not None:
            raise ValueError("tls: --insecure asks for no TLS, --tls-cert for TLS; leave one of them out")
        self._made_again = partial(
            Security, tls_cert=tls_cert, tls_key=tls_key, tls_client_ca=tls_client_ca, tokens=tokens, insecure=insecure
        )
        self._insecure = insecure
        self._files = None if tls_cert is None or tls_key is None else (tls_cert, tls_key, tls_client_ca)
        self._tokens = None if tokens is None else Tokens(tokens)
        self.credentials()  # what is wrong with the files is to be told now

    def __reduce__(self) -> tuple[Callable[[], Security], tuple[()]]:
        """Each worker process reads the files itself."""
        return self._made_again, ()

    def check(self, listen: Sequence[str]) -> None:
        """Checks that no address is served in the clear that should not be.

        Args:
            listen: Where the server is to listen.

        Raises:
            ValueError: One is, or is not an address; the text names the remedy.
            OSError: A host is unknown.
        """
        if self._files or (self._insecure and not self._tokens):
            return
        for address in listen:
            if listening.is_local(address):
                continue
            if self._tokens:
                raise ValueError(
                    f"listen: {address} would let tokens travel in the clear, for all on the way to read; "
                    "give --tls-cert and --tls-key, or listen on 127.0.0.1 or a unix: socket"
                )
            raise ValueError(
                f"listen: {address} is open to other machines; give --tls-cert and --tls-key to serve them over TLS, "
                "or --insecure to serve all who reach it in the clear"
            )

    def credentials(self) -> grpc.ServerCredentials | None:
        """What one address is to be listened on with; None means in the clear.

        Raises:
            ValueError: A file cannot be used.
        """
        if self._files is None:
            return None
        _, _, client_ca = self._files
        certificates = _Certificates(*self._files)  # one for each address, for gRPC asks for changes at each
        return grpc.dynamic_ssl_server_credentials(
            certificates.first,
            certificates.changed,  # type: ignore[arg-type]  # the stubs forget that None is for no change
            require_client_authentication=client_ca is not None,
        )

    def interceptors(self, observer: observing.Observer) -> list[grpc.ServerInterceptor[bytes, bytes]]:
        """What calls have to pass before anything is done for them.

        Args:
            observer: Told of those that do not pass.
        """
        return [] if self._tokens is None else [_Doorkeeper(self._tokens, observer)]

    def client_of(self, context: grpc.ServicerContext) -> str:
        """Whose a call is: the name of its token, else that in its certificate, else "" for nobody knows."""
        if self._tokens is not None:
            return self._tokens.owner(_bearer(context.invocation_metadata()) or "") or ""
        told: Mapping[str, Iterable[Any]] = context.auth_context()  # empty without a certificate
        names = [*told.get("x509_common_name", ()), *told.get("x509_subject_alternative_name", ())]
        return next((str(name, errors="replace") for name in names if name), "")

    @property
    def rereads(self) -> bool:
        """Whether there are files that `reread` or new connections read again."""
        return self._files is not None or self._tokens is not None

    def reread(self) -> None:
        """Reads the tokens again."""
        if self._tokens is not None:
            self._tokens.reread()


class Tokens:
    """The tokens that a server takes, of which it knows the hashes alone.

    Args:
        path: The file of `Security`'s ``tokens``.

    Raises:
        ValueError: It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests = _read_digests(path)

    def reread(self) -> None:
        """Takes the tokens that the file has now; if it is broken, those of before."""
        try:
            self._digests = _read_digests(self._path)
        except ValueError as error:
            _log.error("the tokens stay as they were: %s", error)
        else:
            _log.info("read the tokens anew from %s: %s", self._path, ", ".join(self._digests))

    def owner(self, token: str) -> str | None:
        """The name of a token, or None if it is not known; takes as long for each that is not known."""
        digest = hashlib.sha256(token.encode()).digest()
        names = [name for name, known in self._digests.items() if hmac.compare_digest(known, digest)]
        return names[0] if names else None


def _read_digests(path: Path) -> dict[str, bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"tokens: {path} cannot be read: {reason}") from None
    digests: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _TOKEN_LINE.fullmatch(text)
        if match is None:  # the text is not shown: somebody may have put a token there
            raise ValueError(f"tokens: line {number} of {path} is not name:sha256hex; `seedbed token NAME` makes one")
        if match["name"] in digests:
            raise ValueError(f"tokens: line {number} of {path} has a name for the second time; give each its own")
        digests[match["name"]] = bytes.fromhex(match["digest"])
    if not digests:
        raise ValueError(f"tokens: {path} has none; append a line that `seedbed token NAME` makes")
    return digests


class _Doorkeeper(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Refuses calls without a token before anything is done for them, even before their request has arrived."""

    def __init__(self, tokens: Tokens, observer: observing.Observer) -> None:
        self._tokens = tokens
        self._observer = observer

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:  # noqa: ANN401 - gRPC's handlers have no useful type
        if details.method.startswith(_HEALTH):
            return continuation(details)  # a load balancer has no token
        token = _bearer(details.invocation_metadata)
        if token and self._tokens.owner(token) is not None:
            return continuation(details)
        refuse = partial(self._refuse, _rpc(details.method), _WRONG_TOKEN if token else _NO_TOKEN)
        return grpc.stream_unary_rpc_method_handler(refuse)  # a stream of requests need not be waited for

    def _refuse(self, method: str, text: str, _requests: object, context: grpc.ServicerContext) -> NoReturn:
        with self._observer.observed(method, context) as call:
            call.failed(status_pb2.Status(code=code_pb2.UNAUTHENTICATED, message=text))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, text)
        raise AssertionError("abort raises")


def _rpc(path: str) -> str:
    """The RPC of a path, for metrics, whose labels are not the caller's to choose.

    >>> _rpc("/seedbed.v1.InitService/InitTensor"), _rpc("/x.Y/Z")
    ('InitTensor', 'unknown')
    """
    name = path.rpartition("/")[2]
    return name if name in UNARY or name in STREAMS else "unknown"


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    return None


class _Certificates:
    """A certificate, its key and the clients' authorities, for one address."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._lock = threading.Lock()
        self._seen = self._versions()
        self.first = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files hold now; None if that is what they held, or cannot be used.

        gRPC asks at each connection.
        """
        with self._lock:
            versions = self._versions()
            if versions == self._seen:
                return None
            self._seen = versions
            try:
                configuration = self._read()
            except ValueError as error:
                _log.error("the certificate stays as it was: tls: %s", error)
                return None
            _log.info("read the certificate anew from %s", self._cert)
            return configuration

    def _versions(self) -> list[tuple[int, ...] | None]:
        return [_version(path) for path in (self._cert, self._key, self._client_ca) if path is not None]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = pem.key_pair(self._cert, self._key)
        authorities = None if self._client_ca is None else pem.authorities(self._client_ca)
        return grpc.ssl_server_certificate_configuration([pair], authorities)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
