"""Options that several commands share, their types, and how tables are printed."""

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

import seedbed
from seedbed import dtypes
from seedbed._ask import texts
from seedbed._show import descriptions
from seedbed._wire import targets
from seedbed.cli import _security

Command = TypeVar("Command", bound=Callable[..., Any])


class Typed(click.ParamType):  # type: ignore[type-arg]  # older versions of click have no such argument
    """A value that a function parses; the text of its ``ValueError`` is shown."""

    name = "text"

    def __init__(self, read: Callable[[str], object]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:  # noqa: ANN401
        try:
            return self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None


FILE = click.Path(path_type=Path)


class _DType(click.Choice):  # type: ignore[type-arg]  # older versions of click have no such argument
    """A dtype by any of its names, converted to Seedbed's own name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        try:
            return texts.dtype(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None


STANDARD_OUTPUT = Path("-")
DTYPE = _DType(dtypes.NAMES)


def target_options(command: Command) -> Command:
    """Adds the options of the server's address, timeouts and security."""
    target = click.option(
        "--target", default="local:", envvar="SEEDBED_TARGET", show_default=True, show_envvar=True, metavar="TARGET",
        help="Server address: HOST:PORT, unix:PATH, or local: to sample in this process.", callback=_check_target,
    )  # fmt: skip
    timeout = click.option(
        "--timeout", type=float, metavar="SECONDS",
        help="The maximum time for one call, or for each GiB of a file; inf for no limit.  [default: 600; health: 5]",
    )  # fmt: skip
    wait = click.option(
        "--wait", type=float, metavar="SECONDS", callback=_remember, expose_value=False,
        help="How long to wait for an unavailable service, within --timeout; 0 gives up immediately.  "
        "[env var: SEEDBED_WAIT; default: 300; health: 0]",
    )  # fmt: skip
    connections = click.option(
        "--connections", type=click.IntRange(1, 64), metavar="COUNT", callback=_remember, expose_value=False,
        help="The maximum number of connections for one large tensor.  "
        "[env var: SEEDBED_CONNECTIONS; default: 4, or the number of cores if that is smaller]",
    )  # fmt: skip
    return target(timeout(wait(connections(_security.client_options(command)))))


def _remember(context: click.Context, parameter: click.Parameter, value: float | None) -> None:
    context.meta[f"seedbed.{parameter.name}"] = value


def wait_option() -> float | None:
    """The value of ``--wait`` of the running command; None if it was not given."""
    wait: float | None = click.get_current_context().meta["seedbed.wait"]
    return wait


def _check_target(_context: click.Context, _parameter: click.Parameter, target: str) -> str:
    if targets.is_cuda(target):
        remedy = "give local:, which samples on a GPU too if SEEDBED_BACKEND is cupy"
        raise click.BadParameter(f"{target} fills arrays on the GPU, for Python programs only; {remedy}")
    return target


def progress_option(command: Command) -> Command:
    """Adds the option ``--progress``."""
    return click.option(
        "--progress/--no-progress", "show_progress", default=None,
        help="Draw a progress bar on standard error, or not.  [default: if it is a terminal and the work takes time]",
    )(command)  # fmt: skip


def json_option(command: Command) -> Command:
    """Adds the option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def tensors_option(command: Command) -> Command:
    """Adds the option ``--tensors``, whose patterns `matching` applies."""
    return click.option(
        "--tensors", "patterns", multiple=True, metavar="PATTERN",
        help="Only tensors whose names match, such as 'model.layers.[0-3].*'; may be repeated.  [default: all]",
    )(command)  # fmt: skip


def matching(names: Sequence[str], patterns: Sequence[str], source: object) -> set[str]:
    """The names that match any of the patterns; all names, if there are no patterns.

    Args:
        names: The names of the tensors.
        patterns: The values of ``--tensors``.
        source: Where the tensors are, for the error.

    Raises:
        BadParameter: A pattern matches none of the names.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise click.BadParameter(f"no tensor in {source} matches {pattern!r}", param_hint="--tensors")
    return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns or ["*"])}


def echo_rows(rows: Iterable[Sequence[str]]) -> None:
    """Prints a table with aligned columns."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("   ".join(cells).rstrip())


def plural(count: int, noun: str) -> str:
    """A count with its noun, ``1 tensor`` or ``1,000 tensors``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


bytes_text, shape_text = descriptions.bytes_text, descriptions.shape_text


def connect(target: str, timeout: float | None) -> seedbed.Client:
    """Connects to a target with the options of `target_options`."""
    options = {"wait": wait_option(), "connections": click.get_current_context().meta["seedbed.connections"]}
    arguments = _security.arguments() | {name: value for name, value in options.items() if value is not None}
    if timeout is not None:
        arguments["timeout"] = timeout
    return seedbed.connect(target, **arguments)
