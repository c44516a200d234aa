"""The commands on many tensors: ``model``, ``describe model`` and ``plot file``."""

import fnmatch
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from google.protobuf import json_format

import seedbed
from seedbed import dtypes
from seedbed._ask import literals, texts
from seedbed._ask.regions import region_of
from seedbed._files import checkpoints, provenance, strict_json
from seedbed._files.provenance import name_in_file
from seedbed._files.safetensors import SafetensorsFile, read_safetensors
from seedbed._show import laws
from seedbed.cli._checkpoints import write_checkpoint, write_file
from seedbed.cli._jobs import jobs_option
from seedbed.cli._options import (
    DTYPE,
    FILE,
    STANDARD_OUTPUT,
    Typed,
    bytes_text,
    connect,
    echo_rows,
    json_option,
    matching,
    plural,
    progress_option,
    shape_text,
    target_options,
    tensors_option,
)
from seedbed.cli._progress import Report, adder, progress
from seedbed.common import fields
from seedbed.v1 import Model, Region, TensorDescription, TensorSlice, TensorSpec

_READ_BYTES = 16 << 20  # bytes of a file that are read at once
_MAX_SHARD_SIZE = 5_000_000_000
_SPECS_PER_REQUEST = 1_000
# Suffixes that suggest a file of another format, not a directory.
_OTHER_FILES = {".bin", ".ckpt", ".gguf", ".h5", ".json", ".npy", ".npz", ".pt", ".pth", ".safetensor", ".st"}


def load_model(path: Path) -> Model:
    """Reads a model file: the canonical JSON form of ``seedbed.v1.Model``, with dtypes by any of their names.

    Raises:
        click.ClickException: If it is not a model file; the message names the file and the field.
        OSError: If it cannot be read.
    """
    try:
        model = _parse_model(path.read_bytes())
    except ValueError as error:
        raise click.ClickException(f"{path}: not a model file: {error}") from error
    names: set[str] = set()
    for index, spec in enumerate(model.tensors):
        field = f"{path}: {fields.of_tensor(index)}.name"
        if not spec.name:
            raise click.ClickException(f"{field}: is missing; every tensor in a file needs a name")
        if spec.name in names:
            raise click.ClickException(f"{field}: {spec.name!r} is the name of an earlier tensor; names must differ")
        names.add(spec.name)
    return model


def model_lines(model: Model) -> Iterator[str]:
    """The text of a model file, with one tensor on each line."""
    yield f'{{"name": {json.dumps(model.name)}, "tensors": [\n'
    for number, spec in enumerate(model.tensors, 1):
        comma = "," if number < len(model.tensors) else ""
        yield f"  {json.dumps(json_format.MessageToDict(spec), ensure_ascii=False)}{comma}\n"
    yield "]}\n"


def _parse_model(text: bytes) -> Model:
    content = strict_json.loads(text)
    try:
        return strict_json.to_message(dtypes.in_contract(content), Model())
    except seedbed.InvalidRequest:  # names the field already
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(_message_with_tensor(error, content)) from error


def _message_with_tensor(error: ValueError, content: Any) -> str:  # noqa: ANN401 - JSON can be anything
    """The message of a parser's error, with the tensor that it is about; the parser does not always name it."""
    tensors = content.get("tensors") if isinstance(content, dict) else None
    for index, tensor in enumerate(tensors if isinstance(tensors, list) else []):
        try:
            strict_json.to_message(tensor, TensorSpec())
        except ValueError as tensor_error:
            return f"{fields.of_tensor(index)}: {tensor_error}"
    return str(error)


def _override(model: Model, seed: int | None, dtype: str | None) -> None:
    for spec in model.tensors:
        if seed is not None:
            spec.seed = seed
        if dtype is not None:
            spec.dtype = dtypes.data_type(dtype)


