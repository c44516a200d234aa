"""The settings of a server: one table of names, defaults, ranges and help texts.

`Settings` takes its checks from the table; ``seedbed serve`` takes its flags, environment variables and configuration
keys from it. A new setting is one entry here, plus the code that uses it. The command line imports this module on every
run, so it imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

MAX_INT32: Final = 2**31 - 1
MAX_INT64: Final = 2**63 - 1
MAX_SECONDS: Final = 2_000_000  # gRPC counts milliseconds in 32 bits


def _parse_workers(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{text!r} is not a number of workers; give 1 or more, or auto")
    return int(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """A row of the table: how one setting is given and checked.

    Attributes:
        help: The help text, with the default in brackets.
        metavar: The placeholder for the value in the help.
        parse: Converts text to a value; raises ValueError for text that it cannot convert.
        choices: The values that are allowed. Default any.
        least: The smallest value. Default no lower bound.
        most: The largest value. Default no upper bound.
        unlimited: Whether 0 means that there is no limit.
        repeated: Whether the flag may be repeated.
        envvar: The environment variable. Default ``SEEDBED_`` and the setting's name.
    """

    help: str
    metavar: str | None = None
    parse: Callable[[str], Any] = str
    choices: Sequence[str] = ()
    least: float | None = None
    most: float | None = None
    unlimited: bool = False
    repeated: bool = False
    envvar: str | None = None

    def check(self, name: str, value: Any) -> None:  # noqa: ANN401 - settings have several types
        """Checks a value.

        Args:
            name: The setting's name, for the error message.
            value: The value; None is always allowed.

        Raises:
            ValueError: The value is not one of the choices, or is out of range.
        """
        if value is None or isinstance(value, str):
            if value is not None and self.choices and value not in self.choices:
                raise ValueError(f"{name}: {value!r} is unknown; give one of {', '.join(self.choices)}")
            return
        if self.least is None:
            return
        if self.most is None:
            if value < self.least:
                raise ValueError(f"{name}: {value} is less than {self.least:g}")
        elif not self.least <= value <= self.most:  # also rejects NaN
            remedy = "; give 0 for no limit" if self.unlimited else ""
            raise ValueError(f"{name}: {value} is not between {self.least} and {self.most}{remedy}")


def _limit(text: str, metavar: str = "COUNT", most: int = MAX_INT32) -> Option:
    return Option(help=text, metavar=metavar, parse=int, least=0, most=most, unlimited=True)


def _time_limit(text: str) -> Option:
    return Option(help=text, metavar="SECONDS", parse=float, least=0, most=MAX_SECONDS, unlimited=True)


def _file(text: str, envvar: str) -> Option:
    return Option(help=text, metavar="FILE", parse=Path, envvar=envvar)


def _flag(text: str, envvar: str | None = None) -> Option:
    return Option(help=text, parse=bool, envvar=envvar)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a server: keyword arguments named like the options of ``seedbed serve``, with underscores.

    Each worker has its own streams and connections, so the limits apply to each worker separately.

    Raises:
        ValueError: A setting is out of range.

    >>> Settings(max_streams=3).max_streams, Settings().chunk_bytes
    (3, 1048576)
    """

    listen: Annotated[
        Sequence[str],
        Option(
            help="Address: HOST:PORT (port 0 takes a free port) or unix:PATH; may be repeated.  "
            "[default: 127.0.0.1:50051]",
            metavar="HOST:PORT",
            repeated=True,
        ),
    ] = ("127.0.0.1:50051",)
    backend: Annotated[
        str | None,
        Option(
            help="The backend that samples; all produce the same bits.  [default: auto]",
            choices=("auto", "numpy", "numba", "cupy"),
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(
            help="Threads that sample one chunk.  [default: one per core, divided among the workers]",
            parse=int,
            least=1,
        ),
    ] = None
    device: Annotated[
        int | None,
        Option(
            help="The GPU of the cupy backend, counted from 0.  [default: the first, or one per worker]",
            parse=int,
            least=0,
        ),
    ] = None
    chunk_bytes: Annotated[
        int,
        # At least one element of the widest dtype; at most what fits, with its header, into the 4 MiB message that gRPC
        # clients accept by default.
        Option(help="Maximum payload of a chunk.  [default: 1 MiB]", metavar="BYTES", parse=int, least=8, most=3 << 20),
    ] = 1 << 20
    workers: Annotated[
        int | Literal["auto"],
        Option(
            help="Processes that share the ports, each with its own limits and metrics port; auto starts one per two "
            "cores, or one per GPU.  [default: auto]",
            metavar="COUNT",
            parse=_parse_workers,
            least=1,
        ),
    ] = "auto"

    # Clients read SEEDBED_TLS_CERT and the like, and `seedbed health` runs beside the server; hence SEEDBED_SERVER_.
    tls_cert: Annotated[
        Path | None,
        _file("Certificate chain (PEM) to serve over TLS; reloaded when it changes.", "SEEDBED_SERVER_TLS_CERT"),
    ] = None
    tls_key: Annotated[Path | None, _file("Private key (PEM) of the certificate.", "SEEDBED_SERVER_TLS_KEY")] = None
    tls_client_ca: Annotated[
        Path | None,
        _file("Require client certificates issued by these authorities (PEM).", "SEEDBED_SERVER_TLS_CLIENT_CA"),
    ] = None
    tokens: Annotated[
        Path | None,
        _file(
            "Require one of the tokens in this file, made with `seedbed token`; SIGHUP reloads it.  "
            "[default: no token needed]",
            "SEEDBED_SERVER_TOKENS",
        ),
    ] = None
    insecure: Annotated[
        bool,
        _flag(
            "Serve other machines without TLS: anyone who reaches the address may use the server.",
            "SEEDBED_SERVER_INSECURE",
        ),
    ] = False

    max_request_bytes: Annotated[
        int,
        Option(
            help="Maximum size of a request; Seedbed's clients send at most 4 MiB.  [default: 4 MiB]",
            metavar="BYTES",
            parse=int,
            least=4 << 10,
            most=MAX_INT32,
        ),
    ] = 4 << 20
    max_response_bytes: Annotated[
        int, _limit("Maximum size of the elements in one response.  [default: no limit]", "BYTES", MAX_INT64)
    ] = 0
    max_tensors: Annotated[
        int, _limit("Maximum number of tensors in one request.  [default: what fits into it]", most=MAX_INT64)
    ] = 0
    max_orthogonal_elements: Annotated[
        int,
        # The engine's own limit, `engine.MAX_ORTHOGONAL_ELEMENTS`; importing the engine for it would take too long.
        Option(
            help="Maximum number of elements of an orthogonal matrix.  [default, and upper bound: 67108864]",
            metavar="COUNT",
            parse=int,
            least=0,
            most=1 << 26,
        ),
    ] = 1 << 26
    max_streams: Annotated[
        int,
        Option(
            help="Maximum number of open streams.  [default: 256]", metavar="COUNT", parse=int, least=1, most=MAX_INT32
        ),
    ] = 256
    max_streams_per_client: Annotated[
        int, _limit("Maximum number of open streams per client host.  [default: no limit]")
    ] = 0
    stall_timeout: Annotated[
        float,
        _time_limit("End a stream whose client has read nothing for this long; 0 never does.  [default: 300]"),
    ] = 300.0
    max_connections: Annotated[int, _limit("Maximum number of connections to each address.  [default: no limit]")] = 0
    max_connection_age: Annotated[
        float,
        _time_limit("Make clients reconnect after this long; streams in progress finish first.  [default: no limit]"),
    ] = 0.0
    grace: Annotated[
        float,
        Option(
            help="How long streams may continue after SIGTERM.  [default: 30]",
            metavar="SECONDS",
            parse=float,
            least=0,
            most=MAX_SECONDS,
        ),
    ] = 30.0

    metrics: Annotated[
        str | None,
        Option(
            help="Serve Prometheus metrics here; a port alone is for this machine only.  [default: none]",
            metavar="HOST:PORT",
        ),
    ] = None
    traces: Annotated[
        str | None,
        Option(
            help="Send a span per request to this OpenTelemetry collector, such as http://localhost:4317.  "
            "[default: none]",
            metavar="URL",
        ),
    ] = None
    reflection: Annotated[bool, _flag("Enable gRPC server reflection, which grpcurl uses.")] = False
    log_level: Annotated[
        str,
        Option(
            help="What to log to standard error; info adds one line per request.  [default: warning]",
            choices=("debug", "info", "warning", "error"),
        ),
    ] = "warning"
    log_format: Annotated[str, Option(help="Format of the log.  [default: text]", choices=("text", "json"))] = "text"

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            option.check(name, getattr(self, name))


OPTIONS: Final[dict[str, Option]] = {
    name: next(item for item in typing.get_args(hint) if isinstance(item, Option))
    for name, hint in typing.get_type_hints(Settings, include_extras=True).items()
}
"""The table, by the names of the settings."""
