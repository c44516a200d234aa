"""Parsers of the text that users type on the command line and in the web form.

Each function raises ``ValueError`` with a message that says what to give.
"""

from __future__ import annotations

import re
from types import EllipsisType

from seedbed import dtypes
from seedbed.errors import InvalidRequest

Slices = tuple[slice | EllipsisType, ...]


def shape(text: str) -> tuple[int, ...]:
    """Parse a shape; empty text is a scalar's shape.

    >>> shape("4096,4096"), shape("")
    ((4096, 4096), ())
    """
    plain = _plain(text).rstrip(",")
    try:
        return tuple(int(size) for size in plain.split(",")) if plain else ()
    except ValueError:
        raise ValueError(f"{text!r} is not a shape; give the dimensions, such as 4096,4096") from None


def region(text: str) -> Slices:
    """Parse a region in NumPy's notation.

    >>> region("0:10,:")
    (slice(0, 10, None), slice(None, None, None))
    """
    plain = _plain(text)
    return tuple(_slice(item) for item in plain.split(",")) if plain else ()


def axes(text: str) -> tuple[int, ...]:
    """Parse a list of axes.

    >>> axes("-2"), axes("0,1")
    ((-2,), (0, 1))
    """
    plain = _plain(text)
    try:
        return tuple(int(axis) for axis in plain.split(",")) if plain else ()
    except ValueError:
        raise ValueError(f"{text!r} is not a list of axes; give numbers, such as -2 or 0,1") from None


def seed(text: str) -> int:
    """Parse a seed, decimal or hexadecimal.

    >>> seed("7"), seed("0xff")
    (7, 255)
    """
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{text} is outside 0 .. 2^64 - 1")
    return number


def integer(text: str) -> int:
    """Parse an integer."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer") from None


def number(text: str) -> float:
    """Parse a float64."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def dtype(text: str) -> str:
    """Parse an element type; any alias becomes our name."""
    try:
        return dtypes.name_of(dtypes.data_type(text))
    except InvalidRequest as error:
        raise ValueError(error.description) from None


def _slice(text: str) -> slice | EllipsisType:
    if text == "...":
        return ...
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a range; give START:STOP for each dimension, such as 0:10,:")
    start, stop, step = (int(number) if number else None for number in match.groups())
    if step not in (None, 1):
        raise ValueError(f"{text!r} has step {step}; only step 1 is served")
    return slice(start, stop)


def _plain(text: str) -> str:
    """Strip enclosing brackets and all spaces but those between digits, where they are a mistake."""
    inner = re.fullmatch(r"\s*[(\[](.*)[)\]]\s*", text, re.DOTALL)
    return re.sub(r"\s*([,:]|^|$)\s*", r"\1", inner[1] if inner else text)
