"""What there is to fill in: the options of the command line, of each scheme, and what their texts mean.

The fields, their defaults, meanings and examples are those of ``seedbed describe SCHEME``, which come from the client's
methods; a new scheme there is a new form here.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

import seedbed
from seedbed._ask.schemes import Options
from seedbed._show import descriptions
from seedbed.cli import _schemes
from seedbed.cli._options import Slices
from seedbed.v1 import TensorSpec

_SHARED = ("shape", "dtype", "seed", "name", "region", "algorithm_version", "stream")
_DEFAULT = re.compile(r"\s*\[default: (?P<text>.*)\]$")

# Any part of an orthogonal matrix costs as much as all of it; the command line's example would be large for a page.
_QUICK = {"orthogonal": {"shape": "512,512"}}


@dataclass(frozen=True)
class Request:
    """A form filled in.

    Attributes:
        scheme: its name.
        texts: what was typed into each field that was not left empty, in the order of the scheme's fields.
        values: what those texts mean; without the region.
        region: the part wanted; None means all of it.
        spec: the message.
    """

    scheme: str
    texts: dict[str, str]
    values: dict[str, Any]
    region: Slices | None
    spec: TensorSpec


class FormError(Exception):
    """A form that cannot be sent.

    Attributes:
        errors: what is wrong, by the field's name.
    """

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(errors)
        self.errors = errors


def schemes() -> list[dict[str, Any]]:
    """Returns each scheme with its fields, for the page.

    >>> [field["name"] for field in schemes()[0]["fields"]]
    ['shape', 'val', 'dtype', 'seed', 'name', 'region', 'algorithm_version', 'stream']
    """
    return [
        {"name": name, "text": _text(_command(name)), "fields": list(_fields(name).values())}
        for name in seedbed.SCHEMES
    ]


def read(texts: Mapping[str, str]) -> Request:
    """Reads a form.

    Args:
        texts: the scheme's name under ``scheme``, and what was typed into its fields; an empty text means the default,
            but in the shape, where it means a scalar's.

    Raises:
        FormError: a text cannot be read, a field is missing or not one of the scheme's.
        InvalidRequest: a message cannot carry a value.

    >>> read({"scheme": "normal", "shape": "4,3", "std": "0.02", "mean": ""}).values
    {'shape': (4, 3), 'std': 0.02}
    """
    scheme = texts.get("scheme", "")
    if scheme not in seedbed.SCHEMES:
        raise FormError({"scheme": f"unknown scheme {scheme!r}; use one of {', '.join(seedbed.SCHEMES)}"})
    fields = _fields(scheme)
    plain = {name: text if name == "name" else text.strip() for name, text in texts.items() if name != "scheme"}
    given = {name: text for name, text in plain.items() if text or name == "shape"}
    errors = {name: f"{scheme} has no field {name!r}" for name in given if name not in fields}
    errors |= {name: "needed" for name, field in fields.items() if field["required"] and name not in given}
    values: dict[str, Any] = {}
    options = {option.name: option for option in _command(scheme).params}
    for name in fields:
        if name not in given:
            continue
        try:
            values[name] = options[name].type(given[name], options[name], None)
        except click.BadParameter as error:
            errors[name] = error.message
    if errors:
        raise FormError(errors)
    region = values.pop("region", None)
    in_order = {name: given[name] for name in fields if name in given}
    return Request(scheme, in_order, values, region, seedbed.spec(scheme, **values))


def field_of(scheme: str, path: str) -> str:
    """Returns the field of the form that an `InvalidRequest` is about, or an empty text.

    >>> field_of("dirac", "spec.shape[1]"), field_of("dirac", "spec.dirac.groups"), field_of("dirac", "target")
    ('shape', 'groups', '')
    """
    fields = _fields(scheme)
    return next((part for part in re.findall(r"[a-z_]+", path) if part in fields), "")


def _command(scheme: str) -> click.Command:
    return _schemes.describe_group.commands[scheme]


def _text(command: click.Command) -> str:
    paragraphs = (command.help or "").partition("\n\n\b\n")[0].split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _fields(scheme: str) -> dict[str, dict[str, Any]]:
    """Returns the scheme's fields: the shape, its own parameters, and what all schemes have."""
    command = _command(scheme)
    example = _example(command)
    options = {option.name: option for option in command.params if isinstance(option, click.Option)}
    shared = {"self", *_SHARED, *Options.__annotations__}
    own = [name for name in inspect.signature(getattr(seedbed.Client, scheme)).parameters if name not in shared]
    return {name: _field(scheme, options[name], example.get(name, "")) for name in ("shape", *own, *_SHARED[1:])}


def _field(scheme: str, option: click.Option, example: str) -> dict[str, Any]:
    meaning = option.help or ""
    default = _DEFAULT.search(meaning)
    return {
        "name": option.name,
        "own": option.name not in _SHARED,
        "choices": _choices(scheme, option),
        "required": option.required,
        "default": default["text"] if default else "",
        "meaning": _DEFAULT.sub("", meaning),
        "example": example,
    }


def _choices(scheme: str, option: click.Option) -> list[str]:
    if isinstance(option.type, click.Choice):
        return [str(choice) for choice in option.type.choices]
    message: Any = TensorSpec.DESCRIPTOR.fields_by_name[scheme].message_type
    field = message.fields_by_name.get(option.name)
    if field is None or field.enum_type is None:
        return []
    names = [descriptions.enum_name(value.name, field) for value in field.enum_type.values if value.number]
    # A parameter may take some members only, kaiming's mode for one; its help lists those.
    return [name for name in names if re.search(rf"\b{name}\b", option.help or "")]


def _example(command: click.Command) -> dict[str, str]:
    """Returns the texts of the example in the command's help, those that show a tensor as a whole and of its own."""
    line = (command.help or "").splitlines()[-1]
    words = shlex.split(line)[3:]
    given = {flag[2:].replace("-", "_"): text for flag, text in zip(words[::2], words[1::2], strict=True)}
    return {"seed": "7", **given, **_QUICK.get(str(command.name), {}), "region": "", "name": ""}
