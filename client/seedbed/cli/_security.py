"""Options of TLS and tokens for the commands that connect to a server; and the command that makes tokens."""

import hashlib
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from seedbed._wire import credentials

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_META = "seedbed.security"


def client_options(command: Command) -> Command:
    """Adds what `seedbed.connect` takes for TLS and tokens; `arguments` gives it."""
    # connect() reads the variables itself, for a command may be told --no-tls whatever they say.
    for option in (
        _option("--server-name", metavar="NAME", help="The name that a server's certificate has to be for.  "
                "[env var: SEEDBED_TLS_SERVER_NAME; default: the target's host]"),
        _option("--token-file", type=_FILE, metavar="FILE",
                help="A file with the token to show.  [env var: SEEDBED_TOKEN, SEEDBED_TOKEN_FILE]"),
        _option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key.  [env var: SEEDBED_TLS_KEY]"),
        _option("--tls-cert", type=_FILE, metavar="FILE",
                help="The certificate to show to a server that asks for one.  [env var: SEEDBED_TLS_CERT]"),
        _option("--tls-ca", type=_FILE, metavar="FILE", help="The authorities that a server's certificate may come "
                "from.  [env var: SEEDBED_TLS_CA; default: those that this machine trusts]"),
        _option("--tls/--no-tls", default=None, help="Speak TLS, or not.  "
                "[env var: SEEDBED_TLS; default: if one of --tls-ca, --tls-cert, --tls-key is given]"),
    ):  # fmt: skip
        command = option(command)
    return command


def arguments() -> dict[str, Any]:
    """The arguments of `seedbed.connect` that `client_options` were given, to the command that runs.

    Raises:
        InvalidRequest: The token's file cannot be used.
    """
    given = click.get_current_context().meta[_META]
    file = given["token_file"]
    return {
        "tls": given["tls"],
        "ca": given["tls_ca"],
        "cert": given["tls_cert"],
        "key": given["tls_key"],
        "token": None if file is None else credentials.read_token(file),
        "server_name": given["server_name"],
    }


def token_file() -> Path | None:
    """The file of the token that `client_options` were given, to the command that runs."""
    file: Path | None = click.get_current_context().meta[_META]["token_file"]
    return file


def _option(*declarations: str, **attributes: Any) -> Callable[[Command], Command]:  # noqa: ANN401
    return click.option(*declarations, callback=_remember, expose_value=False, **attributes)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    context.meta.setdefault(_META, {})[parameter.name] = value


@click.command(short_help="Make a token for a server's --tokens")
@click.argument("name")
def token(*, name: str) -> None:
    """Make a token, and the line of a server's file of --tokens that accepts it.

    The line holds a hash, from which nobody makes the token again: it is shown this once. NAME tells you whose it is.

    \b
    Example:
      seedbed token alice
    """  # noqa: D301
    if not re.fullmatch(r"[\w.@-]+", name, re.ASCII):
        raise click.BadParameter(f"{name!r} is not a name; give letters, digits and . _ @ -")
    made = f"seedbed_{secrets.token_urlsafe(32)}"
    click.echo("The token, for SEEDBED_TOKEN or the file of --token-file; it is not shown again:", err=True)
    click.echo(made)
    click.echo("The line to append to the server's file of --tokens, before it gets SIGHUP:", err=True)
    click.echo(f"{name}:{hashlib.sha256(made.encode()).hexdigest()}")
