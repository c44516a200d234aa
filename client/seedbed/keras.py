"""Keras 3, on torch and JAX: a model's own initialisation in one stream, and initializers that are saved with it.

>>> import keras, seedbed.keras
>>> def build():
...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
>>> with seedbed.connect("local:") as client:
...     model = seedbed.keras.build(build, client, seed=7)
>>> [tuple(weight.shape) for weight in model.weights]
[(8, 4), (4,), (4, 2), (2,)]

It needs ``pip install 'seedbed[keras]'``, and torch or JAX; the TensorFlow backend is not supported.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, SupportsIndex
from unittest import mock

import keras
import numpy as np
from keras.src.backend.common import global_state

import seedbed
from seedbed import dtypes
from seedbed._ask import values as _values
from seedbed._client.sync import Client
from seedbed._types import Array, Progress
from seedbed._wire.targets import is_cuda
from seedbed.errors import InvalidRequest
from seedbed.v1 import Model, TensorSpec

__all__ = ["Initializer", "build", "init_model", "record"]

Build = Callable[[], Any]

_CUT_STD: Final = 0.87962566103423978
"""The standard deviation of a standard normal truncated at 2; the constant is Keras's."""
_VARIANCE_SCALING: Final = (
    "VarianceScaling", "GlorotUniform", "GlorotNormal", "LecunUniform", "LecunNormal", "HeUniform", "HeNormal",
)  # fmt: skip
_NUMBERED: Final = re.compile(r"_\d+(?=/|$)")


def record(build: Build, seed: int = 0) -> Model:
    """Records how a model's own code fills each weight; nothing is drawn, and no weight takes memory.

    Every variable knows its initializer, and for Keras's own initializers the class and the configuration are the law.
    Weights that are equal in Keras are equal here: an initializer shared by two layers, or two with the same integer
    seed, fill weights of the same shape with the same values.

    Args:
        build: Makes and builds the model: all weights must exist when it returns. Layers are counted from the beginning
            meanwhile, so that names such as ``dense_1/kernel`` are those of a new process.
        seed: The seed of every tensor.

    Returns:
        A message with a tensor for each of ``model.weights``, by its path; it can be kept as a model file. Variables
        that are not floats, such as the states of random number generators, are left out.

    Raises:
        InvalidRequest: If an initializer that is not Keras's own draws a weight.

    >>> def build():
    ...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> [(spec.name, spec.WhichOneof("scheme")) for spec in record(build, seed=7).tensors]
    [('sequential/head/kernel', 'variance_scaling'), ('sequential/head/bias', 'zeros')]
    """
    model, _ = _unfilled(build)
    return _recorded(model, seed)


def build(build: Build, client: Client, seed: int = 0, progress: Progress | bool | None = None) -> Any:  # noqa: ANN401
    """Builds a model and fills it by its own initializers, in one stream; Keras itself draws nothing.

    Args:
        build: As for `record`.
        client: Any client on torch; on JAX, one with any target but ``local:cuda``.
        seed: The seed of every tensor.
        progress: Called as ``progress(done_bytes, total_bytes)``; True draws a bar.

    Returns:
        The model.

    Raises:
        InvalidRequest: As for `record`; or if the server refuses a tensor.
        SeedbedError: If the server is unreachable, or fails.

    >>> def build():
    ...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> with seedbed.connect("local:") as client:
    ...     one, other = (seedbed.keras.build(build, client, seed=7) for _ in range(2))
    >>> bool((np.asarray(one.get_weights()[0]) == np.asarray(other.get_weights()[0])).all())
    True
    """
    model, variables = _unfilled(build)
    _fill(_served(model), _recorded(model, seed).tensors, client, progress)
    for variable in variables:  # the others: states of random number generators, metrics
        if variable._value is None:
            variable._deferred_initialize()
    return model


def init_model(
    model: Any,  # noqa: ANN401
    client: Client,
    recorded: Model,
    progress: Progress | bool | None = None,
) -> None:
    """Fills the weights of a model that is already built, in place.

    Args:
        model: The model. Its weights must be those of ``recorded``, in that order; the numbers that Keras appends to
            the names of layers may differ.
        client: Any client on torch; on JAX, one with any target but ``local:cuda``.
        recorded: What `record` gives, or a model file.
        progress: Called as ``progress(done_bytes, total_bytes)``; True draws a bar.

    Raises:
        InvalidRequest: If the weights are not those of ``recorded``, before anything is changed; or if the server
            refuses a tensor.
        SeedbedError: If the server is unreachable, or fails.

    >>> def build():
    ...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model = build()
    >>> with seedbed.connect("local:") as client:
    ...     seedbed.keras.init_model(model, client, record(build, seed=7))
    ...     same = seedbed.keras.build(build, client, seed=7)
    >>> bool((np.asarray(model.get_weights()[0]) == np.asarray(same.get_weights()[0])).all())
    True
    """
    variables = _served(model)
    if len(variables) != len(recorded.tensors):
        counts = f"has {len(variables)} weights, and the recorded model {len(recorded.tensors)}"
        raise InvalidRequest("model", f"{counts}; record the code that built it")
    for variable, spec in zip(variables, recorded.tensors, strict=True):
        _check(variable, spec)
    _fill(variables, recorded.tensors, client, progress)


