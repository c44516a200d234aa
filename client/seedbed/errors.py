"""The errors that Seedbed raises, one class for each remedy.

>>> import seedbed
>>> try:
...     seedbed.spec("kaiming_normal", (4, 4), nonlinearity="gelu")
... except seedbed.InvalidRequest as error:
...     print(error.field)
spec.kaiming_normal.nonlinearity
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc
    from google.rpc import status_pb2

__all__ = [
    "Cancelled",
    "Corrupted",
    "DeadlineExceeded",
    "InternalError",
    "InvalidRequest",
    "Mismatch",
    "PermissionDenied",
    "ResourceExhausted",
    "SeedbedError",
    "Unauthenticated",
    "Unavailable",
]


class SeedbedError(Exception):
    """The base class of all errors that Seedbed raises."""


class InvalidRequest(SeedbedError, ValueError):  # noqa: N818 - the names say what happened, as gRPC's codes do
    """The request is invalid: sent again unchanged, it fails again.

    Attributes:
        field: The path of the offending field or argument, such as ``spec.uniform.b`` or ``out``.
        description: A sentence that names the value and the remedy.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(field, description)
        self.field = field
        self.description = description

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class Unavailable(SeedbedError):  # noqa: N818
    """No server could be reached within the time that the call waits for one."""

    _is_transient = True  # False for an untrusted certificate, which waiting does not mend


class DeadlineExceeded(SeedbedError, TimeoutError):  # noqa: N818
    """The call took longer than its ``timeout``. If it waited for a server, the message says why."""


class Cancelled(SeedbedError):  # noqa: N818
    """The client was closed while the call ran."""


class Unauthenticated(SeedbedError):  # noqa: N818
    """The server requires credentials, and these are missing or unknown to it."""


class PermissionDenied(SeedbedError):  # noqa: N818
    """The server recognises the caller, but does not permit the call."""


class ResourceExhausted(SeedbedError):  # noqa: N818
    """The request exceeds a limit of the server or of this client. Calls wait for a server that is merely full."""

    _retry_after: float | None = None  # seconds; set if the server is merely full


class Corrupted(SeedbedError):  # noqa: N818
    """Corrupt data arrived on every attempt; none of it was returned as complete."""


class Mismatch(SeedbedError):  # noqa: N818
    """A module's values differ from its model's; the message names the first tensor and element that differ."""


class InternalError(SeedbedError):
    """The server failed; its log has the details."""


# The gRPC codes that errors distinguish, numbered as in google.rpc.Code.
_CANCELLED, _UNKNOWN, _INVALID_ARGUMENT, _DEADLINE_EXCEEDED = 1, 2, 3, 4
_PERMISSION_DENIED, _RESOURCE_EXHAUSTED, _ABORTED, _UNIMPLEMENTED = 7, 8, 10, 12
_INTERNAL, _UNAVAILABLE, _DATA_LOSS, _UNAUTHENTICATED = 13, 14, 15, 16

_UNREACHED = (
    Unavailable,
    "no Seedbed server answers at {target}; start one with `seedbed serve`, or check the address and whether it "
    "requires TLS (tls=True or ca=)",
)
_FAILURE = (InternalError, "{target} failed unexpectedly; see its log")
_MEANINGS: dict[int, tuple[type[SeedbedError], str]] = {
    # Never the caller's own cancellation: a server that stops breaks its streams with this code.
    _CANCELLED: _UNREACHED,
    _ABORTED: _UNREACHED,
    _UNAVAILABLE: _UNREACHED,
    _DEADLINE_EXCEEDED: (DeadlineExceeded, "no complete response from {target} in time; give a longer timeout"),
    _RESOURCE_EXHAUSTED: (
        ResourceExhausted,
        "the request exceeds a limit of {target}; see client.server_info().limits",
    ),
    _UNAUTHENTICATED: (Unauthenticated, "{target} requires a token; give token= or SEEDBED_TOKEN"),
    _PERMISSION_DENIED: (PermissionDenied, "{target} does not permit this call with these credentials"),
    _UNIMPLEMENTED: (
        SeedbedError,
        "{target} does not implement this call: it is an older Seedbed server or another service; check the address",
    ),
    _DATA_LOSS: (Corrupted, "{target} reports data loss"),
}

# What gRPC says of a message over the receiver's limit. It names the server if the server is the receiver.
_TOO_LARGE = "Received message larger than max"
_REQUEST_TOO_LARGE = (
    "the request has more bytes than {target} accepts (client.server_info().limits.max_request_bytes); "
    "request fewer tensors in one call"
)
_RESPONSE_TOO_LARGE = (
    "{target} sends larger messages than this client accepts; allow them with "
    'connect(..., options=[("grpc.max_receive_message_length", BYTES)])'
)

