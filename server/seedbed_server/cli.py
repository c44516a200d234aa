"""The command ``seedbed serve``, whose options are the table of settings; the client's command line finds it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import click

from seedbed_server.service.settings import OPTIONS, Option, Settings


class _Parsed(click.ParamType):  # type: ignore[type-arg]  # not generic in older versions of click
    """A value that the setting's own function parses. Click would drop the message of its ValueError."""

    name = "text"

    def __init__(self, option: Option) -> None:
        self._parse = option.parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _click_option(name: str, option: Option) -> click.Option:
    return click.Option(
        [f"--{name.replace('_', '-')}", name],
        type=_click_type(option),
        is_flag=True if option.parse is bool else None,
        multiple=option.repeated,
        metavar=option.metavar,
        help=option.help,
        envvar=option.envvar or f"SEEDBED_{name.upper()}",
        show_envvar=True,
    )


def _click_type(option: Option) -> Any:  # noqa: ANN401 - ParamType is generic only in newer versions of click
    if option.choices:
        return click.Choice(option.choices)
    if option.parse is bool:
        return None  # click's own for flags
    if option.parse is int:
        return click.IntRange(min=None if option.least is None else int(option.least))
    if option.parse is float:
        return click.FloatRange(min=option.least)
    return click.Path(path_type=Path) if option.parse is Path else _Parsed(option)


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
    """The value as it would be typed on the command line, so that click checks it the same way."""
    if not is_list:
        return str(value)
    return [str(item) for item in (value if isinstance(value, list) else [value])]


_CONFIG: Final = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="A TOML file of these options, named like the flags; flags and environment variables override it.",
    envvar="SEEDBED_CONFIG",
    show_envvar=True,
)


@click.command(
    short_help="Serve tensors from this machine",
    params=[*(_click_option(name, option) for name, option in OPTIONS.items()), _CONFIG],
)
def serve(**values: Any) -> None:  # noqa: ANN401
    """Serve tensors until SIGTERM or Ctrl-C, then finish what is in progress.

    Requires the extra: pip install 'seedbed[server]'. Clients on this machine are served in plaintext; an address that
    other machines reach requires TLS, or --insecure. SIGHUP reloads the file of --tokens.

    \b
    Example:
      seedbed serve --listen 0.0.0.0:50051 --tls-cert server.pem --tls-key server.key --tokens tokens
    """  # noqa: D301
    from seedbed_server.service import process  # noqa: PLC0415 - slow to import, and every command imports this module

    chosen = {name: value for name, value in values.items() if value not in (None, ())}
    try:
        process.run(Settings(**chosen))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
