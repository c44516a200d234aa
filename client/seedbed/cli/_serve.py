"""Options of ``seedbed serve``: its limits, what it tells operators, and the file that may hold them all."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import click

from seedbed.cli._options import Command, bytes_text
from seedbed.v1 import Limits

_COUNT = click.IntRange(min=0)
_SECONDS = click.FloatRange(min=0)


def limit_options(command: Command) -> Command:
    """Adds the server's limits, and how long it lets clients take."""
    options = (
        _option(
            "--max-request-bytes", type=_COUNT, metavar="BYTES",
            help="The most bytes of a request; our clients send at most 4 MiB.  [default: 4 MiB]",
        ),
        _option(
            "--max-response-bytes", type=_COUNT, metavar="BYTES",
            help="The most bytes of elements in one answer.  [default: no limit]",
        ),
        _option(
            "--max-tensors", type=_COUNT, metavar="COUNT",
            help="The most tensors in one request.  [default: what fits into it]",
        ),
        _option(
            "--max-orthogonal-elements", type=_COUNT, metavar="COUNT",
            help="The most elements of an orthogonal matrix.  [default, and at most: 67108864]",
        ),
        _option(
            "--max-streams", type=click.IntRange(min=1), metavar="COUNT",
            help="The most streams open at once.  [default: 256]",
        ),
        _option(
            "--max-streams-per-client", type=_COUNT, metavar="COUNT",
            help="The most of them to one host.  [default: no limit but that of all]",
        ),
        _option(
            "--stall-timeout", type=_SECONDS, metavar="SECONDS",
            help="End streams that their clients do not read for so long; 0 for never.  [default: 300]",
        ),
        _option(
            "--max-connections", type=_COUNT, metavar="COUNT",
            help="The most connections to each address.  [default: no limit]",
        ),
        _option(
            "--max-connection-age", type=_SECONDS, metavar="SECONDS",
            help="Let clients connect anew after so long, streams in progress finished.  [default: never]",
        ),
        _option(
            "--grace", type=_SECONDS, metavar="SECONDS",
            help="How long streams in progress may go on after SIGTERM.  [default: 30]",
        ),
    )  # fmt: skip
    return _with(command, options)


def observing_options(command: Command) -> Command:
    """Adds what the server tells operators."""
    options = (
        _option(
            "--metrics", metavar="HOST:PORT",
            help="Serve metrics for Prometheus there; a port alone is for this machine only.  [default: none]",
        ),
        _option(
            "--traces", metavar="URL",
            help="Send a span for each request to this collector of OpenTelemetry, such as http://localhost:4317.  "
            "[default: none]",
        ),
        _option("--reflection", is_flag=True, help="Tell the contract to clients that ask for it, as grpcurl does."),
        _option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
            help="What to log to standard error; from info on, a line for each request.  [default: warning]",
        ),
        _option("--log-format", type=click.Choice(["text", "json"]), help="How to log.  [default: text]"),
    )  # fmt: skip
    return _with(command, options)


def workers_option(command: Command) -> Command:
    """Adds how many processes serve."""
    option = _option(
        "--workers", callback=_parse_workers, metavar="COUNT",
        help="Processes that share the ports, each with limits and a port of metrics of its own; auto for one for each "
        "two cores, or for each GPU.  [default: auto]",
    )  # fmt: skip
    return cast(Command, option(command))


def _parse_workers(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | str | None:
    """Reads a number of processes, or ``auto``."""
    if text in (None, "auto"):
        return text
    if not (text.isascii() and text.isdigit() and int(text)):
        raise click.BadParameter(f"{text!r} is no number of processes; give 1 or more, or auto")
    return int(text)


def config_option(command: Command) -> Command:
    """Adds a file with values for the other options; flags and the environment count before it."""
    option = _option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", is_eager=True, expose_value=False,
        callback=_read_config,
        help="A TOML file with values for these options, named as the flags; flags and environment count first.",
    )  # fmt: skip
    return cast(Command, option(command))


def limit_rows(limits: Limits) -> list[tuple[str, str]]:
    """Returns a server's limits for people."""
    return [
        ("most dimensions", str(limits.max_dimensions)),
        ("most elements, orthogonal", f"{limits.max_orthogonal_elements:,}"),
        ("largest request", bytes_text(limits.max_request_bytes)),
        ("largest chunk", bytes_text(limits.chunk_bytes)),
        ("largest answer", _or_no_limit(bytes_text(limits.max_response_bytes), limits.max_response_bytes)),
        ("most tensors of a model", _or_no_limit(f"{limits.max_tensors:,}", limits.max_tensors)),
        ("most streams", _or_no_limit(f"{limits.max_streams:,}", limits.max_streams)),
        ("most streams of a client", _or_no_limit(f"{limits.max_streams_per_client:,}", limits.max_streams_per_client)),
        ("longest stall", _or_no_limit(f"{limits.stall_timeout_seconds:g} s", limits.stall_timeout_seconds)),
        ("most connections to an address", _or_no_limit(f"{limits.max_connections:,}", limits.max_connections)),
        (
            "oldest connection",
            _or_no_limit(f"{limits.max_connection_age_seconds:g} s", limits.max_connection_age_seconds),
        ),
    ]


def _or_no_limit(text: str, value: float) -> str:
    return text if value else "no limit"


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Adds options, to be listed in their order."""
    for option in reversed(options):
        command = option(command)
    return command


def _option(flag: str, **attributes: Any) -> Any:  # noqa: ANN401 - as click.option
    envvar = f"SEEDBED_{flag.removeprefix('--').replace('-', '_').upper()}"
    return click.option(flag, envvar=envvar, show_envvar=True, **attributes)


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise click.BadParameter(f"{path} cannot be read: nested too deep") from error
    except (ValueError, OSError) as error:  # not TOML, or not even text
        raise click.BadParameter(f"{path} cannot be read: {error}") from error
    names = {option.opts[-1].removeprefix("--"): str(option.name) for option in context.command.params}
    names.pop(str(parameter.name))
    if unknown := sorted(values.keys() - names.keys()):
        raise click.BadParameter(f"{path}: unknown keys: {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    listed = {str(option.name) for option in context.command.params if option.multiple or option.nargs != 1}
    context.default_map = {names[key]: _as_typed(value, names[key] in listed) for key, value in values.items()}


def _as_typed(value: Any, is_list: bool) -> Any:  # noqa: ANN401
    """The value as if it had been typed, so that click finds the same mistakes in it."""
    if not is_list:
        return str(value)
    return [str(item) for item in (value if isinstance(value, list) else [value])]
