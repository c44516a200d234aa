"""JSON that others wrote, read strictly: whatever is wrong with it is a ValueError that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def loads(text: str | bytes) -> Any:  # noqa: ANN401 - JSON can be anything
    """Reads a text of JSON, in UTF-8 if it is bytes.

    Python's reader is more lenient than JSON is: it takes the last of two values of one key, the numbers NaN and
    Infinity, and halves of characters, which no file can be written with.

    Raises:
        ValueError: It is not JSON, is ambiguous, or is nested too deep to be read.

    >>> loads(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ValueError: the key 'a' is there twice
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_distinct, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise ValueError(f"not a text in UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    if "\\ud" in decoded or "\\uD" in decoded:
        _check_characters(value)
    return value


def to_message(fields: object, message: M) -> M:
    """Fills a message from the value of its canonical JSON form.

    Raises:
        ValueError: It is none of the message.
    """
    if not isinstance(fields, dict):  # the parser would take a list for a message of nothing
        raise ValueError(f"expected an object, {{…}}; found {_kind(fields)}")  # noqa: TRY004 - of the text
    try:
        return json_format.ParseDict(fields, message)
    except RecursionError:
        raise ValueError("nested too deep") from None
    # Some versions of protobuf let the errors of their own mistakes through.
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(" ".join(str(error).split()).rstrip(".")) from error


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return fields


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _check_characters(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"{half!r} is half of a character: a surrogate without its other half") from None
