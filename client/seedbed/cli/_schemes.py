"""The commands get, describe and plot: one subcommand for each scheme, generated from the client's methods.

Parameters, defaults and help come from the signatures and docstrings of `seedbed._ask.schemes`: a new scheme there is a
new subcommand here.
"""

import inspect
import json
import re
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
from seedbed._ask.schemes import Options
from seedbed._files.tensors import create_npy, create_safetensors, write_npy_header
from seedbed._show import descriptions, laws
from seedbed.cli import _provenance
from seedbed.cli._jobs import patience
from seedbed.cli._models import import_plot
from seedbed.cli._options import (
    DTYPE,
    FILE,
    STANDARD_OUTPUT,
    Slices,
    bytes_text,
    connect,
    echo_rows,
    json_option,
    parse_axes,
    parse_region,
    parse_seed,
    parse_shape,
    progress_option,
    shape_text,
    target_options,
)
from seedbed.cli._progress import Add, adder, progress
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec

Array = np.ndarray[Any, Any]
Run = Callable[..., None]
Decorator = Callable[[Any], Any]

# What makes an example of a scheme; the others are at home in any matrix.
_EXAMPLES = {
    "constant": "--shape 768 --val 0.5",
    "ones": "--shape 768",
    "zeros": "--shape 768",
    "eye": "--shape 512,512",
    "dirac": "--shape 64,64,3,3",
    "delta_orthogonal": "--shape 64,64,3,3 --seed 7",
    "disk": "--shape 4096,4096 --radius 0.02 --dtype complex64 --seed 7",
    "uniform": "--shape 4096,4096 --a -0.1 --b 0.1 --seed 7",
    "normal": "--shape 50257,768 --std 0.02 --seed 7 --name wte.weight",
    "trunc_normal": "--shape 197,768 --std 0.02 --a -2 --b 2 --bounds sigma --seed 7",
    "kaiming_uniform": "--shape 64,3,7,7 --nonlinearity relu --seed 7",
    "kaiming_normal": "--shape 4096,4096 --mode fan_out --nonlinearity relu --seed 7 --region 1024:2048,:",
    "permutation": "--shape 50257 --seed 7",
    "sparse": "--shape 512,512 --sparsity 0.9 --seed 7",
    "variance_scaling": "--shape 768,3072 --scale 1 --mode fan_in --distribution truncated_normal --seed 7",
}
_EXAMPLE = "--shape 4096,4096 --seed 7"
_IN_MESSAGE = ("seed", "name", "dtype", "algorithm_version", "stream")


def _group(name: str, short: str, text: str, *, run: Run, output: str, options: Sequence[Decorator]) -> click.Group:
    """Returns a command with a subcommand for each scheme, which calls ``run(spec=…, region=…, …)``."""
    group = click.Group(name, help=text, short_help=short, subcommand_metavar="SCHEME [OPTIONS]")
    for scheme in seedbed.SCHEMES:
        group.add_command(_command(f"seedbed {name}", scheme, run, output, options))
    return group


def _command(program: str, scheme: str, run: Run, output: str, options: Sequence[Decorator]) -> click.Command:
    method = getattr(seedbed.Client, scheme)
    text, meanings = _documentation(method)
    shared = {"self", "shape", *Options.__annotations__}
    own = [parameter for name, parameter in inspect.signature(method).parameters.items() if name not in shared]

    def callback(**values: Any) -> None:  # noqa: ANN401
        parameters = {parameter.name: values.pop(parameter.name) for parameter in own}
        parameters |= {name: values.pop(name) for name in _IN_MESSAGE}
        given = {name: value for name, value in parameters.items() if value is not None}
        run(spec=seedbed.spec(scheme, values.pop("shape"), **given), **values)

    for decorate in reversed(options):
        callback = decorate(callback)
    command = click.command(
        scheme,
        help=f"{text}\n\n\b\nExample:\n  {program} {scheme} {_EXAMPLES.get(scheme, _EXAMPLE)}{output}",
        short_help=text.partition("\n\n")[0].rstrip("."),
    )(callback)
    command.params[:0] = [_shape(meanings["shape"]), *(_option(scheme, p, meanings[p.name]) for p in own), *_COMMON]
    return command


