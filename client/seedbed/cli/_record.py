"""The command record: the model file of a model that is written in PyTorch."""

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
from seedbed._files.writing import create_file
from seedbed.cli._models import model_lines
from seedbed.cli._options import DTYPE, FILE, STANDARD_OUTPUT, Typed, plural
from seedbed.v1 import Model, Recipe, TensorSpec

Build = Callable[[], Any]

_KINDS = {"parts": "in parts", "literal": "literal", "expression": "by expressions"}
_OURS = str(Path(seedbed.__file__).parent)


@click.command(short_help="Make a model file of a model in PyTorch")
@click.argument("name", metavar="[MODULE:NAME]", required=False)
@click.option("--hf-config", type=FILE, metavar="FILE", help="Record the model of a config.json of transformers.")
@click.option(
    "--hf-model-class", metavar="CLASS",
    help="Which class of transformers makes the model of --hf-config.  [default: the file's architectures, else what"
    " AutoModel takes]",
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
@click.option("--independent-copies", is_flag=True, help="Have copies of a layer draw values of their own.")
def record(
    *, name: str | None, hf_config: Path | None, hf_model_class: str | None, output: Path, seed: int,
    dtype: str | None, check: bool, independent_copies: bool,
) -> None:  # fmt: skip
    """Record how a model's own code initialises it, and write the model file that makes the same tensors anywhere.

    MODULE:NAME is a function or class without arguments that makes a torch.nn.Module, in a module that is installed or
    in the current directory. With --hf-config it is the model of a configuration of transformers. The code runs once,
    without memory for weights; nothing is downloaded.

    Needs the extra: pip install 'seedbed[torch]'; and transformers for --hf-config.

    \b
    Examples:
      seedbed record my.package:build -o model.json --seed 7
      seedbed record --hf-config config.json -o model.json --dtype bfloat16
    """  # noqa: D301
    _check_usage(name, hf_config, hf_model_class)
    recorder = _import("torch", "seedbed.torch", "seedbed[torch]")
    # What the code prints must not become part of a model that is printed.
    with _current_directory(), contextlib.redirect_stdout(sys.stderr):
        build = _from_config(hf_config, hf_model_class, dtype) if hf_config else _named(name or "")
        with _explained(hf_config or name), _default_dtype(None if hf_config else dtype):
            made: Model = recorder.record(build, seed, check=check, independent_copies=independent_copies)
    _write(output, made)
    click.echo(f"{output}: {_summary(made)}", err=output == STANDARD_OUTPUT)


def _check_usage(name: str | None, hf_config: Path | None, hf_model_class: str | None) -> None:
    if (name is None) == (hf_config is None):
        raise click.UsageError("give either MODULE:NAME, such as my.package:build, or --hf-config config.json")
    if hf_model_class and not hf_config:
        raise click.BadParameter("is of --hf-config, which is not given", param_hint="--hf-model-class")


def _import(package: str, module: str, requirement: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise click.ClickException(
            f"{package} is not installed, or too old ({error}); run: pip install '{requirement}'"
        ) from error


@contextlib.contextmanager
def _current_directory() -> Iterator[None]:
    """Has modules of the current directory found, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have removed it
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


# What is recorded: code by its name.


def _named(text: str) -> Build:
    """Imports ``module:attribute.attribute``."""
    module_name, _, path = text.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        remedy = "; a call is not supported, write a function without arguments that makes it" if "(" in text else ""
        raise _refused(f"{text!r} is not MODULE:NAME, such as my.package:build{remedy}")
    target: Any = _imported(module_name)
    for attribute in path.split("."):
        if not hasattr(target, attribute):
            raise _refused(f"{module_name} has no {path!r}: there is no {attribute!r} in {_label(target)}")
        target = getattr(target, attribute)
    _check_callable(text, target)
    build: Build = target
    return build


def _imported(name: str) -> ModuleType:
    try:
        with _explained(name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _refused(
            f"there is no module {error.name!r}; run the command in the directory that has it, or install it"
        ) from error


def _label(target: object) -> str:
    return str(getattr(target, "__name__", None) or type(target).__name__)


def _check_callable(text: str, target: object) -> None:
    if not callable(target) or (hasattr(target, "named_parameters") and not inspect.isclass(target)):
        raise _refused(f"{text} is a {type(target).__name__}; give a function or class that makes the module")
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of some that are written in C
        return
    needed = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise _refused(
            f"{text} needs arguments: {', '.join(needed)}; write a function without arguments that gives them"
        )


def _refused(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="MODULE:NAME")


# What is recorded: a configuration of transformers.


def _from_config(path: Path, class_name: str | None, dtype: str | None) -> Build:
    transformers = _import("transformers", "transformers", "transformers>=5")
    fields = _read_config(path)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise _refused_config(
            f"{path}: model_type {kind!r} is none that this transformers has; give the config.json of a model whose "
            "code is part of it, or write a function and give MODULE:NAME"
        )
    with _explained(path):
        config = transformers.CONFIG_MAPPING[kind].from_dict(fields)
    if dtype:
        config.dtype = dtype
    name = class_name or _first_architecture(path, fields)
    if name is None:
        return lambda: transformers.AutoModel.from_config(config, trust_remote_code=False)
    made_by = getattr(transformers, name, None)
    # What AutoModel.from_config itself calls: it sets the dtype, of the models within a model, too.
    make = getattr(made_by, "_from_config", None)
    if make is None:
        raise click.BadParameter(
            f"transformers has no model class {name!r}; give one that it has, such as GPT2LMHeadModel",
            param_hint="--hf-model-class",
        )
    return lambda: make(config)


def _first_architecture(path: Path, fields: dict[str, Any]) -> str | None:
    match fields.get("architectures") or []:
        case []:
            return None
        case [str(name), *_]:
            return name
    raise _refused_config(f"{path}: its architectures are no list of names; give --hf-model-class, or mend them")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        fields = strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise _refused_config(f"{path}: not a file of JSON: {error}") from error
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise _refused_config(f"{path}: not a config.json of transformers: it has no model_type")
    return fields


def _refused_config(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--hf-config")


# What goes wrong in it.


@contextlib.contextmanager
def _explained(what: object) -> Iterator[None]:
    """Tells of an exception in the code that is recorded where in the code it was, without our own frames."""
    try:
        yield
    except (seedbed.SeedbedError, click.ClickException):
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_of(str(error.name), str(what)):
            raise
        where = _place(error)
        if where is None:
            raise
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise click.ClickException(f"{what} failed at {where}: {message}") from error


def _is_of(module: str, name: str) -> bool:
    """Whether it is the module that was asked for, or a package that it is in, which is missing."""
    return f"{name}.".startswith(f"{module}.")


def _place(error: Exception) -> str | None:
    """The last line that is neither ours nor torch's; None if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    import torch  # noqa: PLC0415 - an extra

    libraries = (_OURS, str(Path(torch.__file__).parent), "<frozen importlib", importlib.__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


# What comes out.


def _write(output: Path, made: Model) -> None:
    if output == STANDARD_OUTPUT:
        for line in model_lines(made):
            click.echo(line, nl=False)
        return
    with create_file(output) as file:
        for line in model_lines(made):
            file.write(line.encode())


def _summary(made: Model) -> str:
    kinds = Counter(_KINDS.get(str(spec.WhichOneof("scheme")), "by one scheme") for spec in made.tensors)
    order = ["by one scheme", *_KINDS.values()]
    told = ", ".join(f"{kinds[kind]:,} {kind}" for kind in order if kinds[kind]) or "none"
    elements = sum(math.prod(spec.shape) for spec in made.tensors)
    literals = sum(map(_literal_bytes, made.tensors))
    return (
        f"{plural(len(made.tensors), 'tensor')}, {plural(elements, 'parameter')}: {told}; "
        f"{literals / 2**20:.1f} MiB of literals"
    )


def _literal_bytes(recipe: TensorSpec | Recipe) -> int:
    kind = recipe.WhichOneof("scheme")
    if kind == "literal":
        return len(recipe.literal.data)
    if kind == "parts":
        return sum(_literal_bytes(part.recipe) for part in recipe.parts.parts)
    if kind == "expression":
        return sum(_literal_bytes(step.recipe) for step in recipe.expression.steps if step.HasField("recipe"))
    return 0
