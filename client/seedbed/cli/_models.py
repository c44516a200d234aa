"""The commands about many tensors: model, describe model, plot file."""

import contextlib
import fnmatch
import functools
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from google.protobuf import json_format

import seedbed
from seedbed import _laws, dtypes
from seedbed._files import SafetensorsFile, create_safetensors, read_safetensors
from seedbed.cli import _provenance
from seedbed.cli._options import (
    DTYPE,
    FILE,
    bytes_text,
    connect,
    echo_rows,
    json_option,
    parse_seed,
    plural,
    progress_option,
    shape_text,
    target_options,
)
from seedbed.cli._progress import Report, progress
from seedbed.cli._provenance import name_in_file, region_of
from seedbed.v1 import Model, TensorDescription, TensorSpec

_BLOCK_BYTES = 16 << 20  # what is read of a file at once

Array = np.ndarray[Any, Any]


def load_model(path: Path) -> Model:
    """Reads a model file: the canonical JSON form of ``seedbed.v1.Model``.

    Raises:
        click.ClickException: it is not one; the message names the file and the field.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path}: not a text file in UTF-8") from error
    if not text.lstrip().startswith("{"):  # the parser would take a list for an empty model
        raise click.ClickException(f"{path}: not a model file: it does not begin with {{")
    try:
        model = json_format.Parse(text, Model())
    except json_format.ParseError as error:
        raise click.ClickException(f"{path}: not a model file: {_located(error, text)}") from error
    names: set[str] = set()
    for index, spec in enumerate(model.tensors):
        field = f"{path}: tensors[{index}].name"
        if not spec.name:
            raise click.ClickException(f"{field}: is missing; a tensor in a file needs a name")
        if spec.name in names:
            raise click.ClickException(f"{field}: {spec.name!r} is the name of an earlier tensor; names must differ")
        names.add(spec.name)
    return model


def _located(error: json_format.ParseError, text: str) -> str:
    """Says which tensor a parse error is about, which the parser does not always tell."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for index, tensor in enumerate(json.loads(text)["tensors"]):
            try:
                json_format.ParseDict(tensor, TensorSpec())
            except json_format.ParseError as its_error:
                return f"tensors[{index}]: {_one_line(its_error)}"
    return _one_line(error)


def _one_line(error: json_format.ParseError) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _override(model: Model, seed: int | None, dtype: str | None) -> None:
    for spec in model.tensors:
        if seed is not None:
            spec.seed = seed
        if dtype is not None:
            spec.dtype = dtypes.data_type(dtype)


def _complete(model: Model, client: seedbed.Client) -> None:
    """Fills in what a spec leaves to the server, so that the file tells exactly how it was made."""
    newest = None
    for spec in model.tensors:
        spec.dtype = spec.dtype or dtypes.data_type("float32")
        if not spec.algorithm_version:
            newest = newest or client.server_info().algorithm_versions[-1]
            spec.algorithm_version = newest


def _named(path: Path, model: Model, error: seedbed.InvalidRequest) -> click.ClickException:
    """Says of a refusal which field of the model file it means."""
    field = error.field.replace(".spec", "", 1)
    name = ""
    if field.startswith("tensors["):
        index = int(field[len("tensors[") : field.index("]")])
        name = f" (tensor {model.tensors[index].name!r})"
    return click.ClickException(f"{path}: {field}: {error.description}{name}")


@click.command(short_help="Make all tensors of a model file")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT.safetensors", help="The file to write.")
@click.option(
    "--seed", type=parse_seed, metavar="N", help="Use this seed for all tensors.  [default: each tensor's own]"
)
@click.option("--dtype", type=DTYPE, help="Use this dtype for all tensors.  [default: each tensor's own]")
@target_options
@progress_option
def model(
    *, file: Path, output: Path, seed: int | None, dtype: str | None, target: str, timeout: float | None,
    show_progress: bool | None,
) -> None:  # fmt: skip
    """Make all tensors of a model file and write them to a safetensors file.

    FILE is the canonical JSON form of seedbed.v1.Model, which lists name, shape, dtype, seed and scheme of each tensor:

    \b
      {"name": "tiny", "tensors": [
        {"name": "fc.weight", "shape": [64, 128], "seed": 7, "kaimingNormal": {"mode": "FAN_MODE_FAN_OUT"}},
        {"name": "fc.bias", "shape": [64], "zeros": {}}
      ]}

    The output gets its name only when it is complete, and keeps in its metadata how it was made, for `seedbed verify`.

    \b
    Example:
      seedbed model examples/gpt2-124m.json -o gpt2.safetensors --seed 7
    """  # noqa: D301
    wanted = load_model(file)
    _override(wanted, seed, dtype)
    if output.suffix != ".safetensors":
        raise click.BadParameter(f"{output} does not end in .safetensors", param_hint="--output")
    start = time.monotonic()
    with connect(target, timeout) as client, progress(output.name, show_progress) as report:
        _complete(wanted, client)
        try:
            size = _write_model(client, wanted, output, report)
        except seedbed.InvalidRequest as error:
            raise _named(file, wanted, error) from error
    seconds = time.monotonic() - start
    click.echo(f"{output}: {plural(len(wanted.tensors), 'tensor')}, {bytes_text(size)} in {seconds:.1f} s")


def _write_model(client: seedbed.Client, wanted: Model, output: Path, report: Report) -> int:
    """Fills the file tensor by tensor and returns the bytes of its data."""
    sizes: list[int] = []
    with ExitStack() as stack:
        # The file is created when the first tensor arrives: by then the server has found every spec to be sound.
        @functools.cache
        def open_tensor() -> Callable[[str], Array]:
            shapes = {spec.name: (dtypes.numpy_dtype(spec.dtype), tuple(spec.shape)) for spec in wanted.tensors}
            return stack.enter_context(create_safetensors(output, shapes, _provenance.metadata(wanted)))

        for _, array in client.init_model(wanted, out=lambda name: open_tensor()(name), progress=report):  # noqa: PLW0108
            sizes.append(array.nbytes)
        open_tensor()  # a model of no tensors is a file, too
    return sum(sizes)


