"""Models of libraries that nobody here wrote, recorded and filled, and compared with what torch itself makes of them.

``python -m tests.zoo.zoo --package timm [--only PATTERN] [--jobs N] [--json OUT]`` tries one package, each model in a
process of its own, and prints what is not right. It needs an environment with torch, torchvision, transformers, timm
and torchtitan (`PACKAGES`), and no network.
"""

from __future__ import annotations

import argparse
import collections
import copy
import fnmatch
import functools
import gc
import hashlib
import importlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

import seedbed
import seedbed.torch

Build = Callable[[], torch.nn.Module]

TIMEOUT = float(os.environ.get("ZOO_TIMEOUT") or 60.0)
MEMORY = 7 << 30
SAMPLE = 1 << 19
MOST_IN_A_PROCESS = 60
LARGEST = 12_000_000
"""Parameters; what has more is built in a smaller form, if there is one."""


LARGEST_TRANSFORMER = int(os.environ.get("ZOO_LARGEST") or 60_000_000)
LARGEST_OF_ONE_SIZE = int(os.environ.get("ZOO_LARGEST") or 50_000_000)
"""Parameters of those that have no smaller form."""


class Builder(NamedTuple):
    """A model that can be tried."""

    package: str
    name: str
    build: Build


class CannotBuildError(Exception):
    """The package cannot build it here, recorded or not."""


class TooLargeError(Exception):
    """It has no form small enough to be tried here; ZOO_LARGEST says how many parameters one may have."""


# ---------------------------------------------------------------------------------------------------------- builders


def _size(build: Build) -> int:
    """How many parameters a module would have."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def timm_builders() -> list[Builder]:
    """Every fifth architecture of timm."""
    import timm

    return [Builder("timm", name, _TimmBuild(name)) for name in timm.list_models()[::5]]


class _TimmBuild:
    """Builds one of timm's models, with fewer layers if it is large."""

    _SMALLER: tuple[dict[str, Any], ...] = (
        {},
        {"depth": 2},
        {"depths": (1, 1, 1, 1)},
        {"layers": (1, 1, 1, 1)},
        {"layers": (1, 1, 1)},
        {"depths": (1, 1, 1)},
        {"num_blocks": 2},
    )

    def __init__(self, name: str) -> None:
        self.name = name

    @functools.cached_property
    def _options(self) -> dict[str, Any]:
        sizes: list[tuple[int, int]] = []
        for index, options in enumerate(self._SMALLER):
            try:
                sizes.append((_size(lambda options=options: self._make(options)), index))
            except Exception:
                continue
            if sizes[-1][0] < LARGEST:
                break
        return self._SMALLER[min(sizes)[1]] if sizes else {}

    def _make(self, options: Mapping[str, Any]) -> torch.nn.Module:
        import timm

        module: torch.nn.Module = timm.create_model(self.name, pretrained=False, **options)
        return module

    def prepare(self) -> None:
        """Chooses the form, before anything is recorded."""
        if (size := _size_or_zero(self)) > LARGEST_OF_ONE_SIZE:
            raise TooLargeError(f"has {size:,} parameters in its smallest form")

    def __call__(self) -> torch.nn.Module:
        return self._make(self._options)


def torchvision_builders() -> list[Builder]:
    """All models of torchvision, without weights."""
    import torchvision

    return [
        Builder("torchvision", name, _OfSize(_torchvision_build(name))) for name in torchvision.models.list_models()
    ]


class _OfSize:
    """Builds what is not too large; torchvision's models have no smaller forms."""

    def __init__(self, build: Build) -> None:
        self._build = build

    def prepare(self) -> None:
        """Looks at the size, before anything is recorded."""
        if (size := _size_or_zero(self._build)) > LARGEST_OF_ONE_SIZE:
            raise TooLargeError(f"has {size:,} parameters")

    def __call__(self) -> torch.nn.Module:
        return self._build()


def _torchvision_build(name: str) -> Build:
    import inspect

    import torchvision

    parameters = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in parameters:
        options["weights_backbone"] = None
    if "init_weights" in parameters or name in {"inception_v3", "googlenet"}:
        options["init_weights"] = True  # what else they would do one day, they warn
    return functools.partial(torchvision.models.get_model, name, **options)


