"""The form of each scheme, and parsing of the texts typed into it; its fields come from `seedbed._ask.table`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import seedbed
from seedbed._ask import texts as _texts
from seedbed._ask.parameters import Option, Parameter, Scheme
from seedbed._ask.table import OPTIONS, SCHEMES
from seedbed._ask.texts import Slices
from seedbed.v1 import TensorSpec

_SHARED = ("dtype", "seed", "name", "region", "algorithm_version", "stream")
_OPTIONS = {option.name: option for option in OPTIONS}

# Any region of an orthogonal matrix costs as much as all of it; the command line's example is too slow for a page.
_SMALL_EXAMPLES = {"orthogonal": {"shape": "512,512"}}


@dataclass(frozen=True)
class Request:
    """A completed form.

    Attributes:
        scheme: The name of the scheme.
        texts: The text of each non-empty field, in the order of the scheme's fields.
        values: The parsed texts, without the region.
        region: The requested region; None means the whole tensor.
        spec: The request's message.
    """

    scheme: str
    texts: dict[str, str]
    values: dict[str, Any]
    region: Slices | None
    spec: TensorSpec


class FormError(Exception):
    """An invalid form.

    Attributes:
        errors: The error messages, by field name.
    """

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(errors)
        self.errors = errors


def schemes() -> list[dict[str, Any]]:
    """All schemes with their fields, for the page.

    >>> [field["name"] for field in schemes()[0]["fields"]]
    ['shape', 'val', 'dtype', 'seed', 'name', 'region', 'algorithm_version', 'stream']
    """
    return [
        {"name": name, "text": scheme.text.replace("`", ""), "fields": list(_fields(scheme).values())}
        for name, scheme in SCHEMES.items()
    ]


def read(texts: Mapping[str, str]) -> Request:
    """Parses a form.

    Args:
        texts: The scheme's name under ``scheme``, and the texts of its fields. An empty text means the default, except
            for the shape, where it means a scalar.

    Raises:
        FormError: If a text cannot be parsed, or a field is missing or unknown.
        InvalidRequest: If a value does not fit into the message.

    >>> read({"scheme": "normal", "shape": "4,3", "std": "0.02", "mean": ""}).values
    {'shape': (4, 3), 'std': 0.02}
    """
    name = texts.get("scheme", "")
    if name not in SCHEMES:
        raise FormError({"scheme": f"unknown scheme {name!r}; use one of {', '.join(SCHEMES)}"})
    scheme = SCHEMES[name]
    fields, parameters = _fields(scheme), {parameter.name: parameter for parameter in scheme.parameters}
    stripped = {field: text if field == "name" else text.strip() for field, text in texts.items() if field != "scheme"}
    filled = {field: text for field, text in stripped.items() if text or field == "shape"}
    errors = {field: f"{name} has no field {field!r}" for field in filled if field not in fields}
    errors |= {key: "required" for key, field in fields.items() if field["required"] and key not in filled}
    values: dict[str, Any] = {}
    for field in (field for field in fields if field in filled):
        try:
            values[field] = _value(parameters.get(field), field, filled[field])
        except ValueError as error:
            errors[field] = str(error)
    if errors:
        raise FormError(errors)
    region = values.pop("region", None)
    ordered = {field: filled[field] for field in fields if field in filled}
    return Request(name, ordered, values, region, seedbed.spec(name, **values))


def field_of(scheme: str, path: str) -> str:
    """The field of the form that an `InvalidRequest` is about; empty if there is none.

    >>> field_of("dirac", "spec.shape[1]"), field_of("dirac", "spec.dirac.groups"), field_of("dirac", "target")
    ('shape', 'groups', '')
    """
    fields = _fields(SCHEMES[scheme])
    return next((part for part in re.findall(r"[a-z_]+", path) if part in fields), "")


def _value(parameter: Parameter | None, name: str, text: str) -> object:
    """The value of a text, for a parameter of the scheme or for a field that all schemes share."""
    if parameter is not None:
        return parameter.kind.read(text)
    if name == "shape":
        return _texts.shape(text)
    read = _OPTIONS[name].read
    return text if read is None else read(text)


def _fields(scheme: Scheme) -> dict[str, dict[str, Any]]:
    """The scheme's fields: the shape, the scheme's own parameters, and the fields that all schemes share."""
    example = {"seed": "7", **scheme.command, **_SMALL_EXAMPLES.get(scheme.name, {}), "region": "", "name": ""}
    fields = [
        _field("shape", scheme.shape_help),
        *map(_own_field, scheme.parameters),
        *(_shared_field(_OPTIONS[name]) for name in _SHARED),
    ]
    return {field["name"]: {**field, "example": example.get(field["name"], "")} for field in fields}


def _own_field(parameter: Parameter) -> dict[str, Any]:
    field = _field(parameter.name, parameter.text, parameter.default_text, parameter.kind.choices)
    return {**field, "own": True, "required": parameter.is_required}


def _shared_field(option: Option) -> dict[str, Any]:
    return _field(option.name, option.text_meaning, option.text_default, option.choices)


def _field(name: str, meaning: str, default: str = "", choices: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "name": name,
        "own": False,
        "choices": list(choices),
        "required": name == "shape",
        "default": default,
        "meaning": meaning.replace("`", ""),
    }
