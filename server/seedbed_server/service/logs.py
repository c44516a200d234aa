"""Log formatting: one line of text, or one JSON object, per record.

Values that a client chose are quoted, so that no request can forge a log line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

Value = str | int | float


def configure(level: str = "warning", log_format: str = "text") -> None:
    """Logs to standard error, unless the process has configured logging already.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``. ``info`` adds one line per request.
        log_format: ``text`` or ``json``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # Libraries log warnings only: at lower levels, compilers log every step.
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("seedbed_server").setLevel(level.upper())


class Fields:
    """A log message made of named fields; formatted as text only if a handler needs text."""

    def __init__(self, fields: Mapping[str, Value]) -> None:
        self.fields = fields

    def __str__(self) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in self.fields.items())


class TextFormatter(logging.Formatter):
    """Formats each record as one line; continuation lines, such as a traceback's, are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(super().format(record).splitlines())


class JsonFormatter(logging.Formatter):
    """Formats each record, including any traceback, as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
        }
        entry |= record.msg.fields if isinstance(record.msg, Fields) else {"message": record.getMessage()}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _quoted(value: Value) -> str:
    r"""A value for a line of text, quoted and escaped unless it is a plain word.

    >>> print(_quoted("InitTensor"), _quoted(7), _quoted('two\nlines of "text"'))
    InitTensor 7 "two\nlines of \"text\""
    """
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return text if text and is_plain else json.dumps(text)