@keras.saving.register_keras_serializable(package="seedbed")
class Initializer(keras.initializers.Initializer):  # type: ignore[misc]
    """An initializer for one weight, wherever Keras takes one; it is saved with the model.

    Keras passes an initializer the shape, but not the name of the weight, so ``name`` identifies it: weights with the
    same name and seed begin equal. Hence an initializer fills one weight and refuses a second. `build` needs no names.

    Args:
        scheme: One of `seedbed.SCHEMES`, such as ``"kaiming_normal"``. Keras's shapes are ``(..., in, out)``, like
            JAX's: ``"variance_scaling"`` computes its fans from these.
        name: The weight's name.
        seed: Any integer in 0 .. 2^64 - 1.
        target: The server, or ``"local:"``, which samples in this process. It is saved with the model, and used again
            when that is loaded. Credentials are not saved but read from the ``SEEDBED_`` variables, as by
            `seedbed.connect`.
        **parameters: Those of the scheme's method, such as ``std``.

    Raises:
        InvalidRequest: If the scheme is unknown, or a parameter is wrong.
        TypeError: If the scheme has no such parameter.

    >>> init = seedbed.keras.Initializer("trunc_normal", name="head/kernel", seed=7, std=0.02)
    >>> layer = keras.layers.Dense(4, kernel_initializer=init)
    >>> layer.build((None, 8))
    >>> copy = keras.layers.Dense.from_config(layer.get_config())
    >>> copy.kernel_initializer.get_config()["name"]
    'head/kernel'
    """

    def __init__(
        self, scheme: str, *, name: str, seed: SupportsIndex = 0, target: str = "local:", **parameters: object
    ) -> None:  # fmt: skip
        seedbed.spec(scheme, (), name=name, seed=seed, **parameters)  # reports errors here, not within the model
        self.scheme, self.name, self.seed, self.target = scheme, name, int(seed), target
        self.parameters = parameters
        self._is_used = False

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:  # noqa: ANN401
        """The values, as a tensor of the backend."""
        spec = self.spec(shape, dtype)
        if not keras.src.backend.in_stateless_scope():  # where Keras only wants the shape
            if self._is_used:
                remedy = "give each weight an initializer with a different name"
                raise InvalidRequest("name", f"{self.name!r} already names another weight; {remedy}")
            self._is_used = True
        with seedbed.connect(self.target) as client:
            values = client.init(spec)
        return keras.ops.convert_to_tensor(_plain(values), dtype=dtypes.name_of(spec.dtype))

    def spec(self, shape: Sequence[int], dtype: Any = None) -> TensorSpec:  # noqa: ANN401
        """The weight's spec."""
        dtype = keras.backend.standardize_dtype(dtype)
        return seedbed.spec(
            self.scheme, tuple(shape), name=self.name, seed=self.seed, **{"dtype": dtype} | self.parameters
        )

    def clone(self) -> Initializer:
        """A copy for the same weight, as for a cloned layer."""
        return type(self)(**self.get_config())

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        arguments = {"scheme": self.scheme, "name": self.name, "seed": self.seed, "target": self.target}
        return {**arguments, **self.parameters}


def _unfilled(build: Build) -> tuple[Any, list[Any]]:
    """The model and all its variables, which know their initializers and have no values yet."""
    _check_backend()
    variables: list[Any] = []
    with (
        _fresh("object_name_uids", defaultdict(int)),
        _fresh("uninitialized_variables", variables),
        keras.StatelessScope(initialize_variables=False),
    ):
        model = build()
    if not isinstance(model, keras.Layer):
        raise InvalidRequest("build", f"returned {model!r}; it must return a model or a layer")
    if not model.built:
        remedy = "give it an Input, or call its build()"
        raise InvalidRequest("build", f"returned {model.name!r}, which has no weights yet; {remedy}")
    return model, variables


