"""Writes ``seedbed/_ask/methods.py`` from the table of schemes; ``make schemes`` runs it, and formats the module."""

from __future__ import annotations

import textwrap
from pathlib import Path

from seedbed._ask.parameters import REQUIRED, Parameter, Scheme
from seedbed._ask.table import OPTIONS, SCHEMES

PATH = Path(__file__).parent / "seedbed" / "_ask" / "methods.py"
_WIDTH = 120

_HEAD = '''"""The schemes' methods, written by ``make schemes`` from `seedbed._ask.table`: edit that instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, SupportsIndex, TypeVar, Unpack

from seedbed._types import (
    BoundsName,
    DistributionName,
    FanModeName,
    NonlinearityName,
    Options,
    Shape,
    TorchFanModeName,
)

R = TypeVar("R")


class SchemeMethods(Generic[R]):
    """One method for each scheme."""

    def _make(self, scheme: str, shape: Shape, parameters: Mapping[str, object], options: Options) -> R:
        raise NotImplementedError
'''


def source() -> str:
    """The text of the module."""
    return _HEAD + "".join(map(_method, SCHEMES.values()))


def _method(scheme: Scheme) -> str:
    values = "{" + ", ".join(f'"{p.name}": {p.name}' for p in scheme.parameters) + "}"
    lines = [
        f"    def {scheme.name}({_parameters(scheme)}) -> R:",
        *textwrap.indent(_documentation(scheme), " " * 8).splitlines(),
        f'        return self._make("{scheme.name}", shape, {values}, options)',
    ]
    return "\n" + "".join(f"{line.rstrip()}\n" for line in lines)


def _parameters(scheme: Scheme) -> str:
    by_place = [_declaration(p) for p in scheme.parameters if not p.is_keyword_only]
    by_name = [_declaration(p) for p in scheme.parameters if p.is_keyword_only]
    star = ["*"] if by_name else []
    return ", ".join(["self", "shape: Shape", *by_place, *star, *by_name, "**options: Unpack[Options]"])


def _declaration(parameter: Parameter) -> str:
    optional = " | None" if parameter.default is None else ""
    declaration = f"{parameter.name}: {parameter.kind.annotation}{optional}"
    if parameter.default is REQUIRED:
        return declaration
    default = f'"{parameter.default}"' if isinstance(parameter.default, str) else repr(parameter.default)
    return f"{declaration} = {default}"


def _documentation(scheme: Scheme) -> str:
    summary, *paragraphs = scheme.text.split("\n\n")
    meanings = {
        "shape": f"{scheme.shape_meaning}.",
        **{p.name: f"{p.text} See {p.see}." if p.see else p.text for p in scheme.parameters},
        **{option.name: option.meaning for option in OPTIONS},
    }
    arguments = "\n".join(_wrapped(f"{name}: {meaning}", 4, 8) for name, meaning in meanings.items())
    body = "\n\n".join([summary, *map(_wrapped, paragraphs), f"Args:\n{arguments}", scheme.example.strip()])
    return f'"""{body}\n"""'


def _wrapped(text: str, first: int = 0, later: int = 0) -> str:
    return textwrap.fill(
        text,
        _WIDTH - 8,
        initial_indent=" " * first,
        subsequent_indent=" " * later,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    PATH.write_text(source(), encoding="utf-8")