def _fill_in_defaults(model: Model, client: seedbed.Client) -> None:
    """Fills in the fields that a spec leaves to the server, so that the file's metadata is complete."""
    newest = None
    for spec in model.tensors:
        spec.dtype = spec.dtype or dtypes.data_type("float32")
        if spec.HasField("literal"):
            spec.algorithm_version = spec.algorithm_version or literals.VERSION  # the client fills literals itself
        if not spec.algorithm_version:
            newest = newest or client.server_info().algorithm_versions[-1]
            spec.algorithm_version = newest


def _model_file_error(
    path: Path, model: Model, requested: Sequence[TensorSpec], error: seedbed.InvalidRequest
) -> click.ClickException:
    """The error of a refused request, with the field of the model file that it is about.

    Args:
        path: The model file.
        model: The content of the model file.
        requested: The tensors of the request, which the error counts by.
        error: The server's error.
    """
    field = error.field.replace(".spec", "", 1)
    name = ""
    if parts := fields.split(field):
        spec = requested[parts[0]]
        index = [tensor.name for tensor in model.tensors].index(spec.name)
        field = f"{fields.of_tensor(index)}{parts[1]}"
        name = f" (tensor {spec.name!r})"
    return click.ClickException(f"{path}: {field}: {error.description}{name}")


def _parse_size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Parses a number of bytes, such as ``5GB`` or ``2GiB``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(I?)B)?", text.strip().upper())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size; give a number of bytes, such as 5GB, 500MB or 2GiB")
    number, unit, binary = match.groups()
    size = int(Fraction(number) * (1024 if binary else 1000) ** ("KMGT".index(unit) + 1 if unit else 0))
    if size < 1:
        raise click.BadParameter(f"{text!r} is less than a byte")
    return size


