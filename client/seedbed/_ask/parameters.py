"""What a scheme is described by: its parameters, their kinds, and the options that all schemes take.

A kind of parameter knows the Python type, how a value becomes one that a message can carry, and how text is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from seedbed._ask import arguments, texts

REQUIRED: Final = object()
"""The default of a parameter that has none."""


class Kind(Protocol):
    """A kind of parameter."""

    @property
    def annotation(self) -> str:
        """The Python type."""

    @property
    def metavar(self) -> str:
        """What stands for a value in the help of a command."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it allows, if they have names."""

    def convert(self, value: Any, field: str, label: str) -> Any:  # noqa: ANN401 - each kind has its own types
        """A Python value as the message's field holds it.

        Args:
            value: The value.
            field: The field's path, for errors.
            label: What errors call the value.

        Raises:
            InvalidRequest: The field cannot hold it.
        """

    def read(self, text: str) -> Any:  # noqa: ANN401
        """A Python value from text that a person typed.

        Raises:
            ValueError: The text cannot be read; says what to give.
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
    """A name out of several, each of which is a value of an enumeration.

    Args:
        annotation: The ``Literal`` type of the names in `seedbed._types`.
        numbers: The enumeration's values by name.
        refusal: What errors say of another value, with ``{value}`` and ``{names}`` in it.
        is_any_case: Whether "FAN_IN" is "fan_in", too, as in torch.
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
        kind: What values it takes.
        meaning: A phrase without a full stop.
        default: Its default; None leaves the field unset, `REQUIRED` means that there is no default.
        allowed: The range within its kind, which the server enforces; for people.
        is_keyword_only: Whether Python takes it by name alone.
        see: A reference for readers of the Python documentation.
        label: What errors call it, where they speak as torch's do; else its name.
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
        """Its default for people; nothing if it has none, or if unset is the default."""
        if self.is_required or self.default is None:
            return ""
        return "none" if self.default == () else str(self.default)

    def convert(self, value: object, scheme: str) -> Any:  # noqa: ANN401 - as `Kind.convert`
        """A value as the message holds it, None for an unset field."""
        if value is None and self.default is None:
            return None
        return self.kind.convert(value, f"spec.{scheme}.{self.name}", self.label or self.name)


@dataclass(frozen=True)
class Option:
    """A keyword that every scheme takes.

    Attributes:
        name: Its name.
        default: Its default in Python.
        meaning: A sentence of the Python documentation.
        is_in_message: Whether the TensorSpec holds it.
        text_meaning: A sentence for the command line and the web page, where they have it.
        text_default: Its default there.
        metavar: What stands for a value in the help of a command.
        read: Reads a text; None keeps the text.
        choices: The names to choose from, if it has such.
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
        summary: What it makes, in one sentence.
        shape: What its shape must be, beside being the global shape.
        parameters: Its own parameters, in the order of the method's signature.
        details: Further sentences.
        source: The publication that it comes from.
        command: The options of an example on the command line, as texts by name.
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
        """What it makes, in paragraphs."""
        source = f"From {self.source}." if self.source else ""
        return "\n\n".join(filter(None, (self.summary, self.details, source)))

    @property
    def shape_meaning(self) -> str:
        """What its shape is, as a phrase without a full stop."""
        if not self.shape:
            return "The global shape"
        return f"The global shape{', ' if self.shape.startswith(('`', 'in ')) else '; '}{self.shape}"


def numbers_of(enum: EnumTypeWrapper, prefix: str) -> dict[str, Any]:
    """The values of an enumeration by their names in Python, without the unspecified one."""
    return {name.removeprefix(prefix).lower(): value for name, value in enum.items() if value}
