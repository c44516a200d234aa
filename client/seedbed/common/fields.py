"""The paths of fields in errors about the tensors of a model: ``tensors[3].spec.shape``."""

from __future__ import annotations

import re
from collections.abc import Callable

from seedbed.errors import InvalidRequest

_OF_TENSOR = re.compile(r"tensors\[(\d+)\]")


def of_tensor(index: int) -> str:
    """The path of a model's tensor."""
    return f"tensors[{index}]"


def split(field: str) -> tuple[int, str] | None:
    """Split a path into the tensor's index and the rest; None if it does not begin with a tensor.

    >>> split("tensors[3].spec.shape"), split("resume")
    ((3, '.spec.shape'), None)
    """
    match = _OF_TENSOR.match(field)
    return (int(match[1]), field[match.end() :]) if match else None


def in_model(error: InvalidRequest, index: int) -> InvalidRequest:
    """Prefix an error's field with the path of the model's tensor."""
    return InvalidRequest(f"{of_tensor(index)}.{error.field}", error.description)


def renumber(error: InvalidRequest, to_model: Callable[[int], int]) -> InvalidRequest:
    """Replace the tensor's index within a request by its index within the whole model."""
    parts = split(error.field)
    if parts is None:
        return error
    index, rest = parts
    return InvalidRequest(f"{of_tensor(to_model(index))}{rest}", error.description)