def _parse_worker(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Parses this worker's index and the number of workers, such as ``0/4``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not I/N; give the worker's index and the number of workers, such as 0/4")
    worker, workers = map(int, match.groups())
    if worker >= workers:
        raise click.BadParameter(f"there is no worker {text}; workers are counted from 0, so give 0/N to N-1/N")
    return worker, workers


def _select(path: Path, model: Model, patterns: Sequence[str]) -> Model:
    """The tensors whose names match any of the patterns; all tensors, if there are no patterns."""
    names = matching([spec.name for spec in model.tensors], patterns, path)
    return Model(name=model.name, tensors=[spec for spec in model.tensors if spec.name in names])


def _is_directory(output: Path, max_shard_size: int | None, worker: tuple[int, int] | None) -> bool:
    """Whether the output is a directory rather than a file; refuses options and existing paths of the other kind."""
    if output == STANDARD_OUTPUT:
        raise click.BadParameter(
            "a safetensors file cannot be written to standard output, because its pieces are written out of order; "
            "give FILE.safetensors or a directory",
            param_hint="--output",
        )
    is_file = output.suffix == ".safetensors"
    if is_file and (max_shard_size or worker):
        option = "--max-shard-size" if max_shard_size else "--shard"
        raise click.BadParameter(f"{output} is one file, but {option} needs a directory", param_hint="--output")
    if output.suffix.lower() in _OTHER_FILES and not output.exists():
        raise click.BadParameter(
            f"{output} has the name of another file format; give FILE.safetensors for one file, or a directory",
            param_hint="--output",
        )
    if is_file == output.is_dir() and output.exists():
        kind = "a directory" if is_file else "a file"
        raise click.BadParameter(
            f"{output} is {kind}; give FILE.safetensors for one file, or any other name for a directory of files",
            param_hint="--output",
        )
    return not is_file


@click.command(short_help="Sample all tensors of a model file")
@click.argument("file", type=FILE)
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="OUT",
    help="The output: one file if OUT ends in .safetensors, otherwise a directory of files with an index.",
)  # fmt: skip
@click.option(
    "--seed", type=Typed(texts.seed), metavar="N", help="Use this seed for all tensors.  [default: each tensor's own]"
)
@click.option("--dtype", type=DTYPE, help="Use this dtype for all tensors.  [default: each tensor's own]")
@tensors_option
@click.option(
    "--max-shard-size", callback=_parse_size, metavar="SIZE",
    help="The maximum size of a file in a directory, such as 500MB or 2GiB; a larger tensor gets a file to itself."
    "  [default: 5GB]",
)  # fmt: skip
@click.option(
    "--shard", "worker", callback=_parse_worker, metavar="I/N",
    help="Write only worker I's share of a directory, counted from 0: N workers, 0/N to N-1/N, write all of it.",
)  # fmt: skip
@jobs_option
@target_options
@progress_option
def model(
    *, file: Path, output: Path, seed: int | None, dtype: str | None, patterns: tuple[str, ...],
    max_shard_size: int | None, worker: tuple[int, int] | None, jobs: int, target: str, timeout: float | None,
    show_progress: bool | None,
) -> None:  # fmt: skip
    """Sample all tensors of a model file, and write them to a safetensors file or to a directory of several.

    FILE is the canonical JSON form of seedbed.v1.Model. It lists name, shape, dtype, seed and scheme of each tensor:

    \b
      {"name": "tiny", "tensors": [
        {"name": "fc.weight", "shape": [64, 128], "seed": 7, "kaimingNormal": {"mode": "FAN_MODE_FAN_OUT"}},
        {"name": "fc.bias", "shape": [64], "zeros": {}}
      ]}

    A file gets its name only when it is complete. Its metadata holds the recipe of its tensors, for `seedbed verify`.

    A directory is a checkpoint in the format of Hugging Face's libraries: model-00001-of-00004.safetensors and so on,
    and model.safetensors.index.json once all files are complete; or only model.safetensors, if all tensors fit in one
    file. Running the same command again resumes an interrupted run: complete files are kept. Which file holds which
    tensor depends only on FILE, --tensors, --dtype and --max-shard-size. Workers under any scheduler can therefore
    write one checkpoint together, each its own --shard, without communicating.

    \b
    Examples:
      seedbed model examples/gpt2-124m.json -o gpt2.safetensors --seed 7
      seedbed model examples/llama-3.1-8b.json -o llama --max-shard-size 5GB
      seedbed model examples/llama-3.1-8b.json -o llama --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
    """  # noqa: D301
    is_directory = _is_directory(output, max_shard_size, worker)
    whole_model = load_model(file)
    selection = _select(file, whole_model, patterns)
    _override(selection, seed, dtype)
    start = time.monotonic()
    with connect(target, timeout) as client, progress(output.name, show_progress) as report:
        _fill_in_defaults(selection, client)
        _validate(client, file, whole_model, selection)
        shards = checkpoints.plan(selection, max_shard_size or _MAX_SHARD_SIZE if is_directory else sys.maxsize)
        own = checkpoints.share(shards, *worker) if worker else shards
        written, missing = own, 0
        if is_directory:
            written, missing = write_checkpoint(client, output, shards, own, jobs, report)
        else:
            write_file(client, output, shards[0], adder(report, shards[0].size))
    seconds = time.monotonic() - start
    files_text = f"{plural(len(written), 'file')}, " if is_directory else ""
    tensors_text = plural(sum(len(shard.model.tensors) for shard in written), "tensor")
    kept_text = f"; {plural(len(own) - len(written), 'file')} already complete" if len(own) > len(written) else ""
    missing_text = f"; {missing} of {plural(len(shards), 'file')} still missing" if missing else ""
    size_text = bytes_text(sum(shard.size for shard in written))
    click.echo(f"{output}: {files_text}{tensors_text}, {size_text} in {seconds:.1f} s{kept_text}{missing_text}")


def _validate(client: seedbed.Client, file: Path, whole_model: Model, selection: Model) -> None:
    """Lets the server validate all tensors before any file is written, by requesting empty regions."""
    for first in range(0, len(selection.tensors), _SPECS_PER_REQUEST):
        requested = selection.tensors[first : first + _SPECS_PER_REQUEST]
        try:
            list(client.init_model([TensorSlice(spec=spec, region=_empty_region(spec)) for spec in requested]))
        except seedbed.InvalidRequest as error:
            raise _model_file_error(file, whole_model, requested, error) from error


