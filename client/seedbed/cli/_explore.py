"""The command ``explore``: a web page that shows any tensor."""

import contextlib
import socket
import threading
import webbrowser
from typing import Any

import click

import seedbed
from seedbed.cli import _security
from seedbed.cli._options import connect, target_options, wait_option

_TIMEOUT = 30.0  # seconds; shorter than for files, because somebody is looking at the page


def _parse_address(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not an address; give HOST:PORT, such as 127.0.0.1:8077")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


@click.command(short_help="Explore any tensor in the browser")
@click.option(
    "--listen", default="127.0.0.1:8077", show_default=True, metavar="HOST:PORT", callback=_parse_address,
    help="Where to serve the page: a loopback address; port 0 chooses a free port.",
)  # fmt: skip
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser, or not.  [default: open it]")
@target_options
def explore(*, listen: tuple[str, int], browser: bool, target: str, timeout: float | None) -> None:
    """Serve a web page that shows any tensor: its histogram with the law, an image, and the calls that reproduce it.

    Requires the extra: pip install 'seedbed[explore]'. The page is accessible from this machine only and loads nothing
    from elsewhere. Its URL holds the request, so it can be bookmarked. Calls to the service may take 30 seconds, unless
    --timeout is given. Press Ctrl-C to stop.

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
            f"{listen[0]} is not a loopback address; give 127.0.0.1, and from another machine use "
            f"ssh -L {listen[1]}:127.0.0.1:{listen[1]} HOST",
            param_hint="--listen",
        )
    with connect(target, _TIMEOUT if timeout is None else timeout) as client, _bind(*listen) as listener:
        app = _app.application(client, _calls.Connection(target, **_public_options()))
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none",
            proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        client.init(seedbed.spec("normal", (1,)))  # fails early if the service is unavailable, and warms it up
        url = _url(listener)
        click.echo(f"exploring at {url} (press Ctrl-C to stop)")
        if browser:
            # In a separate thread, because a terminal browser would block this one.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        # uvicorn stops on SIGINT and SIGTERM, and then raises them again.
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
            f"{host}:{port} is unavailable: {error.strerror}; give another, or --listen 127.0.0.1:0 for a free port"
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _public_options() -> dict[str, Any]:
    """The connection's options that the page's calls show: all but the token."""
    options = {**_security.arguments(), "wait": wait_option()}
    public = {name: value for name, value in options.items() if name != "token" and value is not None}
    return {"arguments": public, "token_file": _security.token_file()}
