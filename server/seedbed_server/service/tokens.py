"""Token authentication: the file of token hashes, and the interceptor that refuses calls without a valid token."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from google.rpc import code_pb2, status_pb2

from seedbed_server.service.observer import Observer
from seedbed_server.service.servicer import STREAMS, UNARY

_HEALTH: Final = "/grpc.health.v1.Health/"
_TOKEN_LINE: Final = re.compile(r"(?P<name>[\w.@-]+):(?P<digest>[0-9a-fA-F]{64})", re.ASCII)
_NO_TOKEN: Final = "this server requires a token issued by its operator; pass token= to connect() or set SEEDBED_TOKEN"
_UNKNOWN_TOKEN: Final = "the token is unknown to this server, or has been revoked; ask its operator for a new one"

_log = logging.getLogger(__name__)


class Tokens:
    """The tokens that a server accepts. It knows only their hashes.

    Args:
        path: A file of lines ``name:sha256hex``, as printed by `seedbed token`; blank lines and ``#`` comments are
            ignored.

    Raises:
        ValueError: The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests = _read_digests(path)

    def reload(self) -> None:
        """Reads the file again; if it cannot be used, the previous tokens stay valid."""
        try:
            self._digests = _read_digests(self._path)
        except ValueError as error:
            _log.error("keeping the previous tokens: %s", error)
        else:
            _log.info("reloaded the tokens from %s: %s", self._path, ", ".join(self._digests))

    def owner(self, token: str) -> str | None:
        """The name of a token, or None if it is unknown. Every unknown token takes equally long."""
        digest = hashlib.sha256(token.encode()).digest()
        names = [name for name, known in self._digests.items() if hmac.compare_digest(known, digest)]
        return names[0] if names else None

    def owner_of(self, context: grpc.ServicerContext) -> str | None:
        """The name of the token that a call carries, or None."""
        return self.owner(_bearer_token(context.invocation_metadata()) or "")


class TokenInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses calls without a valid token at once, even before their request has arrived.

    Args:
        tokens: The valid tokens.
        observer: Reports the calls that are refused.
    """

    def __init__(self, tokens: Tokens, observer: Observer) -> None:
        self._tokens = tokens
        self._observer = observer

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:  # noqa: ANN401 - gRPC's handlers have no useful type
        if details.method.startswith(_HEALTH):
            return continuation(details)  # a load balancer has no token
        token = _bearer_token(details.invocation_metadata)
        if token and self._tokens.owner(token) is not None:
            return continuation(details)
        refuse = partial(self._refuse, _rpc_label(details.method), _UNKNOWN_TOKEN if token else _NO_TOKEN)
        return grpc.stream_unary_rpc_method_handler(refuse)  # gRPC does not wait for a stream of requests

    def _refuse(self, method: str, message: str, _requests: object, context: grpc.ServicerContext) -> NoReturn:
        with self._observer.observed(method, context) as call:
            call.failed(status_pb2.Status(code=code_pb2.UNAUTHENTICATED, message=message))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, message)
        raise AssertionError("abort raises")


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
        if match is None:  # do not print the line: it may be a token
            raise ValueError(
                f"tokens: line {number} of {path} is not name:sha256hex; make one with `seedbed token NAME`"
            )
        if match["name"] in digests:
            raise ValueError(f"tokens: line {number} of {path} repeats the name {match['name']}; use unique names")
        digests[match["name"]] = bytes.fromhex(match["digest"])
    if not digests:
        raise ValueError(f"tokens: {path} has no tokens; append a line made with `seedbed token NAME`")
    return digests


def _rpc_label(path: str) -> str:
    """The RPC of a path as a metrics label, which callers must not be able to choose freely.

    >>> _rpc_label("/seedbed.v1.InitService/InitTensor"), _rpc_label("/x.Y/Z")
    ('InitTensor', 'unknown')
    """
    name = path.rpartition("/")[2]
    return name if name in UNARY or name in STREAMS else "unknown"


def _bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    return None
