"""The schemes: the one place where Python arguments become a TensorSpec.

`Schemes` has a method for each, generic in what the method returns: an array from `seedbed.Client`, a coroutine from
`seedbed.aio.AsyncClient`, the bare message from `seedbed.spec`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, SupportsIndex, TypedDict, TypeVar, Unpack

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from seedbed import dtypes
from seedbed._ask import arguments
from seedbed._types import Array, DTypeLike, Progress, RegionLike, Shape, Timeout
from seedbed.errors import InvalidRequest
from seedbed.v1 import (
    BoundsUnit,
    Constant,
    DeltaOrthogonal,
    Dirac,
    Disk,
    Distribution,
    Eye,
    FanMode,
    Kaiming,
    Nonlinearity,
    Normal,
    Ones,
    Orthogonal,
    Permutation,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
    Xavier,
    Zeros,
)

R = TypeVar("R")
_Method = TypeVar("_Method", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The keywords that every scheme takes; `_OPTIONS` has their defaults and meaning."""

    seed: SupportsIndex
    name: str
    dtype: DTypeLike
    algorithm_version: SupportsIndex
    stream: str
    region: RegionLike | None
    out: Array | None
    progress: Progress | bool | None
    timeout: Timeout


_OPTIONS: dict[str, tuple[object, str]] = {
    "seed": (0, "Any integer in 0 .. 2^64 - 1."),
    "name": ("", "The tensor's name; tensors of other names are independent of it."),
    "dtype": ("float32", "float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names."),
    "algorithm_version": (0, "The version of the stream; 0 means the server's newest."),
    "stream": ("", "The name that is hashed in place of the tensor's own, so that a copy holds what it copies."),
    "region": (None, "The part wanted, as ``np.s_[...]`` slices; default all of it."),
    "out": (None, "An array of the region's shape and of this dtype to fill; default a new one."),
    "progress": (None, "Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar."),
    "timeout": (..., "Seconds for the whole call; None waits for ever; default the client's."),
}
_IN_MESSAGE = ("seed", "name", "dtype", "algorithm_version", "stream")


def _members(enum: EnumTypeWrapper, prefix: str) -> dict[str, Any]:
    """The values of an enumeration by their Python names, the unspecified one left out."""
    return {name.removeprefix(prefix).lower(): value for name, value in enum.items() if value}


_FAN_MODES: dict[str, FanMode] = _members(FanMode, "FAN_MODE_")
_TORCH_FAN_MODES = {name: _FAN_MODES[name] for name in ("fan_in", "fan_out")}
_NONLINEARITIES: dict[str, Nonlinearity] = _members(Nonlinearity, "NONLINEARITY_")
_DISTRIBUTIONS: dict[str, Distribution] = _members(Distribution, "DISTRIBUTION_")
_BOUNDS_UNITS: dict[str, BoundsUnit] = _members(BoundsUnit, "BOUNDS_UNIT_")

_names: list[str] = []


def _scheme(method: _Method) -> _Method:
    """Registers a scheme, and spells its ``**options`` out for help(), inspect and the command line."""
    signature = inspect.signature(method)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    types = Options.__annotations__
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name].__forward_arg__)
        for name, (default, _) in _OPTIONS.items()
    ]
    method.__signature__ = signature.replace(parameters=own + shared)  # type: ignore[attr-defined]
    if method.__doc__:
        lines = "\n".join(f"    {name}: {meaning}" for name, (_, meaning) in _OPTIONS.items())
        method.__doc__ = inspect.cleandoc(method.__doc__).replace("    **options: `Options`.", lines)
    _names.append(method.__name__)
    return method


