"""What can go wrong, told apart by what there is to do about it.

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
    """Anything that Seedbed reports; the base of all others."""


class InvalidRequest(SeedbedError, ValueError):  # noqa: N818 - the names say what happened, as gRPC's codes do
    """The request cannot be served, now or later: it has to be changed.

    Attributes:
        field: The path of the offending field or argument, such as ``spec.uniform.b`` or ``out``.
        description: A sentence with the value and the remedy.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(field, description)
        self.field = field
        self.description = description

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class Unavailable(SeedbedError):  # noqa: N818
    """No server answers, or it went away and did not come back while it was waited for."""

    _may_pass = True  # false of a certificate that is not to be trusted: time does not mend it


class DeadlineExceeded(SeedbedError, TimeoutError):  # noqa: N818
    """The call took longer than its ``timeout``; if it waited for a server, the message tells why."""


class Cancelled(SeedbedError):  # noqa: N818
    """The client was closed while the call ran."""


class Unauthenticated(SeedbedError):  # noqa: N818
    """The server wants credentials and got none that it knows."""


class PermissionDenied(SeedbedError):  # noqa: N818
    """The server knows who asks, and refuses."""


class ResourceExhausted(SeedbedError):  # noqa: N818
    """The request is over a limit of the server, or of this client. Of a server that is merely full, calls wait."""

    _come_back_in: float | None = None  # seconds, of a server that is full


class Corrupted(SeedbedError):  # noqa: N818
    """What arrived is not what was asked for, again and again; nothing of it was handed out as complete."""


class Mismatch(SeedbedError):  # noqa: N818
    """A module holds other values than its model; the message names the first tensor and element that differ."""


class InternalError(SeedbedError):
    """The server failed; its log has the details."""


# The codes of gRPC that are told apart, as in google.rpc.Code.
_CANCELLED, _UNKNOWN, _INVALID_ARGUMENT, _DEADLINE_EXCEEDED = 1, 2, 3, 4
_PERMISSION_DENIED, _RESOURCE_EXHAUSTED, _ABORTED, _UNIMPLEMENTED = 7, 8, 10, 12
_INTERNAL, _UNAVAILABLE, _DATA_LOSS, _UNAUTHENTICATED = 13, 14, 15, 16

_NO_ANSWER = (
    Unavailable,
    "no Seedbed server answers at {target}; start one with `seedbed serve`, or check the address and whether it wants "
    "TLS (tls=True or ca=)",
)
_FAILURE = (InternalError, "{target} failed in a way of its own; its log may tell more")
_MEANINGS: dict[int, tuple[type[SeedbedError], str]] = {
    # The caller's own cancelling never comes here: this is a server that stops, which breaks the streams it has.
    _CANCELLED: _NO_ANSWER,
    _ABORTED: _NO_ANSWER,
    _UNAVAILABLE: _NO_ANSWER,
    _DEADLINE_EXCEEDED: (DeadlineExceeded, "no complete answer from {target} in time; give a longer timeout"),
    _RESOURCE_EXHAUSTED: (
        ResourceExhausted,
        "the request is over a limit of {target}; see client.server_info().limits",
    ),
    _UNAUTHENTICATED: (Unauthenticated, "{target} wants a token; give token= or SEEDBED_TOKEN"),
    _PERMISSION_DENIED: (PermissionDenied, "{target} refuses this to these credentials"),
    _UNIMPLEMENTED: (
        SeedbedError,
        "{target} does not know this call: it is no Seedbed server, or an older one; check the address",
    ),
    _DATA_LOSS: (Corrupted, "{target} reports that data was lost"),
}

# How gRPC words that a message is over the limit of whoever receives it; it names the server if it is the server.
_TOO_LARGE = "Received message larger than max"
_REQUEST_TOO_LARGE = (
    "the request has more bytes than {target} takes, client.server_info().limits.max_request_bytes; "
    "ask for fewer tensors in one call"
)
_ANSWER_TOO_LARGE = (
    "{target} sends larger messages than this client takes; allow them with "
    'connect(..., options=[("grpc.max_receive_message_length", BYTES)])'
)

