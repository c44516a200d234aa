"""The group of all commands, their errors and exit codes, and the commands ``health`` and ``info``."""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import click
from google.protobuf import json_format

import seedbed
from seedbed._files.errors import FileFormatError
from seedbed._show.plot import NotDrawable
from seedbed._wire.credentials import Security
from seedbed.cli import _diff, _explore, _health, _models, _record, _schemes, _security, _serve, _verify
from seedbed.cli._options import bytes_text, connect, echo_rows, json_option, target_options, wait_option
from seedbed.v1 import Limits

OK, FAILED, REFUSED, SERVICE, BUG, INTERRUPTED, PIPE_CLOSED, TERMINATED = 0, 1, 2, 3, 70, 130, 141, 143

HELP = """\
The initial weights of neural networks: the same bits on every device, for every sharding.

A weight is a pure function of the seed, the tensor's name and the element's index. Any region of any tensor can be
sampled anywhere, and the regions fit together bit for bit.

\b
  seedbed serve                                                       serve tensors from this machine
  seedbed get kaiming_normal --shape 4096,4096 --seed 7 -o w.npy      one tensor, or a region of it
  seedbed model gpt2.json -o gpt2.safetensors                         a whole model
  seedbed record --hf-config config.json -o model.json                the model file of any model in PyTorch
  seedbed verify gpt2.safetensors                                     verify a file, bit for bit
  seedbed diff before.safetensors after.safetensors                   where two files differ
"""

EPILOG = """\
Exit codes:

\b
    0  done
    1  verification failed; files differ; not serving
    2  bad usage, a file that cannot be read or written, or an invalid request
    3  the service is unavailable, took too long, or failed
  130  interrupted
  141  the reader of the output closed the pipe, as head does
"""


class _Commands(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click's
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would exit with 1, which means something else here
            raise _PipeClosed from error


class _PipeClosed(Exception):  # noqa: N818
    """The reader of the output closed the pipe."""


@click.group(
    cls=_Commands,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(seedbed.__version__)
def seedbed_command() -> None:
    pass


@seedbed_command.command(short_help="Check whether the service is serving")
@target_options
def health(*, target: str, timeout: float | None) -> None:
    """Check whether the service is serving: exit 0 if it is, 1 if it is not.

    For probes of containers and load balancers. It uses the standard grpc.health.v1. With --wait, it retries until the
    service is serving or the time is over; --timeout applies to each attempt.

    \b
    Example:
      seedbed health --target localhost:50051
    """  # noqa: D301
    security = Security(**{**_security.arguments(), "token": ""})
    reason = _health.not_serving(target, timeout or 5.0, wait_option() or 0.0, security)
    if reason is None:
        click.echo("serving")
        return
    click.echo(f"not serving: {reason}", err=True)
    raise click.exceptions.Exit(FAILED)


@seedbed_command.command(short_help="Show the service's version, backend, device and limits")
@target_options
@json_option
def info(*, target: str, timeout: float | None, as_json: bool) -> None:
    """Show the service's version, backend, device and limits.

    \b
    Example:
      seedbed info --target localhost:50051
    """  # noqa: D301
    with connect(target, timeout) as client:
        server = client.server_info()
    if as_json:
        click.echo(json.dumps(json_format.MessageToDict(server), indent=2))
        return
    echo_rows(
        [
            ("version", server.version),
            ("algorithm versions", ", ".join(map(str, server.algorithm_versions))),
            ("backend", f"{server.backend} ({server.backend_reason})"),
            ("device", server.device),
            ("threads", str(server.threads)),
            *_limit_rows(server.limits),
        ]
    )


def _limit_rows(limits: Limits) -> list[tuple[str, str]]:
    """A server's limits as rows of a table."""
    return [
        ("max dimensions", str(limits.max_dimensions)),
        ("max orthogonal elements", f"{limits.max_orthogonal_elements:,}"),
        ("max request", bytes_text(limits.max_request_bytes)),
        ("max chunk", bytes_text(limits.chunk_bytes)),
        ("max response", _or_no_limit(bytes_text(limits.max_response_bytes), limits.max_response_bytes)),
        ("max tensors per model", _or_no_limit(f"{limits.max_tensors:,}", limits.max_tensors)),
        ("max streams", _or_no_limit(f"{limits.max_streams:,}", limits.max_streams)),
        ("max streams per client", _or_no_limit(f"{limits.max_streams_per_client:,}", limits.max_streams_per_client)),
        ("stall timeout", _or_no_limit(f"{limits.stall_timeout_seconds:g} s", limits.stall_timeout_seconds)),
        ("max connections per address", _or_no_limit(f"{limits.max_connections:,}", limits.max_connections)),
        (
            "max connection age",
            _or_no_limit(f"{limits.max_connection_age_seconds:g} s", limits.max_connection_age_seconds),
        ),
    ]


def _or_no_limit(text: str, value: float) -> str:
    return text if value else "no limit"


seedbed_command.add_command(_serve.command())
seedbed_command.add_command(_schemes.get_group)
seedbed_command.add_command(_schemes.describe_group)
seedbed_command.add_command(_schemes.plot_group)
seedbed_command.add_command(_explore.explore)
seedbed_command.add_command(_models.model)
seedbed_command.add_command(_record.record)
seedbed_command.add_command(_verify.verify)
seedbed_command.add_command(_diff.diff)
seedbed_command.add_command(_security.token)
_schemes.describe_group.add_command(_models.describe_model)
_schemes.plot_group.add_command(_models.plot_file)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code; any failure is one message on standard error."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        with _printed_warnings():
            result = seedbed_command.main(arguments, prog_name="seedbed", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return REFUSED
    except _PipeClosed:
        _drop_output()
        return PIPE_CLOSED
    except Exception as error:
        return _fail(*_explain(error))
    return result if isinstance(result, int) else OK


class _PrintingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"seedbed: {record.getMessage()}", err=True)


@contextlib.contextmanager
def _printed_warnings() -> Iterator[None]:
    """Prints the client's warnings immediately, such as that it is waiting for a service."""
    handler, log = _PrintingHandler(logging.WARNING), logging.getLogger("seedbed")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _explain(error: Exception) -> tuple[int, str]:
    match error:
        case click.Abort():
            return INTERRUPTED, "interrupted"
        case click.ClickException():
            return REFUSED, error.format_message()
        case seedbed.InvalidRequest() | FileFormatError() | NotDrawable():
            return REFUSED, str(error)
        case seedbed.SeedbedError():
            return SERVICE, str(error)
        case OSError():
            prefix = f"{error.filename}: " if error.filename else ""
            return REFUSED, f"{prefix}{error.strerror}" if error.strerror else str(error)
    traceback.print_exception(error)
    return BUG, "this is a bug in Seedbed; please report it with the lines above"


def _drop_output() -> None:
    """Discards the buffered output; otherwise writing it would fail again when the interpreter exits."""
    with contextlib.suppress(OSError):  # standard output may have no file descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(code: int, message: str) -> int:
    click.echo(f"seedbed: {message}", err=True)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    # An exception, so that temporary files are removed.
    raise SystemExit(TERMINATED)