class Schemes(Generic[R]):
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

    def _make(self, method: str, shape: Shape, scheme: Message, options: Options) -> R:
        """Builds the spec whose scheme is ``scheme``, a message, and runs it."""
        for name in options:
            if name not in _OPTIONS:
                raise TypeError(_unexpected(method, name))
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
        getattr(spec, method).CopyFrom(scheme)
        return self._run(spec, **{name: value for name, value in options.items() if name not in _IN_MESSAGE})  # type: ignore[arg-type]

    @_scheme
    def constant(self, shape: Shape, val: float, **options: Unpack[Options]) -> R:
        """Every element ``val``.

        Args:
            shape: The global shape.
            val: The value; finite and within the range of the dtype.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.constant((2, 2), 0.5)
        array([[0.5, 0.5],
               [0.5, 0.5]], dtype=float32)
        """
        return self._make("constant", shape, Constant(val=_number(val, "constant.val")), options)

    @_scheme
    def ones(self, shape: Shape, **options: Unpack[Options]) -> R:
        """Every element 1.

        Args:
            shape: The global shape.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.ones((3,))
        array([1., 1., 1.], dtype=float32)
        """
        return self._make("ones", shape, Ones(), options)

    @_scheme
    def zeros(self, shape: Shape, **options: Unpack[Options]) -> R:
        """Every element 0.

        Args:
            shape: The global shape.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.zeros((3,), dtype="float64")
        array([0., 0., 0.])
        """
        return self._make("zeros", shape, Zeros(), options)

    @_scheme
    def eye(self, shape: Shape, **options: Unpack[Options]) -> R:
        """The identity matrix: 1 where row and column are equal, else 0.

        Args:
            shape: The global shape; 2 dimensions, which need not be equal.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.eye((2, 3))
        array([[1., 0., 0.],
               [0., 1., 0.]], dtype=float32)
        """
        return self._make("eye", shape, Eye(), options)

    @_scheme
    def dirac(self, shape: Shape, groups: SupportsIndex = 1, **options: Unpack[Options]) -> R:
        """The Dirac delta of convolutions: passes as many channels as possible through unchanged.

        For each group g, ``w[g * out / groups + d, d, k // 2, ...] = 1``; all else is 0.

        Args:
            shape: The global shape ``(out_channels, in_channels / groups, kernel...)``; 3 to 5 dimensions.
            groups: Groups of the convolution; at least 1 and a divisor of ``shape[0]``.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.dirac((2, 2, 3))
        array([[[0., 1., 0.],
                [0., 0., 0.]],
        <BLANKLINE>
               [[0., 0., 0.],
                [0., 1., 0.]]], dtype=float32)
        """
        count = arguments.integer(groups, "spec.dirac.groups", "groups", arguments.INT64)
        return self._make("dirac", shape, Dirac(groups=count), options)

    @_scheme
    def uniform(self, shape: Shape, a: float = 0.0, b: float = 1.0, **options: Unpack[Options]) -> R:
        """The uniform distribution on [a, b): ``a <= x < b`` holds for every value, in every dtype.

        Args:
            shape: The global shape.
            a: Lower bound, included.
            b: Upper bound, excluded unless it equals ``a``.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.uniform((100, 100), -0.5, 0.5, seed=7, dtype="bfloat16")
        >>> bool(w.min() >= -0.5), bool(w.max() < 0.5)
        (True, True)
        """
        scheme = Uniform(a=_number(a, "uniform.a"), b=_number(b, "uniform.b"))
        return self._make("uniform", shape, scheme, options)

    @_scheme
    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, **options: Unpack[Options]) -> R:
        """The normal distribution N(mean, std^2).

        Args:
            shape: The global shape.
            mean: Mean.
            std: Standard deviation; at least 0.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.normal((1000, 100), std=0.02, name="wte.weight")
        >>> round(float(w.std()), 3)
        0.02
        """
        scheme = Normal(mean=_number(mean, "normal.mean"), std=_number(std, "normal.std"))
        return self._make("normal", shape, scheme, options)

    @_scheme
    def trunc_normal(
        self,
        shape: Shape,
        mean: float = 0.0,
        std: float = 1.0,
        a: float = -2.0,
        b: float = 2.0,
        *,
        bounds: str = "absolute",
        **options: Unpack[Options],
    ) -> R:
        """The normal distribution N(mean, std^2), conditioned on [a, b].

        Args:
            shape: The global shape.
            mean: Mean before the cut.
            std: Standard deviation before the cut; at least 0.
            a: Lower bound, included.
            b: Upper bound, included.
            bounds: The unit of ``a`` and ``b``: "absolute" as in torch, or "sigma" (standard deviations from the mean)
                as in JAX and Keras.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.trunc_normal((100, 100), std=0.02, bounds="sigma")
        >>> bool(abs(w).max() <= 0.04)
        True
        """
        scheme = TruncNormal(
            mean=_number(mean, "trunc_normal.mean"),
            std=_number(std, "trunc_normal.std"),
            a=_number(a, "trunc_normal.a"),
            b=_number(b, "trunc_normal.b"),
            bounds=arguments.choice(
                bounds, _BOUNDS_UNITS, "spec.trunc_normal.bounds", "Unknown bounds {value}; use one of {names}"
            ),
        )
        return self._make("trunc_normal", shape, scheme, options)

    @_scheme
    def xavier_uniform(self, shape: Shape, gain: float = 1.0, **options: Unpack[Options]) -> R:
        """Uniform within +-gain * sqrt(6 / (fan_in + fan_out)).

        From Glorot and Bengio, «Understanding the difficulty of training deep feedforward neural networks» (2010).

        Args:
            shape: The global shape; at least 2 dimensions.
            gain: Factor on the standard deviation; at least 0. See `Client.calculate_gain`.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.xavier_uniform((300, 300), gain=0.5)
        >>> bool(abs(w).max() <= 0.05)
        True
        """
        return self._make("xavier_uniform", shape, Xavier(gain=_number(gain, "xavier_uniform.gain")), options)

    @_scheme
    def xavier_normal(self, shape: Shape, gain: float = 1.0, **options: Unpack[Options]) -> R:
        """Normal with mean 0 and std gain * sqrt(2 / (fan_in + fan_out)).

        From Glorot and Bengio, «Understanding the difficulty of training deep feedforward neural networks» (2010).

        Args:
            shape: The global shape; at least 2 dimensions.
            gain: Factor on the standard deviation; at least 0. See `Client.calculate_gain`.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.xavier_normal((400, 400))
        >>> round(float(w.std()), 3)
        0.05
        """
        return self._make("xavier_normal", shape, Xavier(gain=_number(gain, "xavier_normal.gain")), options)

    @_scheme
    def kaiming_uniform(
        self,
        shape: Shape,
        a: float = 0.0,
        mode: str = "fan_in",
        nonlinearity: str = "leaky_relu",
        *,
        gain: float | None = None,
        **options: Unpack[Options],
    ) -> R:
        """Uniform within +-gain * sqrt(3 / fan).

        From He et al., «Delving deep into rectifiers» (2015).

        Args:
            shape: The global shape; at least 2 dimensions.
            a: Negative slope of leaky_relu; not read for another nonlinearity.
            mode: "fan_in" (preserves variance in the forward pass) or "fan_out" (in the backward pass).
            nonlinearity: What follows the layer; decides the gain. See `Client.calculate_gain`.
            gain: If given, used instead of the nonlinearity's gain; at least 0.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.kaiming_uniform((64, 600), nonlinearity="relu")
        >>> bool(abs(w).max() <= 0.1)
        True
        """
        scheme = _kaiming("kaiming_uniform", a, mode, nonlinearity, gain)
        return self._make("kaiming_uniform", shape, scheme, options)

    @_scheme
    def kaiming_normal(
        self,
        shape: Shape,
        a: float = 0.0,
        mode: str = "fan_in",
        nonlinearity: str = "leaky_relu",
        *,
        gain: float | None = None,
        **options: Unpack[Options],
    ) -> R:
        """Normal with mean 0 and std gain / sqrt(fan).

        From He et al., «Delving deep into rectifiers» (2015).

        Args:
            shape: The global shape; at least 2 dimensions.
            a: Negative slope of leaky_relu; not read for another nonlinearity.
            mode: "fan_in" (preserves variance in the forward pass) or "fan_out" (in the backward pass).
            nonlinearity: What follows the layer; decides the gain. See `Client.calculate_gain`.
            gain: If given, used instead of the nonlinearity's gain; at least 0.
            **options: `Options`.

        A shard is the same numbers as that part of the whole:

        >>> import numpy as np, seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.kaiming_normal((64, 32), mode="fan_out", nonlinearity="relu", seed=7)
        ...     shard = client.kaiming_normal((64, 32), mode="fan_out", nonlinearity="relu", seed=7,
        ...                                   region=np.s_[16:32, :])
        >>> bool((shard == w[16:32]).all())
        True
        """
        scheme = _kaiming("kaiming_normal", a, mode, nonlinearity, gain)
        return self._make("kaiming_normal", shape, scheme, options)

    @_scheme
    def disk(self, shape: Shape, radius: float = 1.0, std: float | None = None, **options: Unpack[Options]) -> R:
        """Complex numbers of any angle and of modulus ``radius`` at most; of dtype "complex64".

        They are uniform on the disk, or normal. JAX's ``variance_scaling`` draws these where a dtype is complex.

        Args:
            shape: The global shape.
            radius: The greatest modulus; at least 0.
            std: If given, makes it a normal of this standard deviation before the cut; at most 16 times the radius.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.disk((100, 100), 0.5, dtype="complex64")
        >>> bool(abs(w).max() <= 0.500001)
        True
        """
        scheme = Disk(radius=_number(radius, "disk.radius"), std=None if std is None else _number(std, "disk.std"))
        return self._make("disk", shape, scheme, options)

    @_scheme
    def orthogonal(self, shape: Shape, gain: float = 1.0, axis: SupportsIndex = 0, **options: Unpack[Options]) -> R:
        """A random (semi-)orthogonal matrix, uniform by Haar's measure, times gain.

        Its rows are the indices of one axis, its columns those of all others.

        From Saxe et al., «Exact solutions to the nonlinear dynamics of learning in deep linear neural networks» (2013).

        Args:
            shape: The global shape; at least 2 dimensions, and not more elements than
                ``server_info().limits.max_orthogonal_elements``.
            gain: Factor; at least 0.
            axis: The axis of the rows: 0 as in torch, -1 as in JAX and Keras, whose columns it has.
            **options: `Options`.

        >>> import numpy as np, seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.orthogonal((3, 5), dtype="float64")
        >>> np.allclose(w @ w.T, np.eye(3))
        True
        """
        scheme = Orthogonal(gain=_number(gain, "orthogonal.gain"), axis=_axis(axis, "orthogonal.axis"))
        return self._make("orthogonal", shape, scheme, options)

    @_scheme
    def delta_orthogonal(
        self,
        shape: Shape,
        gain: float = 1.0,
        out_axis: SupportsIndex = 0,
        in_axis: SupportsIndex = 1,
        **options: Unpack[Options],
    ) -> R:
        """A convolution's kernel that is 0 but at its centre, where there is an orthogonal matrix, times gain.

        From Xiao et al., «Dynamical isometry and a mean field theory of CNNs» (2018).

        Args:
            shape: The global shape, ``(out_channels, in_channels, kernel...)`` unless the axes say otherwise; 3 to 5
                dimensions, at least as many outputs as inputs.
            gain: Factor; at least 0.
            out_axis: The axis of the outputs: 0 as in torch, -1 as in JAX.
            in_axis: The axis of the inputs: 1 as in torch, -2 as in JAX.
            **options: `Options`.

        >>> import numpy as np, seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.delta_orthogonal((5, 3, 3), dtype="float64")
        >>> np.allclose(w[:, :, 1].T @ w[:, :, 1], np.eye(3)), bool(w[:, :, ::2].any())
        (True, False)
        """
        scheme = DeltaOrthogonal(
            gain=_number(gain, "delta_orthogonal.gain"),
            out_axis=_axis(out_axis, "delta_orthogonal.out_axis"),
            in_axis=_axis(in_axis, "delta_orthogonal.in_axis"),
        )
        return self._make("delta_orthogonal", shape, scheme, options)

    @_scheme
    def sparse(self, shape: Shape, sparsity: float, std: float = 0.01, **options: Unpack[Options]) -> R:
        """Normal with mean 0, and ceil(sparsity * rows) elements of each column 0.

        From Martens, «Deep learning via Hessian-free optimization» (2010).

        Args:
            shape: The global shape; 2 dimensions.
            sparsity: The fraction of each column that is 0; in [0, 1].
            std: Standard deviation of the other elements; at least 0.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.sparse((10, 4), sparsity=0.3)
        >>> (w == 0).sum(axis=0).tolist()
        [3, 3, 3, 3]
        """
        scheme = Sparse(sparsity=_number(sparsity, "sparse.sparsity"), std=_number(std, "sparse.std"))
        return self._make("sparse", shape, scheme, options)

    @_scheme
    def variance_scaling(
        self,
        shape: Shape,
        scale: float,
        mode: str,
        distribution: str,
        in_axis: SupportsIndex | Iterable[SupportsIndex] = -2,
        out_axis: SupportsIndex | Iterable[SupportsIndex] = -1,
        batch_axis: SupportsIndex | Iterable[SupportsIndex] = (),
        *,
        gain: float = 1.0,
        **options: Unpack[Options],
    ) -> R:
        """Variance gain^2 * scale / n, where n is a fan: ``jax.nn.initializers.variance_scaling``.

        JAX's and Keras's others are ``(scale, mode)`` of it: lecun is ``(1, "fan_in")``, he is ``(2, "fan_in")``,
        glorot is ``(1, "fan_avg")``; their ``*_normal`` have the distribution "truncated_normal", ``*_uniform``
        "uniform".

        Args:
            shape: The global shape, in JAX's order ``(..., in, out)`` unless the axes say otherwise.
            scale: Factor on the variance; at least 0.
            mode: Which fan is n: "fan_in", "fan_out", "fan_avg" (their mean) or "fan_geo_avg" (their geometric mean).
            distribution: "uniform", "normal", or "truncated_normal" (cut at two standard deviations, widened so that
                the variance is right after the cut).
            in_axis: Input axis or axes.
            out_axis: Output axis or axes.
            batch_axis: Axes that count neither for the fans nor for the receptive field.
            gain: Factor on the standard deviation, for depth or width scaling; at least 0.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     lecun_normal = client.variance_scaling((400, 300), 1.0, "fan_in", "truncated_normal")
        >>> round(float(lecun_normal.std()), 3)
        0.05
        """
        field = "spec.variance_scaling"
        scheme = VarianceScaling(
            scale=_number(scale, "variance_scaling.scale"),
            mode=_fan_mode(mode, _FAN_MODES, f"{field}.mode"),
            distribution=arguments.choice(
                distribution,
                _DISTRIBUTIONS,
                f"{field}.distribution",
                "Distribution {value} not supported, please use one of {names}",
            ),
            in_axis=arguments.axes(in_axis, f"{field}.in_axis"),
            out_axis=arguments.axes(out_axis, f"{field}.out_axis"),
            batch_axis=arguments.axes(batch_axis, f"{field}.batch_axis"),
            gain=_number(gain, "variance_scaling.gain"),
        )
        return self._make("variance_scaling", shape, scheme, options)

    @_scheme
    def permutation(self, shape: Shape, **options: Unpack[Options]) -> R:
        """The numbers 0 .. n - 1 in random order, n the number of elements.

        Args:
            shape: The global shape.
            **options: `Options`.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     order = client.permutation((2, 4), seed=7)
        >>> sorted(order.ravel().tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        """
        return self._make("permutation", shape, Permutation(), options)


SCHEMES = tuple(_names)
"""The names of all schemes."""


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
    return arguments.choice(name, _NONLINEARITIES, field, "Unsupported nonlinearity {value}; use one of {names}")


def _kaiming(method: str, a: float, mode: str, nonlinearity: str, gain: float | None) -> Kaiming:
    return Kaiming(
        a=_number(a, f"{method}.a", "negative_slope"),
        mode=_fan_mode(mode, _TORCH_FAN_MODES, f"spec.{method}.mode"),
        nonlinearity=nonlinearity_of(nonlinearity, f"spec.{method}.nonlinearity"),
        gain=None if gain is None else _number(gain, f"{method}.gain"),
    )


def _fan_mode(mode: str, modes: dict[str, FanMode], field: str) -> FanMode:
    name = mode.lower() if isinstance(mode, str) else mode
    return arguments.choice(name, modes, field, "Mode {value} not supported, please use one of {names}")


def _axis(value: SupportsIndex, path: str) -> int:
    return arguments.integer(value, f"spec.{path}", "axis", arguments.INT32)


def _number(value: object, path: str, what: str | None = None) -> float:
    return arguments.number(value, f"spec.{path}", what or path.rpartition(".")[2])
