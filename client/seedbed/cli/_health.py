"""The standard health check, grpc.health.v1, by hand: its messages are a package that only the server depends on."""

import time

import grpc

import seedbed
from seedbed import errors
from seedbed._ask import arguments
from seedbed._wire import credentials as _credentials
from seedbed._wire.credentials import Security

_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
_INTERVAL = 0.5


def not_serving(target: str, timeout: float, wait: float, security: Security) -> str | None:
    """The reason why the target is not serving; None if it is.

    Args:
        target: The target, as for `seedbed.connect`.
        timeout: The seconds to wait for each response.
        wait: The seconds to keep retrying.
        security: The TLS settings; no token is sent.
    """
    deadline = time.monotonic() + arguments.patience(wait)
    while (reason := _not_serving_now(target, timeout, security)) and time.monotonic() < deadline:
        time.sleep(_INTERVAL)
    return reason


def _not_serving_now(target: str, timeout: float, security: Security) -> str | None:
    if target == "local:":
        with seedbed.connect(target, timeout=timeout) as client:
            client.server_info()
        return None
    try:
        wire = _credentials.wire(target, security).resolved()
    except errors.Unavailable as error:
        return str(error)
    (address, options), credentials = wire.target, wire.credentials
    with (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    ) as channel:
        try:
            response = channel.unary_unary(_METHOD, None, None)(b"", timeout=timeout)
        except grpc.RpcError as error:
            return _reason(error, target)
    return None if response == _SERVING else f"{target} reports that it is not serving"


def _reason(error: grpc.RpcError, target: str) -> str:
    code = error.code()
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} has no health service"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{target} did not respond in time"
    if code == grpc.StatusCode.UNAVAILABLE:
        return errors.tls_problem(str(error.details()), target) or f"{target} is not reachable"
    return f"{target}: {code.name}"