_TITAN = {
    "llama3": ("llama3", "debugmodel"),
    "qwen3": ("qwen3", "debugmodel"),
    "deepseek_v3": ("deepseek_v3", "debugmodel"),
    "gpt_oss": ("gpt_oss", "debugmodel"),
    "kimi_k2": ("kimi_k2_7", "debugmodel"),
    "flux": ("flux", "flux-debug"),
}


def torchtitan_builders() -> list[Builder]:
    """Six of torchtitan's models: built at once, and built on meta and then initialised, as its trainer does."""
    return [
        Builder("torchtitan", name + ("@meta" if on_meta else ""), functools.partial(_titan, *where, on_meta))
        for on_meta in (False, True)
        for name, where in _TITAN.items()
    ]


def _titan(package: str, flavor: str, on_meta: bool) -> torch.nn.Module:
    models = importlib.import_module(f"torchtitan.models.{package}")
    config = models.model_registry(flavor).model
    if not on_meta:
        module: torch.nn.Module = config.build()
    else:
        with torch.device("meta"):
            module = config.build()
        module.to_empty(device="cpu")
    with torch.no_grad():
        module.init_weights(buffer_device=None)  # type: ignore[operator]
    return module


def transformers_builders() -> list[Builder]:
    """The base model of every type that transformers knows."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return [Builder("transformers", name, _TransformersBuild(name)) for name in sorted(MODEL_MAPPING_NAMES)]


# What the shrinker below makes of a field, by its name: the first that matches counts, and only larger values shrink.
_VOCABULARY, _LAYERS, _HEADS = 96, 2, 4
_FIELDS: tuple[tuple[str, str, int], ...] = (
    ("vocabulary", r"(.*_)?vocab_size|vocabulary_size|.*_vocab_size_.*", _VOCABULARY),
    ("vocabulary", r".*_token_(id|index)|.*_(bos|eos|pad)_id|(bos|eos|pad)_id", _VOCABULARY - 1),
    ("layers", r"first_k_dense_replace|.*_start_layer|num_nextn_predict_layers", 1),
    ("layers", r".*(num|n)_(hidden_)?layers?|(.*_)?layers|(.*_)?depth", _LAYERS),
    ("layers", r"num_(transformer_|residual_)?blocks|n_layer|.*_num_layers.*|num_layers_.*", _LAYERS),
    ("experts", r"num_experts_per_tok|(moe_)?top_?k(_experts)?|num_selected_experts|moe_topk|moe_top_k", 2),
    ("experts", r"n_group|topk_group|num_expert_groups?", 1),
    ("experts", r".*(num|n)_.*experts|.*experts_num|expert_num", 4),
    ("positions", r"max_.*position.*|n_positions|n_ctx|max_seq.*|max_length|seq_length|sequence_length", 128),
    ("widths", r".*(num|n)_(key_value|kv)_(heads|groups)|.*kv_n_heads|num_query_groups|multi_query_group_num", 2),
    ("widths", r".*(num|n)_(\w*_)?heads?|.*attention_heads|n_head|heads", _HEADS),
    ("widths", r"(qk_)?rope_head_dim|qk_rope_head_dim|rotary_dim", 8),
    ("widths", r".*head_(dim|size|width)|d_kv|.*attention_key_dim|kv_channels|head_dimension", 16),
    ("widths", r".*(intermediate|ffn|feed_?forward|inner|mlp|ff)_?(size|dim|hidden_size)|d_ff|n_inner|d_inner", 128),
    ("widths", r".*hidden_(size|dim|channels)|d_model|n_embd|(.*_)?(embed|embedding|embeds)_size|(.*_)?dim", 64),
    ("widths", r".*(_rank|_width|output_dim|projection_size|latent_size)|width", 64),
)

_EXCEPTIONS: dict[str, dict[str, Any]] = {
    "autoformer": {"prediction_length": 8},
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "informer": {"prediction_length": 8},
    "time_series_transformer": {"prediction_length": 8},
}
"""What else a type needs, by the type's name: fields of its configuration."""

_FORMS: tuple[frozenset[str], ...] = (
    frozenset({"vocabulary", "layers", "experts", "positions", "widths", "lists"}),
    frozenset({"vocabulary", "layers", "experts", "positions", "widths"}),
    frozenset({"vocabulary", "layers", "experts", "positions"}),
    frozenset({"vocabulary", "layers", "experts"}),
    frozenset({"layers", "experts"}),
    frozenset({"vocabulary", "experts"}),
    frozenset(),
)
"""What is shrunk, the smallest first; a form that cannot be built is passed over."""


