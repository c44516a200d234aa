"""The types of the table of schemes: schemes, their parameters and kinds, and the options of all schemes.

A kind of parameter defines its Python type, the conversion to a value for the message, and the parsing of text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from seedbed._ask import arguments, texts

REQUIRED: Final = object()
"""Marks a parameter without a default."""


class Kind(Protocol):
    """A kind of parameter."""

    @property
    def annotation(self) -> str:
        """The Python type."""

    @property
    def metavar(self) -> str:
        """The placeholder for a value in the help of a command."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of the allowed values, if they have names."""

    def convert(self, value: Any, field: str, label: str) -> Any:  # noqa: ANN401 - each kind has its own types
        """Convert a Python value to one that the message's field can hold.

        Args:
            value: The value.
            field: The field's path, for errors.
            label: The value's name in errors.

        Raises:
            InvalidRequest: The field cannot hold it.
        """

    def read(self, text: str) -> Any:  # noqa: ANN401
        """Parse text that a user typed.

        Raises:
            ValueError: The text is invalid; the message says what to give.
        """


@dataclass(frozen=True)
class Number:
    """A float64."""

    annotation: str = "float"
    metavar: str = "NUMBER"
    choices: tuple[str, ...] = ()

    def convert(self, value: object, field: str, label: str) -> float:
        return arguments.number(value, field, label)

    def read(self, text: str) -> float:
        return texts.number(text)


@dataclass(frozen=True)
class Integer:
    """An integer within a range."""

    allowed: range
    annotation: str = "SupportsIndex"
    metavar: str = "N"
    choices: tuple[str, ...] = ()

    def convert(self, value: object, field: str, label: str) -> int:
        return arguments.integer(value, field, label, self.allowed)

    def read(self, text: str) -> int:
        return texts.integer(text)


@dataclass(frozen=True)
class Axes:
    """One axis or several."""

    annotation: str = "SupportsIndex | Iterable[SupportsIndex]"
    metavar: str = "N,N,…"
    choices: tuple[str, ...] = ()

    def convert(self, value: Any, field: str, label: str) -> Any:  # noqa: ANN401
        return arguments.axes(value, field)

    def read(self, text: str) -> tuple[int, ...]:
        return texts.axes(text)


@dataclass(frozen=True)
class Choice:
    """One of the names of an enumeration's values.

    Args:
        annotation: The ``Literal`` type of the names in `seedbed._types`.
        numbers: The enumeration's values by name.
        refusal: The error for any other value, with the placeholders ``{value}`` and ``{names}``.
        is_any_case: Whether "FAN_IN" also means "fan_in", as in torch.
    """

    annotation: str
    numbers: Mapping[str, int]
    refusal: str
    is_any_case: bool = False
    metavar: str = "NAME"

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.numbers)

    def convert(self, value: object, field: str, label: str) -> int:
        name = value.lower() if self.is_any_case and isinstance(value, str) else value
        return arguments.choice(name, self.numbers, field, self.refusal)

    def read(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Parameter:
    """A parameter of one scheme.

    Attributes:
        name: Its name, in Python and in the contract.
        kind: The kind of its values.
        meaning: A phrase without a full stop.
        default: Its default; None leaves the field unset, `REQUIRED` means that there is none.
        allowed: The allowed range, which the server enforces, as a phrase.
        is_keyword_only: Whether it is keyword-only in Python.
        see: A reference for the Python documentation.
        label: Its name in errors, where torch's differs from ours; default its name.
    """

    name: str
    kind: Kind
    meaning: str
    default: object = REQUIRED
    allowed: str = ""
    is_keyword_only: bool = False
    see: str = ""
    label: str = ""

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED

    @property
    def text(self) -> str:
        """Its meaning, range and choices as sentences."""
        text = f"{self.meaning}; {self.allowed}." if self.allowed else f"{self.meaning}."
        if self.kind.choices and not any(f'"{name}"' in self.meaning for name in self.kind.choices):
            text += f" One of {', '.join(self.kind.choices)}."
        return text

    @property
    def default_text(self) -> str:
        """Its default as text; empty if there is none, or if the default leaves the field unset."""
        if self.is_required or self.default is None:
            return ""
        return "none" if self.default == () else str(self.default)

    def convert(self, value: object, scheme: str) -> Any:  # noqa: ANN401 - as `Kind.convert`
        """Convert a value for the message; None leaves the field unset."""
        if value is None and self.default is None:
            return None
        return self.kind.convert(value, f"spec.{scheme}.{self.name}", self.label or self.name)


@dataclass(frozen=True)
class Option:
    """A keyword of every scheme.

    Attributes:
        name: Its name.
        default: Its default in Python.
        meaning: A sentence for the Python documentation.
        is_in_message: Whether it is a field of TensorSpec.
        text_meaning: A sentence for the command line and the web page, if they have the option.
        text_default: Its default there.
        metavar: The placeholder for a value in the help of a command.
        read: Parses text; None keeps the text.
        choices: The names to choose from, if it is a choice.
    """

    name: str
    default: object
    meaning: str
    is_in_message: bool = False
    text_meaning: str = ""
    text_default: str = ""
    metavar: str = ""
    read: Callable[[str], object] | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scheme:
    """A scheme.

    Attributes:
        name: Its name: the method, the subcommand, and the field of TensorSpec.
        summary: A sentence about its values.
        shape: The requirements on its shape.
        parameters: Its parameters, in the order of the method's signature.
        details: Further sentences.
        source: The publication that introduced it.
        command: The options of an example on the command line, by name.
        example: A doctest.
    """

    name: str
    summary: str
    example: str
    shape: str = ""
    parameters: tuple[Parameter, ...] = ()
    details: str = ""
    source: str = ""
    command: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Its description, in paragraphs."""
        source = f"From {self.source}." if self.source else ""
        return "\n\n".join(filter(None, (self.summary, self.details, source)))

    @property
    def shape_meaning(self) -> str:
        """The meaning of its shape, as a phrase without a full stop."""
        if not self.shape:
            return "The global shape"
        return f"The global shape{', ' if self.shape.startswith(('`', 'in ')) else '; '}{self.shape}"

    @property
    def shape_help(self) -> str:
        """The help on its shape, as a text of dimensions."""
        return f"{self.shape_meaning}. Give the dimensions, such as 4096,4096; '' means a scalar."


def numbers_of(enum: EnumTypeWrapper, prefix: str) -> dict[str, Any]:
    """The values of an enumeration by their Python names, without the unspecified one."""
    return {name.removeprefix(prefix).lower(): value for name, value in enum.items() if value}