def _empty_region(spec: TensorSpec) -> Region:
    origin = [0] * len(spec.shape)
    return Region(start=origin, stop=origin)


@click.command("model", short_help="All tensors of a model file")
@click.argument("file", type=FILE)
@target_options
@json_option
def describe_model(*, file: Path, target: str, timeout: float | None, as_json: bool) -> None:
    """Show what each tensor of a model file resolves to.

    \b
    Example:
      seedbed describe model examples/gpt2-124m.json
    """  # noqa: D301
    loaded = load_model(file)
    with connect(target, timeout) as client:
        descriptions = [_describe(client, file, loaded, index) for index in range(len(loaded.tensors))]
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
    return spec.name, shape, dtype, str(spec.WhichOneof("scheme")), elements, laws.text(description)


def _describe(client: seedbed.Client, file: Path, loaded: Model, index: int) -> TensorDescription:
    try:
        return client.describe(loaded.tensors[index])
    except seedbed.InvalidRequest as error:
        raise _model_file_error(file, loaded, loaded.tensors, fields.in_model(error, index)) from error


@click.command("file", short_help="The values in a safetensors file")
@click.argument("file", type=FILE)
@click.option(
    "--tensor", "pattern", default="*", metavar="PATTERN", help="Only tensors whose names match, such as *.bias"
)
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="OUT.png", help="The image to write: .png, .svg or .pdf"
)
@target_options
@progress_option
def plot_file(
    *, file: Path, pattern: str, output: Path, target: str, timeout: float | None, show_progress: bool | None
) -> None:
    """Plot the values in a safetensors file, with one panel for each law that they were sampled from.

    \b
    Examples:
      seedbed plot file gpt2.safetensors -o gpt2.png
      seedbed plot file gpt2.safetensors --tensor '*.attn.*' -o attention.svg
    """  # noqa: D301
    plot = import_plot(output)
    content = read_safetensors(file)
    request = provenance.read_request(content)
    selection = {
        name: tensor
        for name, tensor in provenance.slices(request).items()
        if name in content.tensors and fnmatch.fnmatchcase(name, pattern)
    }
    if not selection:
        raise click.BadParameter(f"no tensor in {file} matches {pattern!r}", param_hint="--tensor")
    with connect(target, timeout) as client, progress(f"plot {file.name}", show_progress) as report:
        descriptions = {name: client.describe(tensor.spec, region_of(tensor)) for name, tensor in selection.items()}
        histograms = _count(plot, content, descriptions, report)
    title = (request.name if isinstance(request, Model) else "") or file.name
    plot.draw(histograms, output, title, _subtitle(descriptions))
    click.echo(f"{output}: {plural(len(histograms), 'law')}, {plural(len(selection), 'tensor')}")


def _count(
    plot: ModuleType, content: SafetensorsFile, descriptions: dict[str, TensorDescription], report: Report
) -> list[Any]:
    total = sum(content.tensors[name].stop - content.tensors[name].start for name in descriptions)
    elements: dict[Any, int] = {}
    for description in descriptions.values():
        key = laws.key(description)
        elements[key] = elements.get(key, 0) + description.element_count
    histograms: dict[Any, Any] = {}
    done = 0
    for name, description in descriptions.items():
        key = laws.key(description)
        histogram = histograms.setdefault(key, plot.LawHistogram(description, elements[key]))
        histogram.names.append(name)
        values = content.open_tensor(name).reshape(-1)
        step = _READ_BYTES // values.itemsize
        for first in range(0, values.size, step):
            piece = values[first : first + step]
            histogram.add(piece)
            done += piece.nbytes
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
    """The module that draws; fails before any work is done if the image cannot be drawn."""
    from seedbed._show import plot as _plot  # noqa: PLC0415

    if output.suffix.lower() not in _plot.SUFFIXES:
        raise click.BadParameter(f"{output} does not end in {', '.join(_plot.SUFFIXES)}", param_hint="--output")
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError as error:
        raise click.ClickException("matplotlib is not installed; run: pip install 'seedbed[plot]'") from error
    return _plot