_WRONG_NAME = (
    "the certificate of {target} is for another name; correct the address, or give the name with server_name= "
    "(SEEDBED_TLS_SERVER_NAME)"
)
# How gRPC words, in this order, what kept it from connecting; its older versions do not tell why a certificate failed.
_TLS_FAILURES = (
    ("certificate has expired", "the certificate of {target} has expired; have it renewed"),
    ("not yet valid", "the certificate of {target} is not valid yet; check the clocks"),
    (
        "unable to get local issuer certificate",
        "the certificate of {target} is from an authority unknown here; give the authority's with ca= (SEEDBED_TLS_CA)",
    ),
    (
        "self signed certificate",
        "{target} made its own certificate, or its authority is unknown here; give it with ca= (SEEDBED_TLS_CA)",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate of {target} is not to be trusted: expired, or from an authority unknown here; "
        "give the authority's with ca= (SEEDBED_TLS_CA)",
    ),
    ("Hostname Verification", _WRONG_NAME),
    ("is not in peer certificate", _WRONG_NAME),
    (
        "WRONG_VERSION_NUMBER",
        "{target} does not speak TLS; leave tls=, ca= and their variables out, or correct the port",
    ),
    ("handshake failed", "{target} and this client could not agree on how to speak TLS"),
    (
        "Socket closed",
        "{target} hangs up on this client; check whether it wants TLS (tls=True or ca=) or a certificate from an "
        "authority that it knows (cert=, key=)",
    ),
)
# Of these, the ones that a server which starts, stops or has too many connections causes, too.
_PASSING = ("handshake failed", "Socket closed")

# gRPC reports a reset connection under INTERNAL or UNKNOWN too; by these words it can be told from a server's failure.
_RESETS = ("RST_STREAM", "Stream removed", "Connection reset", "Socket closed", "GOAWAY")


def from_rpc(error: grpc.RpcError, target: str) -> SeedbedError:
    """The error that a failed call means, with what there is to do about it.

    Args:
        error: What a synchronous or asynchronous gRPC call raised.
        target: Whom the call asked, for the message.
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
            (_REQUEST_TOO_LARGE if "SERVER" in details else _ANSWER_TOO_LARGE).format(target=target)
        )
    if code == _UNAVAILABLE and (problem := tls_problem(details, target)):
        return _distrusted(problem, details)
    # These codes are set by people, whose words help; the others' are gRPC's own and mean nothing to the caller.
    told = code in (_UNAUTHENTICATED, _PERMISSION_DENIED, _RESOURCE_EXHAUSTED)
    return _error(code, details if told else "", target)


def tls_problem(details: str, target: str) -> str | None:
    """What keeps gRPC from a connection, if that may be TLS.

    Args:
        details: What gRPC says of the call.
        target: Whom the call asked, for the message.
    """
    if "failed to connect" not in details:
        return None
    return next((meaning.format(target=target) for words, meaning in _TLS_FAILURES if words in details), None)


def may_pass(error: Unavailable) -> bool:
    """Whether it is worth waiting for the server."""
    return error._may_pass


def come_back_in(error: SeedbedError) -> float | None:
    """Seconds after which a server that is full wants to be asked again; None if it is another error."""
    return error._come_back_in if isinstance(error, ResourceExhausted) else None


def from_status(status: status_pb2.Status, target: str) -> SeedbedError:
    """The error that a ``google.rpc.Status`` means.

    Args:
        status: What the service made of its failure.
        target: Whom the call asked, for the message.
    """
    if status.code == _INVALID_ARGUMENT:
        return _invalid_request(status)
    if status.code == _RESOURCE_EXHAUSTED:
        return _resource_exhausted(status, target)
    return _error(status.code, "" if status.code == _CANCELLED else status.message, target)


def _parse_status(value: str | bytes, code: int, details: str) -> status_pb2.Status:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - google.rpc is slow to import, failures are rare
    from google.rpc import status_pb2  # noqa: PLC0415

    try:
        return status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode("latin-1"))
    except DecodeError:
        return status_pb2.Status(code=code, message=details)


def _invalid_request(status: status_pb2.Status) -> InvalidRequest:
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from google.rpc import error_details_pb2  # noqa: PLC0415

    bad_request = error_details_pb2.BadRequest()
    with contextlib.suppress(DecodeError):  # then the plain message tells
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
            error._come_back_in = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9
    return error


def _distrusted(problem: str, details: str) -> Unavailable:
    error = Unavailable(problem)
    error._may_pass = next(words for words, _ in _TLS_FAILURES if words in details) in _PASSING
    return error


def _error(code: int, message: str, target: str) -> SeedbedError:
    kind, default = _MEANINGS.get(code, _FAILURE)
    return kind(message or default.format(target=target))
