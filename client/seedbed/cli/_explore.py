"""The command explore: a page for looking at any tensor."""

import contextlib
import socket
import threading
import webbrowser
from typing import Any

import click

import seedbed
from seedbed.cli import _security
from seedbed.cli._options import connect, given_wait, target_options

_SECONDS = 30.0  # a page should not wait for as long as a file may


def _listen(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not an address; give HOST:PORT, such as 127.0.0.1:8077")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


@click.command(short_help="Look at any tensor in the browser")
@click.option(
    "--listen", default="127.0.0.1:8077", show_default=True, metavar="HOST:PORT", callback=_listen,
    help="Where to serve the page: an address of this machine alone; port 0 takes a free one.",
)  # fmt: skip
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser, or not.  [default: open it]")
@target_options
def explore(*, listen: tuple[str, int], browser: bool, target: str, timeout: float | None) -> None:
    """Serve a page for looking at any tensor: its histogram against the law, its picture, and the calls that make it.

    Needs the extra: pip install 'seedbed[explore]'. The page is for this machine alone and loads nothing from
    elsewhere; its address keeps what is shown. What it asks the service may take 30 seconds, unless --timeout says
    otherwise. Ctrl-C ends it.

    \b
    Example:
      seedbed explore
    """  # noqa: D301
    try:
        import uvicorn  # noqa: PLC0415

        from seedbed.explore import _app, _calls  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException(
            f"the page is not installed ({error}); run: pip install 'seedbed[explore]'"
        ) from error
    if not _app.is_loopback(listen[0]):
        raise click.BadParameter(
            f"{listen[0]} is not this machine alone; give 127.0.0.1, and from another machine: "
            f"ssh -L {listen[1]}:127.0.0.1:{listen[1]} HOST",
            param_hint="--listen",
        )
    with connect(target, _SECONDS if timeout is None else timeout) as client, _bind(*listen) as listener:
        app = _app.application(client, _calls.Connection(target, **_connection_shown()))
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none",
            proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        client.init(seedbed.spec("normal", (1,)))  # tells whether somebody answers, and loads what samples
        url = _url(listener)
        click.echo(f"exploring at {url} (Ctrl-C ends it)")
        if browser:
            # In a thread of its own: a browser for terminals would keep this one from serving the page.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        # uvicorn stops at SIGINT and SIGTERM, and then raises them again.
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            uvicorn.Server(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    address = "127.0.0.1" if host == "localhost" else host
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise click.ClickException(
            f"{host}:{port} cannot be had: {error.strerror}; give another address, --listen 127.0.0.1:0 for any"
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _connection_shown() -> dict[str, Any]:
    """What the calls on the page tell of TLS, tokens and waiting: no token."""
    arguments = {**_security.arguments(), "wait": given_wait()}
    given = {name: value for name, value in arguments.items() if name != "token" and value is not None}
    return {"arguments": given, "token_file": _security.token_file()}