_WRONG_NAME = (
    "the certificate of {target} is for another name; correct the address, or give that name with server_name= "
    "(SEEDBED_TLS_SERVER_NAME)"
)
# What gRPC says of a failed connection, most specific first. Its older versions do not say why a certificate failed.
_TLS_FAILURES = (
    ("certificate has expired", "the certificate of {target} has expired; renew it"),
    ("not yet valid", "the certificate of {target} is not valid yet; check the clocks of both machines"),
    (
        "unable to get local issuer certificate",
        "the certificate of {target} is from an authority that is not trusted here; give the authority's with ca= "
        "(SEEDBED_TLS_CA)",
    ),
    (
        "self signed certificate",
        "the certificate of {target} is self-signed, or its authority is not trusted here; give it with ca= "
        "(SEEDBED_TLS_CA)",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate of {target} is not trusted: it has expired, or its authority is not trusted here; "
        "give the authority's with ca= (SEEDBED_TLS_CA)",
    ),
    ("Hostname Verification", _WRONG_NAME),
    ("is not in peer certificate", _WRONG_NAME),
    (
        "WRONG_VERSION_NUMBER",
        "{target} does not speak TLS; omit tls=, ca= and their variables, or correct the port",
    ),
    ("handshake failed", "the TLS handshake with {target} failed"),
    (
        "Socket closed",
        "{target} closes the connection; check whether it requires TLS (tls=True or ca=) or a client certificate "
        "from an authority that it trusts (cert=, key=)",
    ),
)
# Also caused by a server that starts, stops or has too many connections.
_TRANSIENT = ("handshake failed", "Socket closed")

# gRPC reports a reset connection as INTERNAL or UNKNOWN, too; these words distinguish it from a failure of the server.
_RESETS = ("RST_STREAM", "Stream removed", "Connection reset", "Socket closed", "GOAWAY")


def from_rpc(error: grpc.RpcError, target: str) -> SeedbedError:
    """Map the error of a gRPC call to one of ours, whose message names the remedy.

    Args:
        error: The exception of a synchronous or asynchronous gRPC call.
        target: The server's address, for the message.
    """
    call: Any = error
    code = int(call.code().value[0])
    details = str(call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return from_status(_parse_status(value, code, details), target)
    if code in (_INTERNAL, _UNKNOWN) and any(words in details for words in _RESETS):
        code = _UNAVAILABLE
    if code == _INVALID_ARGUMENT:
        return InvalidRequest("", details or f"{target} refused the request")
    if code == _RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return ResourceExhausted(
            (_REQUEST_TOO_LARGE if "SERVER" in details else _RESPONSE_TOO_LARGE).format(target=target)
        )
    if code == _UNAVAILABLE and (problem := tls_problem(details, target)):
        return _unreachable(problem, details)
    # The service or a proxy words these; the details of other codes are gRPC's own and mean nothing to the caller.
    is_worded = code in (_UNAUTHENTICATED, _PERMISSION_DENIED, _RESOURCE_EXHAUSTED)
    return _error(code, details if is_worded else "", target)


def tls_problem(details: str, target: str) -> str | None:
    """The TLS problem that may have kept gRPC from connecting, or None.

    Args:
        details: gRPC's details of the failed call.
        target: The server's address, for the message.
    """
    if "failed to connect" not in details:
        return None
    return next((meaning.format(target=target) for words, meaning in _TLS_FAILURES if words in details), None)


def is_transient(error: Unavailable) -> bool:
    """Whether the server may become reachable without a change by the user."""
    return error._is_transient


def retry_after(error: SeedbedError) -> float | None:
    """Seconds after which to retry a server that is full; None for any other error."""
    return error._retry_after if isinstance(error, ResourceExhausted) else None


def from_status(status: status_pb2.Status, target: str) -> SeedbedError:
    """Map a ``google.rpc.Status`` to one of our errors.

    Args:
        status: The status with which the service ended the call.
        target: The server's address, for the message.
    """
    if status.code == _INVALID_ARGUMENT:
        return _invalid_request(status)
    if status.code == _RESOURCE_EXHAUSTED:
        return _resource_exhausted(status, target)
    return _error(status.code, "" if status.code == _CANCELLED else status.message, target)


def _parse_status(value: str | bytes, code: int, details: str) -> status_pb2.Status:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - google.rpc is slow to import, and failures are rare
    from google.rpc import status_pb2  # noqa: PLC0415

    try:
        return status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode("latin-1"))
    except DecodeError:
        return status_pb2.Status(code=code, message=details)


def _invalid_request(status: status_pb2.Status) -> InvalidRequest:
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from google.rpc import error_details_pb2  # noqa: PLC0415

    bad_request = error_details_pb2.BadRequest()
    with contextlib.suppress(DecodeError):  # then the plain message has to do
        for detail in status.details:
            if detail.Unpack(bad_request) and bad_request.field_violations:
                first = bad_request.field_violations[0]
                return InvalidRequest(first.field, first.description)
    return InvalidRequest("", status.message or "the server refused the request")


def _resource_exhausted(status: status_pb2.Status, target: str) -> SeedbedError:
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from google.rpc import error_details_pb2  # noqa: PLC0415

    error = _error(status.code, status.message, target)
    retry_info = error_details_pb2.RetryInfo()
    with contextlib.suppress(DecodeError):
        if isinstance(error, ResourceExhausted) and any(detail.Unpack(retry_info) for detail in status.details):
            error._retry_after = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9
    return error


def _unreachable(problem: str, details: str) -> Unavailable:
    error = Unavailable(problem)
    error._is_transient = next(words for words, _ in _TLS_FAILURES if words in details) in _TRANSIENT
    return error


def _error(code: int, message: str, target: str) -> SeedbedError:
    kind, default = _MEANINGS.get(code, _FAILURE)
    return kind(message or default.format(target=target))
