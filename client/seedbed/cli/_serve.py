"""Finds the command ``seedbed serve``, which the package ``seedbed-server`` provides."""

import importlib.metadata

import click


def command() -> click.Command:
    """The installed server's command, or a command that says how to install the server."""
    for entry_point in importlib.metadata.entry_points(group="seedbed.commands", name="serve"):
        try:
            serve: click.Command = entry_point.load()
        except ImportError as error:
            return _missing(str(error))
        return serve
    return _missing("no installed package provides it")


def _missing(reason: str) -> click.Command:
    @click.command(
        "serve",
        short_help="Serve tensors from this machine",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def serve() -> None:
        """Serve tensors; requires the extra: pip install 'seedbed[server]'."""
        raise click.ClickException(f"the server is not installed ({reason}); run: pip install 'seedbed[server]'")

    return serve