class _TransformersBuild:
    """Builds a type's base model from its default configuration, shrunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._config: Any = None
        self._class: Any = None

    def prepare(self) -> None:
        """Chooses the form, before anything is recorded."""
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_MAPPING

        config_class = CONFIG_MAPPING[self.name]
        model_class = MODEL_MAPPING[config_class]
        self._class = model_class[0] if isinstance(model_class, (list, tuple)) else model_class
        problems = []
        for kinds in _FORMS:
            try:
                config = config_class(**_EXCEPTIONS.get(self.name, {}))
                _shrink(config, kinds)
                self._config = config
                if (size := _size_or_zero(self)) > LARGEST_TRANSFORMER:
                    problems.append(f"has {size:,} parameters")
                    continue
                self()
            except Exception as error:
                problems.append(_message(error))
            else:
                return
        text = problems[0] if len(set(problems)) == 1 else f"{problems[0]}; else {problems[-1]}"
        raise TooLargeError(text) if any(problem.startswith("has ") for problem in problems) else CannotBuildError(text)

    def __call__(self) -> torch.nn.Module:
        if self._config is None:
            self.prepare()
        module: torch.nn.Module = self._class(copy.deepcopy(self._config))
        return module


def _size_or_zero(build: Build) -> int:
    try:
        return _size(build)
    except Exception:
        return 0  # it needs values


def _shrink(config: Any, kinds: frozenset[str]) -> None:
    """Makes a configuration small, and those that it holds."""
    from transformers import PreTrainedConfig

    fields = dict(vars(config))
    layers = next((value for key, value in fields.items() if re.fullmatch(r"num_(hidden_)?layers|n_layers?", key)), 0)
    for key, value in fields.items():
        if isinstance(value, PreTrainedConfig):
            _shrink(value, kinds)
        elif not key.startswith("_") and (smaller := _smaller(key, value, layers, kinds)) != value:
            _set(config, key, smaller)
    if hasattr(config, "use_pretrained_backbone"):
        _set(config, "use_pretrained_backbone", False)
    if "widths" in kinds:
        _align(config)


def _align(config: Any) -> None:
    """As many heads for keys as for queries, where a type has no groups of them."""
    heads, groups = getattr(config, "num_attention_heads", None), getattr(config, "num_key_value_heads", None)
    if isinstance(heads, int) and isinstance(groups, int) and groups and heads % groups:
        _set(config, "num_key_value_heads", heads)


def _set(config: Any, key: str, value: object) -> None:
    try:
        setattr(config, key, value)
    except Exception:
        return  # it may be derived, or refuse the value


def _smaller(key: str, value: object, layers: int, kinds: frozenset[str]) -> object:
    if isinstance(value, (list, tuple)):
        return _shorter(key, value, layers, kinds)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    for kind, pattern, largest in _FIELDS:
        if re.fullmatch(pattern, key):
            return min(value, largest) if kind in kinds else value
    return value


def _shorter(key: str, values: Sequence[Any], layers: int, kinds: frozenset[str]) -> Sequence[Any]:
    kind = type(values)
    if not values:
        return values
    if "layers" in kinds and len(values) == layers > _LAYERS:
        other = next((value for value in values if value != values[0]), values[0])
        return kind([values[0], other])
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return values
    if "layers" in kinds and re.fullmatch(r".*depths?|layers|num_blocks|.*num_layers", key):
        return kind([min(value, 1) for value in values])
    if "lists" in kinds and re.fullmatch(r".*(hidden_sizes|embed_dims?|_channels|_dims?)", key) and min(values) > 32:
        return kind([value // 4 if value % 32 == 0 else value for value in values])
    return values


PACKAGES: dict[str, Callable[[], list[Builder]]] = {
    "timm": timm_builders,
    "torchvision": torchvision_builders,
    "torchtitan": torchtitan_builders,
    "transformers": transformers_builders,
}


# ----------------------------------------------------------------------------------------------------------- checker


def check(build: Build) -> str:
    """Records a model and fills it: ``right``, ``refused: <message>`` or ``differs: <tensor>: <what>``."""
    first, second = _real(build, 0), _real(build, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = seedbed.torch.record(build, seed=1)
            module = seedbed.torch.on_meta(build)
            with seedbed.connect("local:") as client:
                seedbed.torch.init_module(module, client, model=model)
    except Exception as error:
        return f"refused: {_message(error)}"
    problem = next(_problems(_tensors(first), _tensors(second), _tensors(module)), None)
    return f"differs: {problem}" if problem else "right"


def _real(build: Build, seed: int) -> torch.nn.Module:
    """The model as torch makes it."""
    prepare = getattr(build, "prepare", None)
    try:
        if prepare is not None and seed == 0:
            prepare()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return build()
    except (CannotBuildError, TooLargeError):
        raise
    except Exception as error:
        raise CannotBuildError(_message(error)) from error


def _message(error: BaseException) -> str:
    text = " ".join(str(error).split())[:400]
    return text if isinstance(error, seedbed.errors.InvalidRequest) else f"{type(error).__name__}: {text}"


class _Tensors(NamedTuple):
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]

    @property
    def all(self) -> dict[str, torch.Tensor]:
        return self.parameters | self.buffers


def _tensors(module: torch.nn.Module) -> _Tensors:
    return _Tensors(
        {name: tensor.detach() for name, tensor in module.named_parameters()},
        {name: tensor.detach() for name, tensor in module.named_buffers()},
    )


def _problems(real: _Tensors, again: _Tensors, ours: _Tensors) -> Iterator[str]:
    """What is not as torch made it, with two of torch's to tell draws from tables."""
    for kind in ("parameters", "buffers"):
        if list(getattr(real, kind)) != list(getattr(ours, kind)):
            odd = set(getattr(real, kind)) ^ set(getattr(ours, kind))
            yield f"{min(odd, default='order')}: the {kind} have other names"
            return
    for name, tensor in real.all.items():
        if problem := _difference(tensor, again.all[name], ours.all[name]):
            yield f"{name}: {problem}"
    yield from _copies(real.all, again.all, ours.all)


