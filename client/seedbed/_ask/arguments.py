"""Python arguments into values that a message can carry.

Only what a message cannot carry is refused here. The server validates the rest.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping
from typing import SupportsIndex, TypeVar

from seedbed._types import Shape
from seedbed.common import cores
from seedbed.errors import InvalidRequest
from seedbed.v1 import Axes

INT32 = range(-(2**31), 2**31)
UINT32 = range(2**32)
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)
DEFAULT_WAIT = 300.0
"""Seconds that a call waits for an unreachable server, as long as torch's TCPStore does."""

_WAIT_REFUSAL = "must be 0 or more seconds, such as 300, not {value}; 0 gives up at once"
_JOBS = range(1, 1025)
_CONNECTIONS = range(1, 65)
_DEFAULT_CONNECTIONS = 4
"""On 16 cores, a process with 1, 2 and 4 connections received 1.0, 1.9 and 2.8 GB/s. Each connection keeps about one of
the client's cores busy, so more connections than cores gain nothing."""

_T = TypeVar("_T")


def number(value: object, field: str, what: str) -> float:
    """A float64. Booleans, text and arrays with dimensions are refused, with torch's messages."""
    plain = scalar(value, field, what)
    if isinstance(plain, bool) or (not hasattr(plain, "__float__") and not hasattr(plain, "__index__")):
        raise InvalidRequest(field, f"{what} {value} not a valid number")
    try:
        return float(plain)  # type: ignore[arg-type]  # just checked
    except OverflowError:
        raise InvalidRequest(field, f"{what} {value} is beyond the range of float64") from None
    except (TypeError, ValueError):  # such as a symbol of sympy
        raise InvalidRequest(field, f"{what} {value} not a valid number") from None


def scalar(value: object, field: str, what: str) -> object:
    """Unwrap a 0-dimensional array of NumPy, torch, JAX or another library; return anything else as it is.

    Raises:
        InvalidRequest: The array has dimensions, or it has no values, such as in a traced function of JAX or on torch's
            meta device.
    """
    shape, item = getattr(value, "shape", None), getattr(value, "item", None)
    if not isinstance(shape, tuple) or not callable(item):
        return value
    if shape:
        raise InvalidRequest(field, f"{what} is an array of shape {tuple(shape)}; give a single number")
    try:
        plain: object = item()
    except (RuntimeError, TypeError, ValueError):
        raise InvalidRequest(
            field, f"{what} {value} not a valid number: it has no value here; give a concrete number"
        ) from None
    return plain


def integer(value: object, field: str, what: str, allowed: range) -> int:
    """An integer within a range, usually that of the message's field."""
    value = scalar(value, field, what)
    if isinstance(value, bool):
        raise InvalidRequest(field, f"{what} {value} not a valid number; give an integer")
    try:
        result = operator.index(value)  # type: ignore[arg-type]  # raises for what has no index
    except TypeError:
        raise InvalidRequest(field, f"{what} {value!r} is not an integer") from None
    if result not in allowed:
        raise InvalidRequest(field, f"{what} {result} is outside {_span(allowed)}")
    return result


def _span(allowed: range) -> str:
    low = "0" if allowed.start == 0 else f"-2^{int(math.log2(-allowed.start))}"
    return f"{low} .. 2^{int(math.log2(allowed.stop))} - 1"


def text(value: object, field: str) -> str:
    """Text that UTF-8 can encode."""
    if not isinstance(value, str):
        raise InvalidRequest(field, f"{value!r} is a {type(value).__name__}; give text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, f"{value!r} cannot be encoded in UTF-8; remove the lone surrogates") from None
    return value


def shape(value: Shape) -> list[int]:
    """A list of dimensions; a single integer means one dimension."""
    sizes = items(value)
    if sizes is None:
        sizes = [value]
    return [integer(size, f"spec.shape[{axis}]", "size", INT64) for axis, size in enumerate(sizes)]


def axes(value: SupportsIndex | Iterable[SupportsIndex], field: str) -> Axes:
    """A list of axes; a single integer means one axis."""
    values = items(value)
    if values is None:
        values = [value]
    return Axes(axes=[integer(axis, field, "axis", INT32) for axis in values])


def items(value: object) -> list[object] | None:
    """The items of an iterable; None if the value is text or not iterable."""
    if isinstance(value, (str, bytes)):
        return None
    try:
        return list(value)  # type: ignore[call-overload, no-any-return]  # protobuf's containers are not of type Iterable
    except TypeError:
        return None


def choice(value: object, choices: Mapping[str, _T], field: str, refusal: str) -> _T:
    """The member of an enumeration with this name.

    Args:
        value: The name.
        choices: The members by name.
        field: The field's path.
        refusal: The error for any other value, with the placeholders ``{value}`` and ``{names}``.
    """
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(field, refusal.format(value=value, names=list(choices)))
    return choices[value]


def seconds(timeout: float | None) -> float | None:
    """A positive number of seconds; None and infinity mean no limit."""
    if timeout is None:
        return None
    result = number(timeout, "timeout", "timeout")
    if not result > 0:
        raise InvalidRequest(
            "timeout", f"must be a positive number of seconds, or None to wait for ever, not {timeout}"
        )
    return None if math.isinf(result) else result


def patience(wait: float | None) -> float:
    """Seconds to wait for an unreachable server; None means SEEDBED_WAIT, or the default."""
    if wait is None:
        return _patience_of_environment()
    result = number(wait, "wait", "wait")
    if not result >= 0:
        raise InvalidRequest("wait", _WAIT_REFUSAL.format(value=wait))
    return result


def _patience_of_environment() -> float:
    text = os.environ.get("SEEDBED_WAIT", "").strip()
    if not text:
        return DEFAULT_WAIT
    try:
        result = float(text)
    except ValueError:
        result = math.nan
    if not result >= 0:
        raise InvalidRequest("SEEDBED_WAIT", _WAIT_REFUSAL.format(value=repr(text)))
    return result


def jobs(count: int | None, default: int) -> int:
    """The number of pieces to make at a time."""
    if count is None:
        return default
    result = integer(count, "jobs", "count", INT64)
    if result not in _JOBS:
        raise InvalidRequest("jobs", f"must be 1 to {_JOBS[-1]}, or None, not {count}")
    return result


def connections(count: int | None) -> int:
    """The number of connections for a large tensor; None means SEEDBED_CONNECTIONS, or the default."""
    if count is None:
        return _connections_of_environment()
    result = integer(count, "connections", "count", INT64)
    if result not in _CONNECTIONS:
        raise InvalidRequest("connections", f"must be 1 to {_CONNECTIONS[-1]}, not {count}")
    return result


def _connections_of_environment() -> int:
    text = os.environ.get("SEEDBED_CONNECTIONS", "").strip()
    if not text:
        return min(_DEFAULT_CONNECTIONS, cores.cores_of_rank())
    if not (text.isascii() and text.isdigit() and int(text) in _CONNECTIONS):
        raise InvalidRequest("SEEDBED_CONNECTIONS", f"must be 1 to {_CONNECTIONS[-1]}, not {text!r}")
    return int(text)
