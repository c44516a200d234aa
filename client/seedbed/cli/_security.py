"""The options of TLS and tokens for commands that connect to a server, and the command ``token``."""

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
    """Adds the options of TLS and tokens; `arguments` returns their values."""
    # connect() reads the environment variables itself, because --no-tls has to override all of them.
    for option in (
        _option("--server-name", metavar="NAME", help="The host name that the server's certificate must be for.  "
                "[env var: SEEDBED_TLS_SERVER_NAME; default: the target's host]"),
        _option("--token-file", type=_FILE, metavar="FILE",
                help="A file that holds the access token.  [env var: SEEDBED_TOKEN, SEEDBED_TOKEN_FILE]"),
        _option("--tls-key", type=_FILE, metavar="FILE",
                help="The client certificate's private key.  [env var: SEEDBED_TLS_KEY]"),
        _option("--tls-cert", type=_FILE, metavar="FILE",
                help="The client certificate, for servers that require one.  [env var: SEEDBED_TLS_CERT]"),
        _option("--tls-ca", type=_FILE, metavar="FILE", help="The certificate authorities to trust.  "
                "[env var: SEEDBED_TLS_CA; default: those that this machine trusts]"),
        _option("--tls/--no-tls", default=None, help="Use TLS, or not.  "
                "[env var: SEEDBED_TLS; default: if --tls-ca, --tls-cert or --tls-key is given]"),
    ):  # fmt: skip
        command = option(command)
    return command


def arguments() -> dict[str, Any]:
    """The running command's `client_options`, as arguments of `seedbed.connect`.

    Raises:
        InvalidRequest: If the token file cannot be used.
    """
    options = click.get_current_context().meta[_META]
    file = options["token_file"]
    return {
        "tls": options["tls"],
        "ca": options["tls_ca"],
        "cert": options["tls_cert"],
        "key": options["tls_key"],
        "token": None if file is None else credentials.read_token(file),
        "server_name": options["server_name"],
    }


def token_file() -> Path | None:
    """The running command's token file; None if it was not given."""
    file: Path | None = click.get_current_context().meta[_META]["token_file"]
    return file


def _option(*declarations: str, **attributes: Any) -> Callable[[Command], Command]:  # noqa: ANN401
    return click.option(*declarations, callback=_remember, expose_value=False, **attributes)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    context.meta.setdefault(_META, {})[parameter.name] = value


@click.command(short_help="Create an access token for a server's --tokens")
@click.argument("name")
def token(*, name: str) -> None:
    """Create an access token, and the line for the server's --tokens file that accepts it.

    The line holds only a hash of the token, so the token cannot be recovered: it is printed once. NAME says whose token
    it is.

    \b
    Example:
      seedbed token alice
    """  # noqa: D301
    if not re.fullmatch(r"[\w.@-]+", name, re.ASCII):
        raise click.BadParameter(f"{name!r} is not a name; use letters, digits and . _ @ - only")
    secret = f"seedbed_{secrets.token_urlsafe(32)}"
    click.echo("The token, for SEEDBED_TOKEN or the file of --token-file; it is not shown again:", err=True)
    click.echo(secret)
    click.echo("Append this line to the server's --tokens file, then send the server SIGHUP:", err=True)
    click.echo(f"{name}:{hashlib.sha256(secret.encode()).hexdigest()}")