def _difference(real: torch.Tensor, again: torch.Tensor, ours: torch.Tensor) -> str | None:
    if ours.is_meta:
        return "has no values"
    if real.shape != ours.shape or real.dtype != ours.dtype:
        return f"is {ours.dtype} {tuple(ours.shape)}, not {real.dtype} {tuple(real.shape)}"
    if real.is_meta or real.numel() == 0:
        return None
    if _equal(real, again):
        return None if _near(real, ours) else f"is a table with other values: {_shown(ours)}, not {_shown(real)}"
    if not bool(real.isfinite().all() and again.isfinite().all()):
        return None  # never initialised
    if not bool(ours.isfinite().all()):
        return "has values that are not finite"
    return _rows(real, again, ours) or _law_of_parts(real, ours)


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal bit for bit, but for the kinds of NaN."""
    return left.shape == right.shape and bool(((left == right) | (left.isnan() & right.isnan())).all())


def _near(real: torch.Tensor, ours: torch.Tensor) -> bool:
    if not real.is_floating_point() and not real.is_complex():
        return torch.equal(real, ours)
    tolerance = 1e-6 if real.dtype.itemsize > 2 else 1e-2
    return torch.allclose(real, ours, rtol=tolerance, atol=1e-8, equal_nan=True)


def _shown(tensor: torch.Tensor) -> str:
    values = [f"{value:.6g}" for value in tensor.flatten()[:3].tolist()]
    return " ".join(values) + (" ..." if tensor.numel() > 3 else "")


def _rows(real: torch.Tensor, again: torch.Tensor, ours: torch.Tensor) -> str | None:
    """Rows that are constant, such as an embedding's for padding, have to be so."""
    width = math.prod(real.shape[1:]) if real.ndim > 1 else 8
    if width < 4 or real.numel() % width:
        return None
    real, again, ours = (tensor.reshape(-1, width) for tensor in (real, again, ours))
    fixed = (real == again).all(1)
    if bool(fixed.any()) and not _near(real[fixed], ours[fixed]):
        row = int(fixed.nonzero()[0])
        return f"in row {row}, which is not drawn, has {_shown(ours[row])}, not {_shown(real[row])}"
    if width > 8 and bool(((ours == ours[:, :1]).all(1) & ~(real == real[:, :1]).all(1)).any()):
        return "has rows that are constant and should be drawn"
    return None