@contextlib.contextmanager
def _fresh(name: str, value: object) -> Iterator[None]:
    """Replaces an attribute of Keras's global state, and restores it afterwards."""
    before = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, value)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, before)


def _check_backend() -> None:
    if keras.backend.backend() not in ("torch", "jax"):
        remedy = "set KERAS_BACKEND to torch or jax before keras is imported"
        raise InvalidRequest("backend", f"{keras.backend.backend()!r} is not supported; {remedy}")


def _served(model: Any) -> list[Any]:  # noqa: ANN401
    """The weights that are floats."""
    return [variable for variable in model.weights if _served_dtype(variable)]


def _served_dtype(variable: Any) -> str | None:  # noqa: ANN401
    return variable.dtype if variable.dtype in dtypes.NAMES else None


def _recorded(model: Any, seed: int) -> Model:  # noqa: ANN401
    recorder, variables = _Recorder(seed), _served(model)
    names = Counter(variable.path for variable in variables)
    if several := [name for name, count in names.items() if count > 1]:
        raise InvalidRequest("build", f"made several weights {several[0]!r}; give their layers different names")
    return Model(name=model.name, tensors=[recorder.spec(variable) for variable in variables])


class _Recorder:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._names: dict[tuple[object, ...], str] = {}
        """The first weight of each draw of Keras's."""

    def spec(self, variable: Any) -> TensorSpec:  # noqa: ANN401
        initializer, shape = variable._initializer, tuple(variable.shape)
        common: dict[str, Any] = {"name": variable.path, "seed": self._seed, "dtype": variable.dtype}
        if isinstance(initializer, Initializer):
            own = initializer.spec(shape, variable.dtype)
            own.name, own.stream = variable.path, own.name
            return own
        law = _law(initializer, shape)
        if law is None:
            return seedbed.spec(_computed(variable), shape, **common)
        what, parameters = law
        draw = getattr(initializer, "seed", None)
        if isinstance(draw, int):
            first = self._names.setdefault((draw, what, shape, *sorted(parameters.items())), variable.path)
            common |= {"stream": first} if first != variable.path else {}
        return seedbed.spec(what, shape, **parameters, **common)


def _law(initializer: Any, shape: tuple[int, ...]) -> tuple[Any, dict[str, Any]] | None:  # noqa: ANN401, PLR0911
    """The scheme of one of Keras's initializers, with parameters; None for any other, or one that holds an array."""
    if type(initializer).__module__.partition(".")[0] != "keras":
        return None
    match type(initializer).__name__:
        case "Zeros":
            return "zeros", {}
        case "Ones":
            return "ones", {}
        case "Constant" if isinstance(initializer.value, int | float):
            return "constant", {"val": float(initializer.value)}
        case "Identity" if len(shape) == 2:
            return _values.draw("eye") * float(initializer.gain), {}
        case "RandomUniform":
            return "uniform", {"a": float(initializer.minval), "b": float(initializer.maxval)}
        case "RandomNormal":
            return "normal", {"mean": float(initializer.mean), "std": float(initializer.stddev)}
        case "TruncatedNormal":
            mean, std = float(initializer.mean), float(initializer.stddev)
            return "trunc_normal", {"mean": mean, "std": std, "bounds": "sigma"}
        case "Orthogonal":
            return "orthogonal", {"gain": float(initializer.gain), "axis": -1}
        case name if name in _VARIANCE_SCALING:
            return _variance_scaling(initializer, shape)
    return None


def _variance_scaling(initializer: Any, shape: tuple[int, ...]) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
    distribution = {"untruncated_normal": "normal"}.get(initializer.distribution, initializer.distribution)
    if len(shape) > 1 and initializer.input_axes is None:
        return "variance_scaling", {
            "scale": float(initializer.scale), "mode": initializer.mode, "distribution": distribution,
        }  # fmt: skip
    # Keras defines fans for these; JAX, whose scheme variance_scaling is, does not.
    variance = float(initializer.scale) / max(1.0, _fan(initializer, shape))
    match distribution:
        case "normal":
            return "normal", {"std": math.sqrt(variance)}
        case "uniform":
            return "uniform", {"a": -math.sqrt(3 * variance), "b": math.sqrt(3 * variance)}
    return "trunc_normal", {"std": math.sqrt(variance) / _CUT_STD, "bounds": "sigma"}


