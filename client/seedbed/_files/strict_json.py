"""A strict reader for JSON from others: whatever is wrong with it raises a ValueError that says what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from seedbed._files.errors import FileFormatError

M = TypeVar("M", bound=Message)


def loads(text: str | bytes) -> Any:  # noqa: ANN401 - JSON can be anything
    """Parses JSON; bytes must be UTF-8.

    Python's own parser is too lenient. It accepts duplicate keys and keeps the last value, the numbers NaN and
    Infinity, and unpaired surrogates, which cannot be encoded.

    Raises:
        ValueError: If it is not JSON, has duplicate keys, or is nested too deeply.

    >>> loads(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ValueError: duplicate key 'a'
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\ud" in decoded or "\\uD" in decoded:
        _check_surrogates(value)
    return value


def load(path: Path) -> Any:  # noqa: ANN401 - JSON can be anything
    """Parses a file.

    Raises:
        FileFormatError: If it is not JSON, as `loads` reads it.
        OSError: If it cannot be read.
    """
    try:
        return loads(path.read_bytes())
    except ValueError as error:
        raise FileFormatError(f"{path}: not JSON: {error}") from error


def to_message(fields: object, message: M) -> M:
    """Fills a message from its parsed canonical JSON form.

    Raises:
        ValueError: If the fields are not those of the message.
    """
    if not isinstance(fields, dict):  # protobuf would parse a list as an empty message
        raise ValueError(f"expected an object, {{…}}; found {_kind(fields)}")  # noqa: TRY004 - the JSON is wrong
    try:
        return json_format.ParseDict(fields, message)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Some versions of protobuf leak other exceptions than ParseError.
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(" ".join(str(error).split()).rstrip(".")) from error


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {duplicate!r}")
    return fields


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start]
        raise ValueError(f"{surrogate!r} is an unpaired surrogate") from None