def _documentation(method: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Returns the text of a docstring before its arguments, and the meaning of each argument."""
    head, _, rest = inspect.cleandoc(method.__doc__ or "").replace("`", "").partition("Args:\n")
    arguments = inspect.cleandoc(re.split(r"\n(?=\S)", rest)[0])
    meanings: dict[str, str] = {}
    for line in re.split(r"\n(?=\w+: )", arguments):
        name, _, meaning = line.partition(": ")
        # What points into the Python interface is of no use here.
        meanings[name.strip()] = re.sub(r" See Client\.\w+\.", "", " ".join(meaning.split()))
    return head.strip(), meanings


def _shape(meaning: str) -> click.Option:
    text = f"{meaning.rstrip('.')}. Give the dimensions, as in 4096,4096; '' is a scalar's."
    return click.Option(["--shape"], type=parse_shape, required=True, metavar="N,N,…", help=text)


def _option(scheme: str, parameter: inspect.Parameter, meaning: str) -> click.Option:
    annotation = str(parameter.annotation)
    kind: Any = str
    metavar = "NAME"
    if annotation.startswith("float"):
        kind, metavar = float, "NUMBER"
    elif "Iterable" in annotation:
        kind, metavar = parse_axes, "N,N,…"
    elif annotation == "SupportsIndex":
        kind, metavar = int, "N"
    else:
        meaning += _choices(scheme, parameter.name, meaning)
    required = parameter.default is parameter.empty
    if not required and parameter.default is not None:
        default = parameter.default if parameter.default != () else "none"
        meaning += f"  [default: {default}]"
    flag = f"--{parameter.name.replace('_', '-')}"
    return click.Option([flag, parameter.name], type=kind, required=required, metavar=metavar, help=meaning)


def _choices(scheme: str, name: str, meaning: str) -> str:
    """Returns the names of an enumeration, where the parameter's documentation does not list them."""
    message = TensorSpec.DESCRIPTOR.fields_by_name[scheme].message_type
    field: Any = message.fields_by_name[name]  # type: ignore[union-attr]  # a scheme is a message
    names = [descriptions.enum_name(value.name, field) for value in field.enum_type.values if value.number]
    return "" if any(f'"{choice}"' in meaning for choice in names) else f" One of {', '.join(names)}."


_COMMON = [
    click.Option(
        ["--seed"], type=parse_seed, metavar="N", help="Any integer in 0 .. 2^64 - 1, also as 0x….  [default: 0]"
    ),
    click.Option(["--name"], help="The tensor's name; tensors of other names are independent of it.  [default: none]"),
    click.Option(["--dtype"], type=DTYPE, help="The type of the elements.  [default: float32]"),
    click.Option(
        ["--algorithm-version"], type=int, metavar="N", help="The version of the stream.  [default: the newest]"
    ),
    click.Option(["--stream"], help="The name that is hashed in place of the tensor's own.  [default: its own]"),
    click.Option(
        ["--region"],
        type=parse_region,
        metavar="START:STOP,…",
        help="The part wanted: a range for each dimension, as in 0:10,: or 5:,...  [default: all of it]",
    ),
]


def _get(
    *, spec: TensorSpec, region: Slices | None, output: Path, target: str, timeout: float | None,
    show_progress: bool | None,
) -> None:  # fmt: skip
    _check_output(output)
    start = time.monotonic()
    with connect(target, timeout) as client, progress(output.name, show_progress) as report:
        description = client.describe(spec, region)
        made = TensorSlice(spec=description.spec, region=None if region is None else description.region)
        add = adder(report, description.byte_count)
        longest = patience(client, description.byte_count)
        if output == STANDARD_OUTPUT:
            _pipe(client, made, description, longest, add)
        else:
            _write(client, output, made, description, longest, add)
    seconds = time.monotonic() - start
    shape = shape_text(_extents(description))
    click.echo(
        f"{output}: {shape} {dtypes.name_of(description.spec.dtype)}, {laws.text(description)}, "
        f"{bytes_text(description.byte_count)} in {seconds:.1f} s",
        err=output == STANDARD_OUTPUT,
    )


def _check_output(output: Path) -> None:
    if output != STANDARD_OUTPUT and output.suffix not in (".npy", ".safetensors"):
        raise click.BadParameter(
            f"{output} does not end in .npy or .safetensors; - is a .npy file to standard output",
            param_hint="--output",
        )
    if output == STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.BadParameter(
            "- would write a .npy file to this terminal; send it on, as in -o - | python load.py, or give FILE.npy",
            param_hint="--output",
        )


def _write(
    client: seedbed.Client, output: Path, made: TensorSlice, description: TensorDescription, longest: float | None,
    add: Add,
) -> None:  # fmt: skip
    with _create(output, made, description) as write:

        def use(_index: int, first: int, values: Array) -> None:
            write(first, values)
            add(values.nbytes)

        client.visit([made], use, timeout=longest)


def _pipe(
    client: seedbed.Client, made: TensorSlice, description: TensorDescription, longest: float | None, add: Add
) -> None:
    """Writes a .npy file to standard output, piece after piece, for a pipe has no places."""
    file = sys.stdout.buffer
    write_npy_header(file, dtypes.numpy_dtype(made.spec.dtype), _extents(description))
    for _, values in client.iter_chunks(made.spec, region=description.region, timeout=longest):
        file.write(values.view(np.uint8).data)
        add(values.nbytes)
    file.flush()


@contextmanager
def _create(output: Path, made: TensorSlice, description: TensorDescription) -> Iterator[Callable[[int, Array], None]]:
    dtype, shape = dtypes.numpy_dtype(description.spec.dtype), _extents(description)
    if output.suffix == ".npy":
        with create_npy(output, dtype, shape) as write:
            yield write
        return
    name = _provenance.name_in_file(made.spec)
    with create_safetensors(output, {name: (dtype, shape)}, _provenance.metadata(made)) as write_to:
        yield partial(write_to, name)


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
    part = "" if region is None else f" of {shape_text(spec.shape)}"
    facts = [
        f"{shape_text(_extents(description))}{part}",
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


def _extents(description: TensorDescription) -> tuple[int, ...]:
    region = description.region
    return tuple(stop - start for start, stop in zip(region.start, region.stop, strict=True))


get_group = _group(
    "get",
    "Make one tensor, or a region of it",
    """Make one tensor, or a region of it, and write it to a .npy or .safetensors file.

    `seedbed get SCHEME --help` explains a scheme. A safetensors file keeps in its metadata how it was made, for
    `seedbed verify`. The output gets its name only when it is complete.

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
            help="What to write: a .npy or .safetensors file; - for a .npy file on standard output.",
        ),
        target_options,
        progress_option,
    ],
)

describe_group = _group(
    "describe",
    "Tell what a request resolves to",
    """Tell what a request resolves to, without making anything: law, bounds, std, fans, gain, elements, bytes.

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
    "Draw a tensor's histogram and its law's density",
    """Draw a tensor's histogram with the density of its law over it.

    Needs the extra: pip install 'seedbed[plot]'.

    \b
    Examples:
      seedbed plot trunc_normal --shape 512,512 --std 0.5 --seed 7 -o w.png
      seedbed plot file gpt2.safetensors -o gpt2.png
    """,
    run=_plot,
    output=" -o w.png",
    options=[
        click.option(
            "-o", "--output", type=FILE, required=True, metavar="FILE", help="The picture: a .png, .svg or .pdf file."
        ),
        target_options,
        progress_option,
    ],
)
