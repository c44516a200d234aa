"""TLS and tokens, from arguments or else from the environment."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seedbed._wire import targets
from seedbed._wire.targets import Target
from seedbed.errors import InvalidRequest

if TYPE_CHECKING:
    import grpc

    from seedbed.common.pem import PathLike

_FLAGS: Final = {"": None, "0": False, "false": False, "1": True, "true": True}
_TOKEN: Final = re.compile(r"[!-~]+")
_NAME_OPTION: Final = "grpc.ssl_target_name_override"


@dataclasses.dataclass(frozen=True, repr=False)  # no repr, since it may hold a token
class Security:
    """The arguments of `seedbed.connect` with these names, and where the environment provides the token.

    Attributes:
        token_file: The file that holds the token.
        is_token_in_environment: Whether SEEDBED_TOKEN holds the token.
    """

    credentials: grpc.ChannelCredentials | None = None
    tls: bool | None = None
    ca: PathLike | None = None
    cert: PathLike | None = None
    key: PathLike | None = None
    token: str | None = None
    server_name: str | None = None
    token_file: PathLike | None = None
    is_token_in_environment: bool = False


@dataclasses.dataclass(frozen=True, repr=False)
class Wire:
    """The arguments with which gRPC reaches a server.

    Attributes:
        target: The address, and the channel arguments.
        credentials: For TLS; None means plaintext.
        metadata: The metadata of each call, with the token.
    """

    target: Target
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...] = ()

    def resolved(self) -> Wire:
        """The same with an address for gRPC.

        Raises:
            Unavailable: The target names several hosts, and none can be resolved now.
        """
        return dataclasses.replace(self, target=self.target.resolved())


def with_environment(security: Security) -> Security:
    """Replace each None by the environment's setting, so that a pickled client means the same in another process.

    Secrets are not read: files are kept as paths, and SEEDBED_TOKEN as a flag.

    Raises:
        InvalidRequest: Arguments contradict each other.
    """
    if security.credentials is not None:
        return security
    files = _tls_files(security)
    absolute: dict[str, Any] = {name: Path(path).absolute() for name, path in (files or {}).items() if path}
    server_name = security.server_name or os.environ.get("SEEDBED_TLS_SERVER_NAME") or None
    result = dataclasses.replace(security, tls=files is not None, server_name=server_name, **absolute)
    if security.token is not None:
        return result
    if os.environ.get("SEEDBED_TOKEN", "").strip():
        return dataclasses.replace(result, is_token_in_environment=True)
    if path := os.environ.get("SEEDBED_TOKEN_FILE"):
        return dataclasses.replace(result, token_file=Path(path).absolute())
    return dataclasses.replace(result, token="")


def check_by_reference(security: Security) -> None:
    """Refuse secrets that a pickle would contain.

    Raises:
        InvalidRequest: There is a token, or gRPC credentials.
    """
    if security.token:
        raise InvalidRequest(
            "token",
            "would be readable in the pickle; set SEEDBED_TOKEN or SEEDBED_TOKEN_FILE here and in the other process "
            "instead, or connect there",
        )
    if security.credentials is not None:
        raise InvalidRequest(
            "credentials",
            "cannot be pickled; give tls=, ca=, cert= and key=, and the token in SEEDBED_TOKEN or SEEDBED_TOKEN_FILE, "
            "or connect in the other process",
        )


def wire(target: object, security: Security, options: Sequence[tuple[str, Any]] = ()) -> Wire:
    """Resolve a target and its security into gRPC's arguments; without any TLS setting, plaintext.

    Args:
        target: As for `seedbed.connect`.
        security: Arguments; the environment replaces those that are None.
        options: Channel arguments of gRPC, which override ours.

    Raises:
        InvalidRequest: The target is not an address, arguments contradict each other, a file cannot be used, or a token
            would be sent in plaintext.
    """
    parsed = targets.parse(target, options)
    if security.credentials is not None:
        _refuse_beside_credentials(security)
        return Wire(_named(parsed, str(target), security), security.credentials)
    credentials = _channel_credentials(security)
    token = _token(security)
    if credentials is None and token and not targets.is_on_this_machine(str(target)):
        raise InvalidRequest(
            "token",
            f"would be sent to {target} in plaintext; give tls=True or ca=... (SEEDBED_TLS=1 or SEEDBED_TLS_CA), "
            "or token='' to send none",
        )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return Wire(parsed if credentials is None else _named(parsed, str(target), security), credentials, metadata)


def read_token(path: PathLike) -> str:
    """Read a file that holds a token and nothing else.

    Raises:
        InvalidRequest: The file cannot be read, or is empty.
    """
    try:
        token = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise InvalidRequest("token", f"{path} cannot be read: {error.strerror}") from error
    if not token:
        raise InvalidRequest("token", f"{path} is empty; write the token into it")
    return token


def _token(security: Security) -> str:
    token = security.token
    if token is None and security.token_file is not None:
        token = read_token(security.token_file)
    if token is None:
        token = os.environ.get("SEEDBED_TOKEN", "").strip()
        path = os.environ.get("SEEDBED_TOKEN_FILE")
        if not token and path:
            token = read_token(path)
    if not token and security.is_token_in_environment:
        raise InvalidRequest(
            "token", "was in SEEDBED_TOKEN where this client was pickled; set it, or SEEDBED_TOKEN_FILE, here too"
        )
    if token and not _TOKEN.fullmatch(token):
        raise InvalidRequest("token", "has a space or another invalid character; give it as `seedbed token` printed it")
    return token


def _refuse_beside_credentials(security: Security) -> None:
    for name in ("tls", "ca", "cert", "key", "token"):
        if getattr(security, name) is not None:
            raise InvalidRequest(name, "is given together with credentials=, which replace it; omit one of them")


def _channel_credentials(security: Security) -> grpc.ChannelCredentials | None:
    files = _tls_files(security)
    return None if files is None else _ssl_credentials(files["ca"], files["cert"], files["key"])


def _tls_files(security: Security) -> dict[str, PathLike | None] | None:
    """The files for TLS; None means plaintext."""
    files = {name: getattr(security, name) for name in ("ca", "cert", "key")}
    tls = security.tls
    if tls is None:
        tls = True if any(files.values()) else _flag("SEEDBED_TLS")
    elif not tls and any(files.values()):
        raise InvalidRequest("tls", "is False, but ca=, cert= or key= is given; omit one of them")
    if tls is False:
        return None
    files = {name: path or os.environ.get(f"SEEDBED_TLS_{name.upper()}") or None for name, path in files.items()}
    return files if tls or any(files.values()) else None


def _flag(variable: str) -> bool | None:
    text = os.environ.get(variable, "")
    if text.lower() not in _FLAGS:
        raise InvalidRequest(variable, f"is {text!r}; give 1 or 0")
    return _FLAGS[text.lower()]


def _ssl_credentials(ca: PathLike | None, cert: PathLike | None, key: PathLike | None) -> grpc.ChannelCredentials:
    import grpc  # noqa: PLC0415 - `import seedbed` stays fast

    from seedbed.common import pem  # noqa: PLC0415 - imports ssl, which only TLS needs

    if (cert is None) != (key is None):
        present, missing = ("cert", "key") if key is None else ("key", "cert")
        raise InvalidRequest(missing, f"is missing; {present}= (SEEDBED_TLS_{present.upper()}) needs it")
    try:
        roots = pem.authorities(trusted) if (trusted := ca or pem.system_authorities()) else None
        pair = pem.key_pair(cert, key) if cert and key else (None, None)
    except ValueError as error:
        raise InvalidRequest("tls", str(error)) from error
    return grpc.ssl_channel_credentials(roots, *pair)


def _named(parsed: Target, target: str, security: Security) -> Target:
    """Add the name to check certificates against, if gRPC cannot derive it from the address."""
    name = security.server_name or os.environ.get("SEEDBED_TLS_SERVER_NAME") or targets.host_to_check(target)
    if name is None or _NAME_OPTION in dict(parsed.options):
        return parsed
    return parsed._replace(options=[*parsed.options, (_NAME_OPTION, name)])
