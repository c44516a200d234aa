"""The arguments of a scheme's method, or of `seedbed.spec`, as a TensorSpec.

`Schemes` has a method for each scheme, and is generic in its result: an array for `seedbed.Client`, a coroutine for
`seedbed.aio.AsyncClient`, the message itself for `spec`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from seedbed import dtypes
from seedbed._ask import arguments, table
from seedbed._ask.methods import R, SchemeMethods
from seedbed._types import Array, Options, Progress, RegionLike, Shape, Timeout
from seedbed.errors import InvalidRequest
from seedbed.v1 import Nonlinearity, TensorSpec

SCHEMES = tuple(table.SCHEMES)
"""The names of all schemes."""

OPTIONS = {option.name: option for option in table.OPTIONS}


class Schemes(SchemeMethods[R]):
    """One method for each scheme, with the names and parameters of ``torch.nn.init``.

    Each returns ``out``, or a NumPy array of the region's shape; ml_dtypes provides bfloat16. Those of
    `seedbed.aio.AsyncClient` are coroutines. Each raises `InvalidRequest` before any sampling if an argument is
    invalid, and other errors of `seedbed.errors` if the server cannot be reached or fails. Fans come from the shape,
    never from the region.
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


def _show_options() -> None:
    """Replace ``**options`` by the options in the signatures that ``help()`` and `inspect` show."""
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


_show_options()


class _Specs(Schemes[TensorSpec]):
    """Returns the message itself."""

    def _run(self, spec: TensorSpec, **call: object) -> TensorSpec:
        for name in call:
            raise TypeError(f"spec() got an unexpected keyword argument {name!r}; give it to client.init")
        return spec


def spec(scheme: str, shape: Shape, **parameters: object) -> TensorSpec:
    """The message for a scheme; `seedbed.spec` accepts Values and parts, too.

    Args:
        scheme: One of `SCHEMES`.
        shape: The global shape.
        **parameters: The parameters of the scheme's method, and the options that are in the message.

    Raises:
        InvalidRequest: The scheme is unknown, or a message cannot carry a parameter.
        TypeError: The scheme has no such parameter.
    """
    if scheme not in SCHEMES:
        raise InvalidRequest("spec.scheme", f"unknown scheme {scheme}; {_hint(scheme)}use one of {', '.join(SCHEMES)}")
    message: TensorSpec = getattr(_Specs(), scheme)(shape, **parameters)
    return message


# The names of our parameters in NumPy, JAX, Keras and torch.
_FOREIGN_NAMES = {
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
    """The message about a keyword that a scheme does not have."""
    accepted = [
        parameter for parameter in inspect.signature(getattr(Schemes, method)).parameters if parameter != "self"
    ]
    near = next(
        (ours for ours, theirs in _FOREIGN_NAMES.items() if name in theirs and ours in accepted), _near(name, accepted)
    )
    hint = f"; did you mean {near!r}?" if near else ""
    return f"{method}() got an unexpected keyword argument {name!r}{hint or '; it accepts ' + ', '.join(accepted)}"


_VARIANCE_SCALING_NAMES = {"lecun": (1, "fan_in"), "he": (2, "fan_in"), "glorot": (1, "fan_avg")}  # of JAX and Keras
_VARIANCE_SCALING_DISTRIBUTIONS = {"normal": "truncated_normal", "uniform": "uniform"}


def _hint(scheme: object) -> str:
    """The scheme that an unknown name probably means."""
    prefix, _, kind = str(scheme).partition("_")
    if prefix in _VARIANCE_SCALING_NAMES and kind in _VARIANCE_SCALING_DISTRIBUTIONS:
        scale, mode = _VARIANCE_SCALING_NAMES[prefix]
        return f"it is variance_scaling with {scale}, {mode!r}, {_VARIANCE_SCALING_DISTRIBUTIONS[kind]!r}; "
    near = _near(scheme, SCHEMES)
    return f"did you mean {near}? " if near else ""


def _near(name: object, names: Sequence[str]) -> str | None:
    """The closest of these names, or None."""
    return next(iter(difflib.get_close_matches(str(name), names, 1, 0.75)), None)


def nonlinearity_of(name: str, field: str) -> Nonlinearity:
    """The contract's value for a nonlinearity."""
    return table.NONLINEARITY.convert(name, field, "nonlinearity")  # type: ignore[return-value]  # of this enumeration
