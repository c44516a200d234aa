"""Arguments of a scheme's method, or of `seedbed.spec`, into a TensorSpec.

`Schemes` has a method for each scheme, generic in what the method returns: an array from `seedbed.Client`, a coroutine
from `seedbed.aio.AsyncClient`, the message itself from `spec`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from seedbed import dtypes
from seedbed._ask import arguments, table
from seedbed._ask.methods import Options, R, SchemeMethods
from seedbed._types import Array, Progress, RegionLike, Shape, Timeout
from seedbed.errors import InvalidRequest
from seedbed.v1 import Nonlinearity, TensorSpec

SCHEMES = tuple(table.SCHEMES)
"""The names of all schemes."""

OPTIONS = {option.name: option for option in table.OPTIONS}


class Schemes(SchemeMethods[R]):
    """One method for each scheme, named and parameterised as in ``torch.nn.init``.

    Each returns a NumPy array of the region's shape, bfloat16 through ml_dtypes, or ``out``; a coroutine of
    `seedbed.aio.AsyncClient` does so when it is awaited. Each raises `InvalidRequest` before any sampling if an
    argument cannot be served, and the other errors of `seedbed.errors` if the server cannot be reached or fails. Fans
    come from the shape, never from the region.
    """

    def _run(
        self,
        spec: TensorSpec,
        *,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> R:
        raise NotImplementedError

    def _make(self, scheme: str, shape: Shape, parameters: Mapping[str, object], options: Options) -> R:
        message = _scheme_message(scheme, parameters)
        for name in options:
            if name not in OPTIONS:
                raise TypeError(_unexpected(scheme, name))
        spec = TensorSpec(
            name=arguments.text(options.get("name", ""), "spec.name"),
            shape=arguments.shape(shape),
            dtype=dtypes.data_type(options.get("dtype", "float32")),
            seed=arguments.integer(options.get("seed", 0), "spec.seed", "seed", arguments.UINT64),
            algorithm_version=arguments.integer(
                options.get("algorithm_version", 0), "spec.algorithm_version", "version", arguments.UINT32
            ),
            stream=arguments.text(options.get("stream", ""), "spec.stream"),
        )
        getattr(spec, scheme).CopyFrom(message)
        return self._run(spec, **{name: value for name, value in options.items() if not OPTIONS[name].is_in_message})  # type: ignore[arg-type]


def _scheme_message(scheme: str, values: Mapping[str, object]) -> Message:
    converted = {
        parameter.name: parameter.convert(values[parameter.name], scheme)
        for parameter in table.SCHEMES[scheme].parameters
    }
    message: type[Message] = type(getattr(TensorSpec(), scheme))
    return message(**{name: value for name, value in converted.items() if value is not None})


def _spell_options_out() -> None:
    """Shows the options in place of ``**options`` to ``help()`` and `inspect`."""
    types = Options.__annotations__
    shared = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=types[option.name].__forward_arg__,
        )
        for option in table.OPTIONS
    ]
    methods: Mapping[str, Any] = vars(SchemeMethods)
    for method in (method for name, method in methods.items() if name in SCHEMES):
        signature = inspect.signature(method)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        method.__signature__ = signature.replace(parameters=own + shared)


_spell_options_out()


class _Specs(Schemes[TensorSpec]):
    """Hands the message out as it is."""

    def _run(self, spec: TensorSpec, **call: object) -> TensorSpec:
        for name in call:
            raise TypeError(f"spec() got an unexpected keyword argument {name!r}; give it to client.init")
        return spec


def spec(scheme: str, shape: Shape, **parameters: object) -> TensorSpec:
    """The message for a scheme; `seedbed.spec` takes Values and parts, too.

    Args:
        scheme: One of `SCHEMES`.
        shape: The global shape.
        **parameters: Those of the scheme's method, and the options that a message has.

    Raises:
        InvalidRequest: If the scheme is unknown, or a message cannot carry a parameter.
        TypeError: If the scheme has no such parameter.
    """
    if scheme not in SCHEMES:
        raise InvalidRequest("spec.scheme", f"unknown scheme {scheme}; {_hint(scheme)}use one of {', '.join(SCHEMES)}")
    message: TensorSpec = getattr(_Specs(), scheme)(shape, **parameters)
    return message


# What others call our parameters: NumPy, JAX, Keras and torch.
_ELSEWHERE = {
    "std": ("stddev", "sigma", "scale"),
    "mean": ("loc", "mu"),
    "a": ("low", "lower", "minval", "negative_slope"),
    "b": ("high", "upper", "maxval"),
    "val": ("value", "fill_value"),
    "shape": ("size",),
    "seed": ("generator", "key", "rng", "random_state"),
    "out": ("tensor",),
}


def _unexpected(method: str, name: str) -> str:
    """What is said of a keyword that a scheme does not take."""
    taken = [parameter for parameter in inspect.signature(getattr(Schemes, method)).parameters if parameter != "self"]
    near = next((ours for ours, theirs in _ELSEWHERE.items() if name in theirs and ours in taken), _near(name, taken))
    hint = f"; did you mean {near!r}?" if near else ""
    return f"{method}() got an unexpected keyword argument {name!r}{hint or '; it takes ' + ', '.join(taken)}"


_IN_JAX = {"lecun": (1, "fan_in"), "he": (2, "fan_in"), "glorot": (1, "fan_avg")}  # and in Keras
_DISTRIBUTIONS_IN_JAX = {"normal": "truncated_normal", "uniform": "uniform"}


def _hint(scheme: object) -> str:
    """What was probably meant by a name that is no scheme's."""
    prefix, _, kind = str(scheme).partition("_")
    if prefix in _IN_JAX and kind in _DISTRIBUTIONS_IN_JAX:
        scale, mode = _IN_JAX[prefix]
        return f"it is variance_scaling with {scale}, {mode!r}, {_DISTRIBUTIONS_IN_JAX[kind]!r}; "
    near = _near(scheme, SCHEMES)
    return f"did you mean {near}? " if near else ""


def _near(name: object, names: Sequence[str]) -> str | None:
    """The name that was probably meant."""
    return next(iter(difflib.get_close_matches(str(name), names, 1, 0.75)), None)


def nonlinearity_of(name: str, field: str) -> Nonlinearity:
    """The contract's number of a nonlinearity."""
    return table.NONLINEARITY.convert(name, field, "nonlinearity")  # type: ignore[return-value]  # of this enumeration
