"""The command ``record``: writes the model file of a PyTorch model."""

import contextlib
import importlib
import inspect
import math
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

import seedbed
from seedbed._ask import texts
from seedbed._files import strict_json
from seedbed._files.errors import FileFormatError
from seedbed._files.writing import create_file
from seedbed._record.emit import literal_bytes
from seedbed.cli._models import model_lines
from seedbed.cli._options import DTYPE, FILE, STANDARD_OUTPUT, Typed, plural
from seedbed.v1 import Model

Build = Callable[[], Any]

_KINDS = {"parts": "in parts", "literal": "literal", "expression": "by expressions"}
_SEEDBED_FOLDER = str(Path(seedbed.__file__).parent)


@click.command(short_help="Record a PyTorch model as a model file")
@click.argument("name", metavar="[MODULE:NAME]", required=False)
@click.option("--hf-config", type=FILE, metavar="FILE", help="Record the model of a transformers config.json.")
@click.option(
    "--hf-model-class", metavar="CLASS",
    help="The transformers class that builds the model of --hf-config.  [default: the first of the file's"
    " architectures, or else AutoModel]",
)  # fmt: skip
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The model file to write; - to print it.")
@click.option(
    "--seed", type=Typed(texts.seed), default="0", show_default=True, metavar="N", help="The seed of all tensors."
)
@click.option(
    "--dtype", type=DTYPE,
    help="torch's default dtype while the code runs, or the dtype of the configuration.  [default: float32, or the"
    " configuration's own]",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Run the code twice, and refuse a model that differs.")
@click.option("--independent-copies", is_flag=True, help="Give copies of a layer their own values.")
def record(
    *, name: str | None, hf_config: Path | None, hf_model_class: str | None, output: Path, seed: int,
    dtype: str | None, check: bool, independent_copies: bool,
) -> None:  # fmt: skip
    """Record how a model's own code initialises it, and write a model file that reproduces its tensors anywhere.

    MODULE:NAME is a function or class without arguments that builds a torch.nn.Module. The module must be installed or
    in the current directory. With --hf-config, the model of a transformers configuration is recorded instead. The code
    runs once, without allocating memory for weights; nothing is downloaded.

    Requires the extra: pip install 'seedbed[torch]'; --hf-config also requires transformers.

    \b
    Examples:
      seedbed record my.package:build -o model.json --seed 7
      seedbed record --hf-config config.json -o model.json --dtype bfloat16
    """  # noqa: D301
    _check_usage(name, hf_config, hf_model_class)
    recorder = _import("torch", "seedbed.torch", "seedbed[torch]")
    # Output of the recorded code must not mix with a model that is printed.
    with _importable_directory(), contextlib.redirect_stdout(sys.stderr):
        build = _from_config(hf_config, hf_model_class, dtype) if hf_config else _from_name(name or "")
        with _located_errors(hf_config or name), _default_dtype(None if hf_config else dtype):
            model: Model = recorder.record(build, seed, check=check, independent_copies=independent_copies)
    _write(output, model)
    click.echo(f"{output}: {_summary(model)}", err=output == STANDARD_OUTPUT)


def _check_usage(name: str | None, hf_config: Path | None, hf_model_class: str | None) -> None:
    if (name is None) == (hf_config is None):
        raise click.UsageError("give either MODULE:NAME, such as my.package:build, or --hf-config config.json")
    if hf_model_class and not hf_config:
        raise click.BadParameter("requires --hf-config", param_hint="--hf-model-class")


def _import(package: str, module: str, requirement: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise click.ClickException(
            f"{package} is not installed, or too old ({error}); run: pip install '{requirement}'"
        ) from error


@contextlib.contextmanager
def _importable_directory() -> Iterator[None]:
    """Makes modules in the current directory importable, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the recorded code may have removed it
            sys.path.remove(folder)


@contextlib.contextmanager
def _default_dtype(name: str | None) -> Iterator[None]:
    import torch  # noqa: PLC0415 - an extra

    before = torch.get_default_dtype()
    if name:
        torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# Code by its name.


def _from_name(text: str) -> Build:
    """Imports ``module:attribute.attribute``."""
    module_name, _, path = text.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        remedy = "; a call is not supported, write a function without arguments instead" if "(" in text else ""
        raise _refused(f"{text!r} is not MODULE:NAME, such as my.package:build{remedy}")
    target: Any = _import_module(module_name)
    for attribute in path.split("."):
        if not hasattr(target, attribute):
            raise _refused(f"{module_name} has no {path!r}: {_label(target)} has no attribute {attribute!r}")
        target = getattr(target, attribute)
    _check_callable(text, target)
    build: Build = target
    return build


def _import_module(name: str) -> ModuleType:
    try:
        with _located_errors(name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _refused(
            f"there is no module {error.name!r}; run the command in the directory that contains it, or install it"
        ) from error


def _label(target: object) -> str:
    return str(getattr(target, "__name__", None) or type(target).__name__)


def _check_callable(text: str, target: object) -> None:
    if not callable(target) or (hasattr(target, "named_parameters") and not inspect.isclass(target)):
        raise _refused(f"{text} is a {type(target).__name__}; give a function or class that builds the module")
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some callables in C have no signature
        return
    required = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise _refused(
            f"{text} needs arguments: {', '.join(required)}; write a function without arguments that passes them"
        )


def _refused(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="MODULE:NAME")


# A configuration of transformers.


def _from_config(path: Path, class_name: str | None, dtype: str | None) -> Build:
    transformers = _import("transformers", "transformers", "transformers>=5")
    fields = _read_config(path)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise _refused_config(
            f"{path}: the installed transformers has no model_type {kind!r}; give the config.json of a model that it "
            "includes, or write a function and give MODULE:NAME"
        )
    with _located_errors(path):
        config = transformers.CONFIG_MAPPING[kind].from_dict(fields)
    if dtype:
        config.dtype = dtype
    name = class_name or _first_architecture(path, fields)
    if name is None:
        return lambda: transformers.AutoModel.from_config(config, trust_remote_code=False)
    model_class = getattr(transformers, name, None)
    # AutoModel.from_config calls this, too. It sets the dtype of the model and of the models within it.
    build = getattr(model_class, "_from_config", None)
    if build is None:
        raise click.BadParameter(
            f"transformers has no model class {name!r}; give another one, such as GPT2LMHeadModel",
            param_hint="--hf-model-class",
        )
    return lambda: build(config)


def _first_architecture(path: Path, fields: dict[str, Any]) -> str | None:
    match fields.get("architectures") or []:
        case []:
            return None
        case [str(name), *_]:
            return name
    raise _refused_config(f"{path}: architectures is not a list of names; correct it, or give --hf-model-class")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        fields = strict_json.load(path)
    except FileFormatError as error:
        raise _refused_config(str(error)) from error
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise _refused_config(f"{path}: not a transformers config.json: it has no model_type")
    return fields


def _refused_config(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--hf-config")


# Errors in the recorded code.


@contextlib.contextmanager
def _located_errors(source: object) -> Iterator[None]:
    """Reports an exception in the recorded code with the line of that code, without a traceback of ours."""
    try:
        yield
    except (seedbed.SeedbedError, click.ClickException):
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _contains(str(error.name), str(source)):
            raise
        line = _last_line(error)
        if line is None:
            raise
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise click.ClickException(f"{source} failed at {line}: {message}") from error


def _contains(package: str, module: str) -> bool:
    """Whether a package is the module, or contains it."""
    return f"{module}.".startswith(f"{package}.")


def _last_line(error: Exception) -> str | None:
    """The innermost line that belongs neither to Seedbed nor to torch; None if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    import torch  # noqa: PLC0415 - an extra

    libraries = (_SEEDBED_FOLDER, str(Path(torch.__file__).parent), "<frozen importlib", importlib.__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


# Output.


def _write(output: Path, model: Model) -> None:
    if output == STANDARD_OUTPUT:
        for line in model_lines(model):
            click.echo(line, nl=False)
        return
    with create_file(output) as file:
        for line in model_lines(model):
            file.write(line.encode())


def _summary(model: Model) -> str:
    counts = Counter(_KINDS.get(str(spec.WhichOneof("scheme")), "by one scheme") for spec in model.tensors)
    order = ["by one scheme", *_KINDS.values()]
    counts_text = ", ".join(f"{counts[kind]:,} {kind}" for kind in order if counts[kind]) or "none"
    elements = sum(math.prod(spec.shape) for spec in model.tensors)
    literals = sum(map(literal_bytes, model.tensors))
    return (
        f"{plural(len(model.tensors), 'tensor')}, {plural(elements, 'parameter')}: {counts_text}; "
        f"{literals / 2**20:.1f} MiB of literals"
    )