def _law_of_parts(real: torch.Tensor, ours: torch.Tensor) -> str | None:
    """Compares the laws of the whole, and of halves, thirds and quarters of the rows."""
    real, ours = real.double(), ours.double()
    if problem := _law(real, ours):
        return problem
    for count in (2, 3, 4):
        if real.ndim and real.shape[0] % count == 0 and real.numel() // count > 30:
            for index, parts in enumerate(zip(real.chunk(count), ours.chunk(count), strict=True)):
                if problem := _law(*parts):
                    return f"in part {index + 1} of {count}, {problem}"
    return None


class _Moments(NamedTuple):
    mean: float
    std: float
    tails: float
    low: float
    high: float

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Moments:
        mean = tensor.mean()
        away = tensor - mean
        square = away.square()
        variance = square.mean()
        tails = float(square.square().mean() / variance.square()) if variance > 0 else 0.0
        # Not the very last, which a rounding in torch's own law may have put anywhere.
        low, high = (
            tensor.flatten().kthvalue(k).values
            for k in (1 + tensor.numel() // 5000, tensor.numel() - tensor.numel() // 5000)
        )
        return cls(float(mean), float(variance.sqrt()), tails, float(low), float(high))


def _law(real: torch.Tensor, ours: torch.Tensor) -> str | None:
    step = max(1, real.numel() // SAMPLE)
    real, ours = real.flatten()[::step], ours.flatten()[::step]
    count = real.numel()
    if count < 3:
        return None
    left, right = _Moments.of(real), _Moments.of(ours)
    if (left.std == 0) != (right.std == 0):
        return f"has std {right.std:.4g}, not {left.std:.4g}"
    if count <= 30 or left.std == 0:
        return None
    problem = _other_moments(left, right, count)
    if problem and real.unique().numel() < count // 2:  # repeated, or sparse: there are fewer draws than elements
        problem = _other_moments(left, right, max(real.unique().numel(), 2))
    return problem or _other_bounds(left, right, count)


def _other_moments(left: _Moments, right: _Moments, count: int) -> str | None:
    """Six standard errors, that of a std being the larger the longer the tails."""
    tails = max(left.tails, right.tails, 3.0)
    if abs(right.std / left.std - 1) > 6 * math.sqrt((tails - 1) / 2 / count):
        return f"has std {right.std:.4g}, not {left.std:.4g}, of {count} elements"
    if abs(right.mean - left.mean) > 6 * math.hypot(left.std, right.std) / math.sqrt(count):
        return f"has mean {right.mean:.4g}, not {left.mean:.4g}, at std {left.std:.4g}, of {count} elements"
    return None


def _other_bounds(left: _Moments, right: _Moments, count: int) -> str | None:
    if count < 1000 or left.tails > 6:
        return None
    # A law with such short tails is bounded, and its density there not small.
    noise = 300 * math.sqrt(1 + count // 5000) / count  # of the bounds, which are the first and last 5000th part
    slack = left.std * noise + 1e-6 * max(abs(left.low), abs(left.high)) if left.tails < 2.5 else left.std * 4
    if right.high > left.high + slack or right.low < left.low - slack:
        return f"lies in [{right.low:.6g}, {right.high:.6g}], not [{left.low:.6g}, {left.high:.6g}]"
    if right.high < left.high - slack or right.low > left.low + slack:
        return f"lies in [{right.low:.6g}, {right.high:.6g}] alone, not [{left.low:.6g}, {left.high:.6g}]"
    return None


def _copies(
    real: Mapping[str, torch.Tensor], again: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    """Drawn tensors that are equal in one of the two, and not in the other."""
    drawn = [
        name
        for name, tensor in real.items()
        if tensor.numel() > 8 and not tensor.is_meta and tensor.is_floating_point() and not _equal(tensor, again[name])
    ]
    theirs, mine = _groups(real, drawn), _groups(ours, drawn)
    for first, name in theirs.items():
        if mine.get(first) != name:
            yield f"{first}: is a copy of {name}, and here of {mine.get(first, 'nothing')}"
    for first, name in mine.items():
        if first not in theirs:
            yield f"{first}: is a copy of {name} here alone"


def _groups(tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> dict[str, str]:
    """For each tensor that is a copy, the first of which it is."""
    first: dict[object, str] = {}
    copies = {}
    for name in names:
        tensor = tensors[name].contiguous()
        digest = hashlib.blake2b(tensor.view(torch.uint8).numpy(), digest_size=16).digest()
        original = first.setdefault((tensor.shape, tensor.dtype, digest), name)
        if original != name:
            copies[name] = original
    return copies


# ------------------------------------------------------------------------------------------------------ command line


class Outcome(NamedTuple):
    """What came of one model."""

    package: str
    name: str
    outcome: str
    seconds: float


def run(builders: Sequence[Builder], jobs: int) -> Iterator[Outcome]:
    """Tries models in processes of their own, in the order in which they end."""
    waiting = list(reversed(builders))
    workers = [_Worker() for _ in range(jobs)]
    try:
        while waiting or any(worker.builder for worker in workers):
            for worker in workers:
                if waiting and not worker.builder:
                    worker.begin(waiting.pop())
            multiprocessing.connection.wait([worker.results for worker in workers], timeout=0.5)
            for worker in workers:
                if (outcome := worker.outcome()) is not None:
                    yield outcome
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that tries one model after the other: what it has imported need not be imported again."""

    def __init__(self) -> None:
        self.builder: Builder | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.results, child = context.Pipe()
        self._process = context.Process(target=_work, args=(child,), daemon=True)
        self._process.start()
        child.close()
        self._tried = 0

    def begin(self, builder: Builder) -> None:
        """Has it try a model."""
        if self._tried == MOST_IN_A_PROCESS:
            self.stop()
            self._start()
        self.builder, self._since = builder, time.monotonic()
        self._tried += 1
        self.results.send(builder)

    def outcome(self) -> Outcome | None:
        """What came of the model; None while it is at work."""
        if self.builder is None:
            return None
        seconds, builder = time.monotonic() - self._since, self.builder
        if self.results.poll():
            try:
                self.builder = None
                return Outcome(builder.package, builder.name, self.results.recv(), seconds)
            except EOFError:
                text = "failed: the process ended, perhaps for want of memory"
        elif seconds > TIMEOUT:
            text = f"failed: takes more than {TIMEOUT:g} s"
        else:
            return None
        self.builder = None
        self.stop()
        self._start()
        return Outcome(builder.package, builder.name, text, seconds)

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.join()
        self.results.close()


def _work(connection: Any) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    while True:
        builder = connection.recv()
        try:
            outcome = check(builder.build)
        except CannotBuildError as error:
            outcome = f"cannot build: {error}"
        except TooLargeError as error:
            outcome = f"too large: {error}"
        except BaseException as error:
            outcome = f"failed: {_message(error)}"
        gc.collect()
        connection.send(outcome)


def _kind(outcome: str) -> str:
    """The outcome without names and numbers, for what is alike to be counted together."""
    head, _, rest = outcome.partition(": ")
    first, _, more = rest.partition(": ")
    if head in {"refused", "differs"} and more and " " not in first:
        rest = more
    return f"{head}: {re.sub(r'[0-9][0-9.,e+-]*', '#', rest)}"[:200]


def report(outcomes: Sequence[Outcome]) -> str:
    """The totals, and those that are not right, grouped by what was said."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.outcome != "right":
            groups.setdefault(_kind(outcome.outcome), []).append(outcome)
    lines = []
    for kind, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        lines += [f"{len(members):4d}  {kind}", f"      {', '.join(member.name for member in members)}"]
        lines += [f"      e.g. {members[0].outcome}"]
    totals = collections.Counter(outcome.outcome.partition(":")[0] for outcome in outcomes)
    return "\n".join([*lines, "", f"{len(outcomes)} tried: " + ", ".join(f"{n} {what}" for what, n in totals.items())])


def chosen(package: str, only: str = "*") -> list[Builder]:
    """A package's models whose names match a pattern, or several with commas between."""
    patterns = only.split(",")
    return [builder for builder in PACKAGES[package]() if any(fnmatch.fnmatchcase(builder.name, p) for p in patterns)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", choices=sorted(PACKAGES), required=True)
    parser.add_argument("--only", default="*", help="a pattern of names, or several with commas between")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth of them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where all outcomes go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    for outcome in run(chosen(options.package, options.only)[:: options.every], options.jobs):
        outcomes.append(outcome)
        if options.json:
            options.json.write_text(json.dumps([outcome._asdict() for outcome in outcomes], indent=1))
    print(report(outcomes))


if __name__ == "__main__":
    main()
