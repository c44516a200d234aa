"""The commands ``get``, ``describe`` and ``plot``, with a subcommand for each scheme of `seedbed._ask.table`."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from google.protobuf import json_format

import seedbed
from seedbed import dtypes
from seedbed._ask import texts
from seedbed._ask.parameters import Option, Parameter, Scheme
from seedbed._ask.regions import extents
from seedbed._ask.table import OPTIONS, SCHEMES
from seedbed._ask.texts import Slices
from seedbed._files import provenance
from seedbed._files.npy import create_npy, write_npy_header
from seedbed._files.safetensors import create_safetensors
from seedbed._show import descriptions, laws
from seedbed.cli._jobs import file_timeout
from seedbed.cli._models import import_plot
from seedbed.cli._options import (
    DTYPE,
    FILE,
    STANDARD_OUTPUT,
    Typed,
    bytes_text,
    connect,
    echo_rows,
    json_option,
    progress_option,
    shape_text,
    target_options,
)
from seedbed.cli._progress import Add, adder, progress
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec

Array = np.ndarray[Any, Any]
Run = Callable[..., None]
Decorator = Callable[[Any], Any]

_IN_MESSAGE = tuple(option.name for option in OPTIONS if option.is_in_message)


def _group(name: str, short: str, text: str, *, run: Run, output: str, options: Sequence[Decorator]) -> click.Group:
    """A command with a subcommand for each scheme, which calls ``run(spec=…, region=…, …)``."""
    group = click.Group(name, help=text, short_help=short, subcommand_metavar="SCHEME [OPTIONS]")
    for scheme in SCHEMES.values():
        group.add_command(_command(f"seedbed {name}", scheme, run, output, options))
    return group


def _command(program: str, scheme: Scheme, run: Run, output: str, options: Sequence[Decorator]) -> click.Command:
    def callback(**values: Any) -> None:  # noqa: ANN401
        parameters = {parameter.name: values.pop(parameter.name) for parameter in scheme.parameters}
        parameters |= {name: values.pop(name) for name in _IN_MESSAGE}
        arguments = {name: value for name, value in parameters.items() if value is not None}
        run(spec=seedbed.spec(scheme.name, values.pop("shape"), **arguments), **values)

    for decorate in reversed(options):
        callback = decorate(callback)
    example = " ".join(f"--{name} {text}" for name, text in scheme.command.items())
    command = click.command(
        scheme.name,
        help=f"{_plain(scheme.text)}\n\n\b\nExample:\n  {program} {scheme.name} {example}{output}",
        short_help=_plain(scheme.summary).rstrip("."),
    )(callback)
    shared = [_shared_option(option) for option in OPTIONS if option.text_meaning]
    command.params[:0] = [_shape(scheme), *map(_option, scheme.parameters), *shared]
    return command


def _plain(text: str) -> str:
    """A text without the backticks of the Python documentation."""
    return text.replace("`", "")


def _shape(scheme: Scheme) -> click.Option:
    text = _plain(scheme.shape_help)
    return click.Option(["--shape"], type=Typed(texts.shape), required=True, metavar="N,N,…", help=text)


def _option(parameter: Parameter) -> click.Option:
    default = f"  [default: {parameter.default_text}]" if parameter.default_text else ""
    return click.Option(
        [f"--{parameter.name.replace('_', '-')}", parameter.name],
        type=Typed(parameter.kind.read),
        required=parameter.is_required,
        metavar=parameter.kind.metavar,
        help=_plain(parameter.text) + default,
    )


def _shared_option(option: Option) -> click.Option:
    return click.Option(
        [f"--{option.name.replace('_', '-')}"],
        type=DTYPE if option.choices else Typed(option.read) if option.read else str,
        metavar=option.metavar or None,
        help=f"{option.text_meaning}  [default: {option.text_default}]",
    )


def _get(
    *, spec: TensorSpec, region: Slices | None, output: Path, target: str, timeout: float | None,
    show_progress: bool | None,
) -> None:  # fmt: skip
    _check_output(output)
    start = time.monotonic()
    with connect(target, timeout) as client, progress(output.name, show_progress) as report:
        description = client.describe(spec, region)
        request = TensorSlice(spec=description.spec, region=None if region is None else description.region)
        add = adder(report, description.byte_count)
        seconds_allowed = file_timeout(client, description.byte_count)
        if output == STANDARD_OUTPUT:
            _write_to_stdout(client, request, description, seconds_allowed, add)
        else:
            _write_file(client, output, request, description, seconds_allowed, add)
    seconds = time.monotonic() - start
    shape = shape_text(extents(description))
    click.echo(
        f"{output}: {shape} {dtypes.name_of(description.spec.dtype)}, {laws.text(description)}, "
        f"{bytes_text(description.byte_count)} in {seconds:.1f} s",
        err=output == STANDARD_OUTPUT,
    )


def _check_output(output: Path) -> None:
    if output != STANDARD_OUTPUT and output.suffix not in (".npy", ".safetensors"):
        raise click.BadParameter(
            f"{output} does not end in .npy or .safetensors; give - for a .npy file on standard output",
            param_hint="--output",
        )
    if output == STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.BadParameter(
            "- would write a .npy file to this terminal; pipe it, as in -o - | python load.py, or give FILE.npy",
            param_hint="--output",
        )


def _write_file(
    client: seedbed.Client, output: Path, request: TensorSlice, description: TensorDescription, timeout: float | None,
    add: Add,
) -> None:  # fmt: skip
    with _create(output, request, description) as write:

        def write_piece(_index: int, first: int, values: Array) -> None:
            write(first, values)
            add(values.nbytes)

        client.visit([request], write_piece, timeout=timeout)


def _write_to_stdout(
    client: seedbed.Client, request: TensorSlice, description: TensorDescription, timeout: float | None, add: Add
) -> None:
    """Writes a .npy file to standard output, in order, because pipes do not support random access."""
    file = sys.stdout.buffer
    write_npy_header(file, dtypes.numpy_dtype(request.spec.dtype), extents(description))
    for _, values in client.iter_chunks(request.spec, region=description.region, timeout=timeout):
        file.write(values.view(np.uint8).data)
        add(values.nbytes)
    file.flush()


@contextmanager
def _create(
    output: Path, request: TensorSlice, description: TensorDescription
) -> Iterator[Callable[[int, Array], None]]:
    dtype, shape = dtypes.numpy_dtype(description.spec.dtype), extents(description)
    if output.suffix == ".npy":
        with create_npy(output, dtype, shape) as write:
            yield write
        return
    name = provenance.name_in_file(request.spec)
    with create_safetensors(output, {name: (dtype, shape)}, provenance.metadata(request)) as write:
        yield partial(write, name)


def _describe(
    *, spec: TensorSpec, region: Slices | None, target: str, timeout: float | None, as_json: bool
) -> None:  # fmt: skip
    with connect(target, timeout) as client:
        description = client.describe(spec, region)
    if as_json:
        click.echo(json.dumps(json_format.MessageToDict(description), indent=2))
        return
    echo_rows(descriptions.rows(description, with_region=region is not None))


def _plot(
    *, spec: TensorSpec, region: Slices | None, output: Path, target: str, timeout: float | None,
    show_progress: bool | None,
) -> None:  # fmt: skip
    plot = import_plot(output)
    with connect(target, timeout) as client, progress(output.name, show_progress) as report:
        description = client.describe(spec, region)
        histogram = plot.LawHistogram(description)
        done = 0
        for _, values in client.iter_chunks(description.spec, region=description.region):
            histogram.add(values)
            done += values.nbytes
            report(done, description.byte_count)
    whole = "" if region is None else f" of {shape_text(spec.shape)}"
    facts = [
        f"{shape_text(extents(description))}{whole}",
        dtypes.name_of(description.spec.dtype),
        f"seed {spec.seed}",
    ]
    if spec.name:
        plot.draw([histogram], output, spec.name, "   ".join([descriptions.scheme_text(spec), *facts]))
    else:
        plot.draw([histogram], output, descriptions.scheme_text(spec), "   ".join(facts))
    click.echo(
        f"{output}: {laws.text(description)}, {histogram.size:,} elements, "
        f"{'real parts: ' if laws.is_complex(description) else ''}"
        f"mean {histogram.mean:.5g}, std {histogram.std:.5g}"
    )


get_group = _group(
    "get",
    "Sample one tensor, or a region of it",
    """Sample one tensor, or a region of it, and write it to a .npy or .safetensors file.

    `seedbed get SCHEME --help` explains a scheme. The metadata of a safetensors file holds the recipe of its tensor,
    for `seedbed verify`. The output gets its name only when it is complete.

    \b
    Examples:
      seedbed get kaiming_normal --shape 4096,4096 --seed 7 --name fc.weight --dtype bfloat16 -o w.safetensors
      seedbed get normal --shape 4096,4096 --seed 7 -o - | ssh host 'cat > w.npy'
    """,
    run=_get,
    output=" -o w.safetensors",
    options=[
        click.option(
            "-o",
            "--output",
            type=FILE,
            required=True,
            metavar="FILE",
            help="The output: a .npy or .safetensors file; - for a .npy file on standard output.",
        ),
        target_options,
        progress_option,
    ],
)

describe_group = _group(
    "describe",
    "Show what a request resolves to",
    """Show what a request resolves to, without sampling: law, bounds, std, fans, gain, elements, bytes.

    \b
    Examples:
      seedbed describe xavier_uniform --shape 768,3072
      seedbed describe model examples/gpt2-124m.json
    """,
    run=_describe,
    output="",
    options=[target_options, json_option],
)

plot_group = _group(
    "plot",
    "Plot a tensor's histogram and its law's density",
    """Plot a tensor's histogram, overlaid with the density of its law.

    Requires the extra: pip install 'seedbed[plot]'.

    \b
    Examples:
      seedbed plot trunc_normal --shape 512,512 --std 0.5 --seed 7 -o w.png
      seedbed plot file gpt2.safetensors -o gpt2.png
    """,
    run=_plot,
    output=" -o w.png",
    options=[
        click.option(
            "-o", "--output", type=FILE, required=True, metavar="FILE", help="The image: a .png, .svg or .pdf file."
        ),
        target_options,
        progress_option,
    ],
)
