"""The errors that the engine raises."""

from __future__ import annotations


class InvalidSpec(ValueError):  # noqa: N818 - it names what is wrong, as InvalidRequest does on the client's side
    """An invalid request, refused before any sampling.

    Attributes:
        field: The path of the invalid field, such as ``spec.uniform.b``.
        description: A sentence with the value and the remedy.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class Cancelled(Exception):  # noqa: N818
    """The caller cancelled the request."""
