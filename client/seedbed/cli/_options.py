"""Options that several commands share, and the types of their values."""

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
    """A value that a function reads; what its ``ValueError`` says is shown."""

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
    """An element type by any of its names; what comes of it is Seedbed's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        try:
            return texts.dtype(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None


STANDARD_OUTPUT = Path("-")
DTYPE = _DType(dtypes.NAMES)


def target_options(command: Command) -> Command:
    """Adds whom to ask, and how long to wait."""
    target = click.option(
        "--target", default="local:", envvar="SEEDBED_TARGET", show_default=True, show_envvar=True, metavar="TARGET",
        help="Whom to ask: HOST:PORT, unix:PATH, or local: for this process itself.", callback=_on_host,
    )  # fmt: skip
    timeout = click.option(
        "--timeout", type=float, metavar="SECONDS",
        help="The longest that one call may take, or a GiB of a file; inf for no limit.  [default: 600; health: 5]",
    )  # fmt: skip
    wait = click.option(
        "--wait", type=float, metavar="SECONDS", callback=_remember, expose_value=False,
        help="How long to wait for a service that cannot be reached, within --timeout; 0 gives up at once.  "
        "[env var: SEEDBED_WAIT; default: 300; health: 0]",
    )  # fmt: skip
    connections = click.option(
        "--connections", type=click.IntRange(1, 64), metavar="COUNT", callback=_remember, expose_value=False,
        help="The most connections for one large tensor.  "
        "[env var: SEEDBED_CONNECTIONS; default: 4, or the number of cores if it is less]",
    )  # fmt: skip
    return target(timeout(wait(connections(_security.client_options(command)))))


def _remember(context: click.Context, parameter: click.Parameter, value: float | None) -> None:
    context.meta[f"seedbed.{parameter.name}"] = value


def given_wait() -> float | None:
    """What ``--wait`` was given, to the command that runs."""
    wait: float | None = click.get_current_context().meta["seedbed.wait"]
    return wait


def _on_host(_context: click.Context, _parameter: click.Parameter, target: str) -> str:
    if targets.is_cuda(target):
        remedy = "give local:, which samples on a GPU too if SEEDBED_BACKEND is cupy"
        raise click.BadParameter(f"{target} makes arrays on the GPU, for programs in Python; {remedy}")
    return target


def progress_option(command: Command) -> Command:
    """Adds whether to draw a progress bar."""
    return click.option(
        "--progress/--no-progress", "show_progress", default=None,
        help="Draw a progress bar on standard error, or not.  [default: if it is a terminal and the work is long]",
    )(command)  # fmt: skip


def json_option(command: Command) -> Command:
    """Adds output for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def echo_rows(rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; all columns but the last are as wide as their widest cell."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("   ".join(cells).rstrip())


def plural(count: int, noun: str) -> str:
    """Returns a count of things, ``1 tensor`` or ``1,000 tensors``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


bytes_text, shape_text = descriptions.bytes_text, descriptions.shape_text


def connect(target: str, timeout: float | None) -> seedbed.Client:
    """Connects to the target of `target_options`."""
    given = {"wait": given_wait(), "connections": click.get_current_context().meta["seedbed.connections"]}
    arguments = _security.arguments() | {name: value for name, value in given.items() if value is not None}
    if timeout is not None:
        arguments["timeout"] = timeout
    return seedbed.connect(target, **arguments)
