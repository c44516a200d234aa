"""How a client tells the right server from others, and says who it is: by arguments, else by the environment."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seedbed import _targets
from seedbed._targets import Target
from seedbed.errors import InvalidRequest

if TYPE_CHECKING:
    import grpc

    from seedbed._pem import PathLike

_FLAGS: Final = {"": None, "0": False, "false": False, "1": True, "true": True}
_TOKEN: Final = re.compile(r"[!-~]+")
_NAME_OPTION: Final = "grpc.ssl_target_name_override"


@dataclasses.dataclass(frozen=True, repr=False)  # what holds a token does not show itself
class Security:
    """The arguments of `seedbed.connect` that have these names."""

    credentials: grpc.ChannelCredentials | None = None
    tls: bool | None = None
    ca: PathLike | None = None
    cert: PathLike | None = None
    key: PathLike | None = None
    token: str | None = None
    server_name: str | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Wire:
    """What gRPC takes to reach a server.

    Attributes:
        target: The address, and the channel's arguments.
        credentials: For TLS; None means plaintext.
        metadata: What each call carries: the token.
    """

    target: Target
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...] = ()


def wire(target: object, security: Security, options: Sequence[tuple[str, Any]] = ()) -> Wire:
    """What gRPC takes to reach a target securely, or in the clear if nothing asks for more.

    Args:
        target: As for `seedbed.connect`.
        security: Arguments; those that are None are read from the environment.
        options: Channel arguments of gRPC, which take the place of ours.

    Raises:
        InvalidRequest: The target is no address, arguments contradict each other, a file cannot be used, or a token
            would travel in the clear.
        Unavailable: The target names several hosts, and none is known.
    """
    parsed = _targets.parse(target, options)
    if security.credentials is not None:
        _refuse_beside_credentials(security)
        return Wire(_named(parsed, str(target), security), security.credentials)
    credentials = _channel_credentials(security)
    token = _token(security.token)
    if credentials is None and token and not _targets.is_on_this_machine(str(target)):
        raise InvalidRequest(
            "token",
            f"would travel to {target} in the clear, for all on the way to read; give tls=True or ca=... "
            "(SEEDBED_TLS=1 or SEEDBED_TLS_CA), or token='' for none",
        )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return Wire(parsed if credentials is None else _named(parsed, str(target), security), credentials, metadata)


def read_token(path: PathLike) -> str:
    """Reads a file that holds a token and nothing else.

    Raises:
        InvalidRequest: It cannot be read, or is empty.
    """
    try:
        token = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise InvalidRequest("token", f"{path} cannot be read: {error.strerror}") from error
    if not token:
        raise InvalidRequest("token", f"{path} is empty; write the token into it")
    return token


def _token(token: str | None) -> str:
    if token is None:
        token = os.environ.get("SEEDBED_TOKEN", "").strip()
        path = os.environ.get("SEEDBED_TOKEN_FILE")
        if not token and path:
            token = read_token(path)
    if token and not _TOKEN.fullmatch(token):
        raise InvalidRequest("token", "has a space or another character that no token has; give it as it was printed")
    return token


def _refuse_beside_credentials(security: Security) -> None:
    for name in ("tls", "ca", "cert", "key", "token"):
        if getattr(security, name) is not None:
            raise InvalidRequest(name, "is given beside credentials=, which take the place of it; give one of them")


def _channel_credentials(security: Security) -> grpc.ChannelCredentials | None:
    files = {name: getattr(security, name) for name in ("ca", "cert", "key")}
    tls = security.tls
    if tls is None:
        tls = True if any(files.values()) else _flag("SEEDBED_TLS")
    elif not tls and any(files.values()):
        raise InvalidRequest("tls", "is False, but ca=, cert= or key= is given; leave one of them out")
    if tls is False:
        return None
    ca, cert, key = (path or os.environ.get(f"SEEDBED_TLS_{name.upper()}") or None for name, path in files.items())
    if not (tls or ca or cert or key):
        return None
    return _ssl_credentials(ca, cert, key)


def _flag(variable: str) -> bool | None:
    text = os.environ.get(variable, "")
    if text.lower() not in _FLAGS:
        raise InvalidRequest(variable, f"is {text!r}; give 1 or 0")
    return _FLAGS[text.lower()]


def _ssl_credentials(ca: PathLike | None, cert: PathLike | None, key: PathLike | None) -> grpc.ChannelCredentials:
    import grpc  # noqa: PLC0415 - `import seedbed` stays fast

    from seedbed import _pem  # noqa: PLC0415 - as is ssl, only for TLS

    if (cert is None) != (key is None):
        given, missing = ("cert", "key") if key is None else ("key", "cert")
        raise InvalidRequest(missing, f"is missing; {given}= (SEEDBED_TLS_{given.upper()}) needs it")
    try:
        roots = _pem.authorities(trusted) if (trusted := ca or _pem.system_authorities()) else None
        pair = _pem.key_pair(cert, key) if cert and key else (None, None)
    except ValueError as error:
        raise InvalidRequest("tls", str(error)) from error
    return grpc.ssl_channel_credentials(roots, *pair)


def _named(parsed: Target, target: str, security: Security) -> Target:
    """The target with the name that certificates are checked against, where gRPC cannot tell it from the address."""
    name = security.server_name or os.environ.get("SEEDBED_TLS_SERVER_NAME") or _targets.host_to_check(target)
    if name is None or _NAME_OPTION in dict(parsed.options):
        return parsed
    return parsed._replace(options=[*parsed.options, (_NAME_OPTION, name)])