def _fan(initializer: Any, shape: tuple[int, ...]) -> float:  # noqa: ANN401
    if initializer.input_axes is not None and initializer.output_axes is not None:
        fan_in, fan_out = (
            math.prod(shape[axis] for axis in axes) for axes in (initializer.input_axes, initializer.output_axes)
        )
    elif len(shape) > 1:
        field = math.prod(shape[:-2])
        fan_in, fan_out = field * shape[-2], field * shape[-1]
    else:
        fan_in = fan_out = math.prod(shape)
    fans: dict[str, float] = {"fan_in": fan_in, "fan_out": fan_out}
    return float(fans.get(initializer.mode, (fan_in + fan_out) / 2))


def _computed(variable: Any) -> Any:  # noqa: ANN401
    """The values of an initializer that computes them, such as the LSTM bias; one that draws is refused."""
    initializer = variable._initializer
    with _drawing_is_refused(variable):
        values = _numpy(initializer(variable.shape, dtype=variable.dtype))
    if values.size and (values == values.flat[0]).all():
        return _values.draw("constant", val=float(values.flat[0]))
    return _values.literal(values)


@contextlib.contextmanager
def _drawing_is_refused(variable: Any) -> Iterator[None]:  # noqa: ANN401
    def refuse(*_: object, **__: object) -> None:
        kind = getattr(variable._initializer, "__qualname__", type(variable._initializer).__qualname__)
        remedy = "use one of keras.initializers, or seedbed.keras.Initializer"
        raise InvalidRequest(variable.path, f"is drawn by {kind}, which is not one of Keras's; {remedy}")

    random = sys.modules[f"keras.src.backend.{keras.backend.backend()}.random"]
    with mock.patch.object(random, "draw_seed", refuse):
        yield


def _check(variable: Any, spec: TensorSpec) -> None:  # noqa: ANN401
    found = variable.path, tuple(variable.shape), variable.dtype
    expected = spec.name, tuple(spec.shape), dtypes.name_of(spec.dtype)
    if found[1:] != expected[1:] or _NUMBERED.sub("", found[0]) != _NUMBERED.sub("", expected[0]):
        text = "has {!r}, shape {}, {}, where the recorded model has {!r}, shape {}, {}; record the code that built it"
        raise InvalidRequest("model", text.format(*found, *expected))


def _fill(
    variables: Sequence[Any], specs: Sequence[TensorSpec], client: Client, progress: Progress | bool | None
) -> None:
    fill = _fill_jax if keras.backend.backend() == "jax" else _fill_torch
    fill(variables, specs, client, progress)


def _fill_jax(
    variables: Sequence[Any], specs: Sequence[TensorSpec], client: Client, progress: Progress | bool | None
) -> None:
    import seedbed.jax  # noqa: PLC0415 - torch's users need not have it

    shardings = [_sharding(variable) for variable in variables]
    for variable, array in zip(variables, seedbed.jax.init_tree(client, list(specs), shardings, progress), strict=True):
        _give(variable, array)


def _sharding(variable: Any) -> Any:  # noqa: ANN401
    """The variable's sharding, once it has a value."""
    import jax  # noqa: PLC0415

    if variable._value is not None:
        return variable._value.sharding
    variable._initialize_layout()
    if (layout := variable._layout) is None:
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return getattr(layout, "backend_layout", layout)


def _fill_torch(
    variables: Sequence[Any], specs: Sequence[TensorSpec], client: Client, progress: Progress | bool | None
) -> None:
    import torch  # noqa: PLC0415 - JAX's users need not have it

    device = "cuda" if is_cuda(client.target) else "cpu"

    def memory(variable: Any, spec: TensorSpec) -> Any:  # noqa: ANN401
        if (value := variable._value) is not None and value.device.type == device:
            return value.detach()
        return torch.empty(tuple(spec.shape), dtype=getattr(torch, dtypes.name_of(spec.dtype)), device=device)

    memories = {spec.name: memory(variable, spec) for variable, spec in zip(variables, specs, strict=True)}
    arrays = client.init_model(list(specs), out=memories.__getitem__, progress=progress)
    for variable, (name, _) in zip(variables, arrays, strict=True):
        _give(variable, memories[name])


def _give(variable: Any, value: Any) -> None:  # noqa: ANN401
    if variable._value is None:
        variable._initialize(value)
        variable._initializer = None
    else:
        variable.assign(value)


def _plain(values: Array) -> Array:
    """Values in a dtype that every backend takes: bfloat16 as float32, which holds it."""
    return values if values.dtype.kind in "fc" and values.dtype.isbuiltin else values.astype(np.float32)


def _numpy(values: Any) -> Array:  # noqa: ANN401
    return np.asarray(
        keras.ops.convert_to_numpy(keras.ops.cast(values, "float64" if values.dtype == "float64" else "float32"))
    )
