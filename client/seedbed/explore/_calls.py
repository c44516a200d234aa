"""The Python call and the command line that reproduce the tensor of a form."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

from seedbed._ask.texts import Slices
from seedbed.explore._form import Request

_WIDTH = 56


@dataclass(frozen=True)
class Connection:
    """How the page connects to the service, for the calls that it shows.

    Attributes:
        target: The target, as for `seedbed.connect`.
        arguments: The other arguments of `seedbed.connect` that were given, except the token, which is secret.
        token_file: The file that holds the token.
    """

    target: str
    arguments: dict[str, Any]
    token_file: Path | None = None


def python(request: Request, connection: Connection) -> str:
    """A Python program that reproduces the tensor.

    >>> from seedbed.explore._form import read
    >>> print(python(read({"scheme": "eye", "shape": "3,3", "region": "1:,:"}), Connection("local:", {})))
    import numpy as np
    import seedbed
    <BLANKLINE>
    with seedbed.connect("local:") as client:
        w = client.eye((3, 3), region=np.s_[1:, :])
    """
    imports = ["import numpy as np"] if request.region is not None else []
    connect = [_literal(connection.target)]
    connect += [f"{name}={_literal(value)}" for name, value in connection.arguments.items()]
    if connection.token_file is not None:
        imports.insert(0, "from pathlib import Path\n")
        connect.append(f"token=Path({_literal(connection.token_file)}).read_text().strip()")
    values = dict(request.values)
    arguments = [repr(values.pop("shape")), *(f"{name}={_literal(value)}" for name, value in values.items())]
    if request.region is not None:
        arguments.append(f"region=np.s_[{_slices(request.region)}]")
    return "\n".join(
        [
            *imports,
            "import seedbed\n",
            f"with {_call('seedbed.connect', connect, '')} as client:",
            f"    w = {_call(f'client.{request.scheme}', arguments, '    ')}",
        ]
    )


def command(request: Request, connection: Connection) -> str:
    r"""The command that reproduces the tensor.

    >>> from seedbed.explore._form import read
    >>> print(command(read({"scheme": "normal", "shape": "4,3", "name": "a b"}), Connection("local:", {})))
    seedbed get normal --shape 4,3 --name 'a b' \
        -o w.safetensors
    """
    options = [[f"--{name.replace('_', '-')}", text] for name, text in request.texts.items()]
    if connection.target != "local:":
        options.append(["--target", connection.target])
    options += [_option(name, value) for name, value in connection.arguments.items()]
    if connection.token_file is not None:
        options.append(["--token-file", str(connection.token_file)])
    lines = [f"seedbed get {request.scheme}"]
    for text in map(shlex.join, [*options, ["-o", "w.safetensors"]]):
        if len(lines[-1]) + len(text) < _WIDTH - 2:
            lines[-1] += f" {text}"
        else:
            lines.append(f"    {text}")
    return " \\\n".join(lines)


def _option(name: str, value: object) -> list[str]:
    if name == "tls":
        return ["--tls" if value else "--no-tls"]
    return [f"--{'tls-' if name in ('ca', 'cert', 'key') else ''}{name.replace('_', '-')}", str(value)]


def _call(function: str, arguments: list[str], indent: str) -> str:
    line = f"{function}({', '.join(arguments)})"
    if len(indent) + len(line) <= _WIDTH:
        return line
    return f"{function}(\n" + "".join(f"{indent}    {argument},\n" for argument in arguments) + f"{indent})"


def _literal(value: object) -> str:
    if isinstance(value, str | Path):
        text = repr(str(value))
        return f'"{text[1:-1]}"' if '"' not in text and "\\" not in text else text
    return repr(value)


def _slices(region: Slices) -> str:
    return ", ".join(_slice(part) for part in region)


def _slice(part: slice | EllipsisType) -> str:
    if not isinstance(part, slice):
        return "..."
    return f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"
