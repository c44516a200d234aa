"""Converts exceptions to the gRPC statuses that clients receive."""

from __future__ import annotations

import logging
import secrets
from typing import Final

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from seedbed.common.status import ServiceError
from seedbed_server.engine import Cancelled, InvalidSpec

_log = logging.getLogger(__name__)

# A status travels in HTTP/2 trailers. Clients accept 8 KiB of trailers by default, which hold the text twice: as the
# message (percent-encoded, up to three times as long) and within the details.
_MAX_TEXT_BYTES: Final = 1024


def to_status(error: Exception) -> status_pb2.Status:
    """The status for an exception. An unexpected one is logged, and its status holds only the id of the log entry.

    >>> to_status(InvalidSpec("spec.shape[0]", "-1 is negative; give 0 or more")).message
    'spec.shape[0]: -1 is negative; give 0 or more'
    """
    if isinstance(error, ServiceError):
        return error.status
    if isinstance(error, InvalidSpec):
        return _bad_request(error.field, error.description)
    if isinstance(error, Cancelled):
        return status_pb2.Status(code=code_pb2.CANCELLED, message="the call was cancelled")
    if isinstance(error, MemoryError):
        _log.error("out of memory", exc_info=error)
        return resource_exhausted("the server is short of memory; retry later, or request a smaller region").status
    error_id = secrets.token_hex(4)
    _log.error("internal error %s", error_id, exc_info=error)
    return status_pb2.Status(
        code=code_pb2.INTERNAL, message=f"internal error {error_id}; see the server's log under this id"
    )


def resource_exhausted(message: str, retry_delay: float | None = None) -> ServiceError:
    """The error of a server that has no capacity left.

    Args:
        message: The reason.
        retry_delay: Seconds after which to retry; None if retrying does not help.
    """
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=message)
    if retry_delay is not None:
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromNanoseconds(round(retry_delay * 1e9))
        status.details.add().Pack(retry_info)
    return ServiceError(status)


def _bad_request(field: str, description: str) -> status_pb2.Status:
    field, description = _shortened(field), _shortened(description)
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    message = _shortened(f"{field}: {description}")
    return status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=message, details=[detail])


def _shortened(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _MAX_TEXT_BYTES:
        return text
    return encoded[:_MAX_TEXT_BYTES].decode(errors="ignore") + " ..."