@click.command("model", short_help="All tensors of a model file")
@click.argument("file", type=FILE)
@target_options
@json_option
def describe_model(*, file: Path, target: str, timeout: float | None, as_json: bool) -> None:
    """Tell what each tensor of a model file resolves to.

    \b
    Example:
      seedbed describe model examples/gpt2-124m.json
    """  # noqa: D301
    wanted = load_model(file)
    with connect(target, timeout) as client:
        descriptions = [_describe(client, file, wanted, index) for index in range(len(wanted.tensors))]
    if as_json:
        click.echo(json.dumps([json_format.MessageToDict(description) for description in descriptions], indent=2))
        return
    echo_rows([("tensor", "shape", "dtype", "scheme", "elements", "law"), *map(_row, descriptions)])
    elements = sum(description.element_count for description in descriptions)
    size = bytes_text(sum(description.byte_count for description in descriptions))
    click.echo(f"\n{plural(len(descriptions), 'tensor')}, {plural(elements, 'element')}, {size}")


def _row(description: TensorDescription) -> tuple[str, ...]:
    spec = description.spec
    shape, dtype, elements = shape_text(spec.shape), dtypes.name_of(spec.dtype), f"{description.element_count:,}"
    return spec.name, shape, dtype, str(spec.WhichOneof("scheme")), elements, _laws.text(description)


def _describe(client: seedbed.Client, file: Path, wanted: Model, index: int) -> TensorDescription:
    try:
        return client.describe(wanted.tensors[index])
    except seedbed.InvalidRequest as error:
        field = error.field.removeprefix("spec").removeprefix(".")
        raise _named(file, wanted, seedbed.InvalidRequest(f"tensors[{index}].{field}", error.description)) from error


@click.command("file", short_help="The values in a safetensors file")
@click.argument("file", type=FILE)
@click.option("--tensor", "pattern", default="*", metavar="PATTERN", help="Only tensors of such names, as in *.bias")
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="OUT.png", help="The picture to write: .png, .svg or .pdf"
)
@target_options
@progress_option
def plot_file(
    *, file: Path, pattern: str, output: Path, target: str, timeout: float | None, show_progress: bool | None
) -> None:
    """Draw the values in a safetensors file, one panel for each law that they were drawn from.

    \b
    Examples:
      seedbed plot file gpt2.safetensors -o gpt2.png
      seedbed plot file gpt2.safetensors --tensor '*.attn.*' -o attention.svg
    """  # noqa: D301
    plot = import_plot(output)
    content = read_safetensors(file)
    made = _provenance.made_by(content)
    wanted = {
        name: part
        for name, part in _provenance.slices(made).items()
        if name in content.tensors and fnmatch.fnmatchcase(name, pattern)
    }
    if not wanted:
        raise click.BadParameter(f"no tensor of {file} is called {pattern!r}", param_hint="--tensor")
    with connect(target, timeout) as client, progress(f"plot {file.name}", show_progress) as report:
        descriptions = {name: client.describe(part.spec, region_of(part)) for name, part in wanted.items()}
        histograms = _count(plot, content, descriptions, report)
    title = (made.name if isinstance(made, Model) else "") or file.name
    plot.draw(histograms, output, title, _subtitle(descriptions))
    click.echo(f"{output}: {plural(len(histograms), 'law')}, {plural(len(wanted), 'tensor')}")


def _count(
    plot: ModuleType, content: SafetensorsFile, descriptions: dict[str, TensorDescription], report: Report
) -> list[Any]:
    total = sum(content.tensors[name].stop - content.tensors[name].start for name in descriptions)
    elements: dict[Any, int] = {}
    for description in descriptions.values():
        key = _laws.key(description)
        elements[key] = elements.get(key, 0) + description.element_count
    histograms: dict[Any, Any] = {}
    done = 0
    for name, description in descriptions.items():
        key = _laws.key(description)
        histogram = histograms.setdefault(key, plot.LawHistogram(description, elements[key]))
        histogram.names.append(name)
        values = content.open_tensor(name).reshape(-1)
        step = _BLOCK_BYTES // values.itemsize
        for first in range(0, values.size, step):
            block = values[first : first + step]
            histogram.add(block)
            done += block.nbytes
            report(done, total)
    return list(histograms.values())


def _subtitle(descriptions: dict[str, TensorDescription]) -> str:
    elements = sum(description.element_count for description in descriptions.values())
    types = sorted({dtypes.name_of(description.spec.dtype) for description in descriptions.values()})
    seeds = sorted({description.spec.seed for description in descriptions.values()})
    tensors = (
        f"{len(descriptions)} tensors"
        if len(descriptions) > 1
        else name_in_file(next(iter(descriptions.values())).spec)
    )
    seed = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"{tensors}   {elements:,} elements   {', '.join(types)}   {seed}"


def import_plot(output: Path) -> ModuleType:
    """Returns the module that draws; refuses, before any work is done, what could not be drawn."""
    from seedbed import _plot  # noqa: PLC0415

    if output.suffix.lower() not in _plot.SUFFIXES:
        raise click.BadParameter(f"{output} does not end in {', '.join(_plot.SUFFIXES)}", param_hint="--output")
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError as error:
        raise click.ClickException("matplotlib is not installed; run: pip install 'seedbed[plot]'") from error
    return _plot
