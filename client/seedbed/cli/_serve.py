"""The command ``seedbed serve``, which the server's package brings: here is what finds it."""

import importlib.metadata

import click


def command() -> click.Command:
    """The installed server's command, or one that says how to install the server."""
    for entry_point in importlib.metadata.entry_points(group="seedbed.commands", name="serve"):
        try:
            found: click.Command = entry_point.load()
        except ImportError as error:
            return _missing(str(error))
        return found
    return _missing("no package brings it")


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
