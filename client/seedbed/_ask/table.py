"""The schemes, as data. The clients' methods, their checks, the commands, the web form and the docs follow from it.

``make schemes`` writes `seedbed._ask.methods` from this table. A new scheme is an entry here and a message in the
contract.
"""

from __future__ import annotations

from typing import Final

from seedbed import dtypes
from seedbed._ask import texts
from seedbed._ask.arguments import INT32, INT64
from seedbed._ask.parameters import Axes, Choice, Integer, Number, Option, Parameter, Scheme, numbers_of
from seedbed.v1 import BoundsUnit, Distribution, FanMode, Nonlinearity

_FAN_MODES: Final = numbers_of(FanMode, "FAN_MODE_")
_MODE_REFUSAL: Final = "Mode {value} not supported, please use one of {names}"  # torch's message, as are others below

NUMBER: Final = Number()
AXIS: Final = Integer(INT32)
AXES: Final = Axes()
FAN_MODE: Final = Choice("FanModeName", _FAN_MODES, _MODE_REFUSAL, is_any_case=True)
TORCH_FAN_MODE: Final = Choice(
    "TorchFanModeName", {name: _FAN_MODES[name] for name in ("fan_in", "fan_out")}, _MODE_REFUSAL, is_any_case=True
)
NONLINEARITY: Final = Choice(
    "NonlinearityName",
    numbers_of(Nonlinearity, "NONLINEARITY_"),
    "Unsupported nonlinearity {value}; use one of {names}",
)
DISTRIBUTION: Final = Choice(
    "DistributionName",
    numbers_of(Distribution, "DISTRIBUTION_"),
    "Distribution {value} not supported, please use one of {names}",
)
BOUNDS: Final = Choice(
    "BoundsName", numbers_of(BoundsUnit, "BOUNDS_UNIT_"), "Unknown bounds {value}; use one of {names}"
)

OPTIONS: Final = (
    Option(
        "seed",
        0,
        "Any integer in 0 .. 2^64 - 1.",
        is_in_message=True,
        text_meaning="Any integer in 0 .. 2^64 - 1, also as 0x….",
        text_default="0",
        metavar="N",
        read=texts.seed,
    ),
    Option(
        "name",
        "",
        "The tensor's name; tensors of different names are independent.",
        is_in_message=True,
        text_meaning="The tensor's name; tensors of different names are independent.",
        text_default="none",
    ),
    Option(
        "dtype",
        "float32",
        "float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.",
        is_in_message=True,
        text_meaning="The type of the elements.",
        text_default="float32",
        read=texts.dtype,
        choices=dtypes.NAMES,
    ),
    Option(
        "algorithm_version",
        0,
        "The version of the stream; 0 means the server's newest.",
        is_in_message=True,
        text_meaning="The version of the stream.",
        text_default="the newest",
        metavar="N",
        read=texts.integer,
    ),
    Option(
        "stream",
        "",
        "The name to hash instead of the tensor's own, so that a copy has the same values as its original.",
        is_in_message=True,
        text_meaning="The name to hash instead of the tensor's own.",
        text_default="its own",
    ),
    Option(
        "region",
        None,
        "The region to return, as ``np.s_[...]`` slices; default all of the tensor.",
        text_meaning="The region to return: a range for each dimension, such as 0:10,: or 5:,...",
        text_default="all of the tensor",
        metavar="START:STOP,…",
        read=texts.region,
    ),
    Option("out", None, "An array of the region's shape and of this dtype to fill; default a new one."),
    Option("progress", None, "Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar."),
    Option("timeout", ..., "Seconds for the whole call; None waits for ever; default the client's."),
)
"""The keywords of every scheme."""

_XAVIER: Final = (
    Parameter(
        "gain",
        NUMBER,
        "Factor on the standard deviation",
        1.0,
        allowed="at least 0",
        see="`Client.calculate_gain`",
    ),
)
_GLOROT: Final = "Glorot and Bengio, “Understanding the difficulty of training deep feedforward neural networks” (2010)"
_KAIMING: Final = (
    Parameter(
        "a",
        NUMBER,
        "Negative slope of leaky_relu; ignored for other nonlinearities",
        0.0,
        label="negative_slope",
    ),
    Parameter(
        "mode",
        TORCH_FAN_MODE,
        '"fan_in" (preserves variance in the forward pass) or "fan_out" (in the backward pass)',
        "fan_in",
    ),
    Parameter(
        "nonlinearity",
        NONLINEARITY,
        "The nonlinearity after the layer, which determines the gain",
        "leaky_relu",
        see="`Client.calculate_gain`",
    ),
    Parameter(
        "gain",
        NUMBER,
        "Replaces the nonlinearity's gain, if given",
        None,
        allowed="at least 0",
        is_keyword_only=True,
    ),
)
_HE: Final = "He et al., “Delving deep into rectifiers” (2015)"

_ALL: Final = (
    Scheme(
        "constant",
        "Every element ``val``.",
        parameters=(Parameter("val", NUMBER, "The value", allowed="finite and within the range of the dtype"),),
        command={"shape": "768", "val": "0.5"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     client.constant((2, 2), 0.5)
array([[0.5, 0.5],
       [0.5, 0.5]], dtype=float32)
""",
    ),
    Scheme(
        "ones",
        "Every element 1.",
        command={"shape": "768"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     client.ones((3,))
array([1., 1., 1.], dtype=float32)
""",
    ),
    Scheme(
        "zeros",
        "Every element 0.",
        command={"shape": "768"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     client.zeros((3,), dtype="float64")
array([0., 0., 0.])
""",
    ),
    Scheme(
        "eye",
        "The identity matrix: 1 where row and column are equal, else 0.",
        shape="2 dimensions, which need not be equal",
        command={"shape": "512,512"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     client.eye((2, 3))
array([[1., 0., 0.],
       [0., 1., 0.]], dtype=float32)
""",
    ),
    Scheme(
        "dirac",
        "The Dirac delta of convolutions: passes as many channels as possible through unchanged.",
        shape="``(out_channels, in_channels / groups, kernel...)``; 3 to 5 dimensions",
        parameters=(
            Parameter(
                "groups",
                Integer(INT64),
                "Groups of the convolution",
                1,
                allowed="at least 1 and a divisor of ``shape[0]``",
            ),
        ),
        details="For each group g, ``w[g * out / groups + d, d, k // 2, ...] = 1``; all else is 0.",
        command={"shape": "64,64,3,3"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     client.dirac((2, 2, 3))
array([[[0., 1., 0.],
        [0., 0., 0.]],
<BLANKLINE>
       [[0., 0., 0.],
        [0., 1., 0.]]], dtype=float32)
""",
    ),
    Scheme(
        "uniform",
        "The uniform distribution on [a, b): ``a <= x < b`` holds for every value, in every dtype.",
        parameters=(
            Parameter("a", NUMBER, "Lower bound, included", 0.0),
            Parameter("b", NUMBER, "Upper bound, excluded unless it equals ``a``", 1.0),
        ),
        command={"shape": "4096,4096", "a": "-0.1", "b": "0.1", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.uniform((100, 100), -0.5, 0.5, seed=7, dtype="bfloat16")
>>> bool(w.min() >= -0.5), bool(w.max() < 0.5)
(True, True)
""",
    ),
    Scheme(
        "normal",
        "The normal distribution N(mean, std^2).",
        parameters=(
            Parameter("mean", NUMBER, "Mean", 0.0),
            Parameter("std", NUMBER, "Standard deviation", 1.0, allowed="at least 0"),
        ),
        command={"shape": "50257,768", "std": "0.02", "seed": "7", "name": "wte.weight"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.normal((1000, 100), std=0.02, name="wte.weight")
>>> round(float(w.std()), 3)
0.02
""",
    ),
    Scheme(
        "trunc_normal",
        "The normal distribution N(mean, std^2), conditioned on [a, b].",
        parameters=(
            Parameter("mean", NUMBER, "Mean before the cut", 0.0),
            Parameter("std", NUMBER, "Standard deviation before the cut", 1.0, allowed="at least 0"),
            Parameter("a", NUMBER, "Lower bound, included", -2.0),
            Parameter("b", NUMBER, "Upper bound, included", 2.0),
            Parameter(
                "bounds",
                BOUNDS,
                (
                    'The unit of ``a`` and ``b``: "absolute" as in torch, or "sigma" (standard deviations from '
                    "the mean) as in JAX and Keras"
                ),
                "absolute",
                is_keyword_only=True,
            ),
        ),
        command={"shape": "197,768", "std": "0.02", "a": "-2", "b": "2", "bounds": "sigma", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.trunc_normal((100, 100), std=0.02, bounds="sigma")
>>> bool(abs(w).max() <= 0.04)
True
""",
    ),
    Scheme(
        "xavier_uniform",
        "Uniform within +-gain * sqrt(6 / (fan_in + fan_out)).",
        shape="at least 2 dimensions",
        parameters=_XAVIER,
        source=_GLOROT,
        command={"shape": "4096,4096", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.xavier_uniform((300, 300), gain=0.5)
>>> bool(abs(w).max() <= 0.05)
True
""",
    ),
    Scheme(
        "xavier_normal",
        "Normal with mean 0 and std gain * sqrt(2 / (fan_in + fan_out)).",
        shape="at least 2 dimensions",
        parameters=_XAVIER,
        source=_GLOROT,
        command={"shape": "4096,4096", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.xavier_normal((400, 400))
>>> round(float(w.std()), 3)
0.05
""",
    ),
    Scheme(
        "kaiming_uniform",
        "Uniform within +-gain * sqrt(3 / fan).",
        shape="at least 2 dimensions",
        parameters=_KAIMING,
        source=_HE,
        command={"shape": "64,3,7,7", "nonlinearity": "relu", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.kaiming_uniform((64, 600), nonlinearity="relu")
>>> bool(abs(w).max() <= 0.1)
True
""",
    ),
    Scheme(
        "kaiming_normal",
        "Normal with mean 0 and std gain / sqrt(fan).",
        shape="at least 2 dimensions",
        parameters=_KAIMING,
        source=_HE,
        command={"shape": "4096,4096", "mode": "fan_out", "nonlinearity": "relu", "seed": "7", "region": "1024:2048,:"},
        example=r"""
A shard has the same values as that region of the tensor:

>>> import numpy as np, seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.kaiming_normal((64, 32), mode="fan_out", nonlinearity="relu", seed=7)
...     shard = client.kaiming_normal((64, 32), mode="fan_out", nonlinearity="relu", seed=7,
...                                   region=np.s_[16:32, :])
>>> bool((shard == w[16:32]).all())
True
""",
    ),
    Scheme(
        "disk",
        'Complex numbers with modulus at most ``radius`` and uniform angle; the dtype must be "complex64".',
        parameters=(
            Parameter("radius", NUMBER, "Largest modulus", 1.0, allowed="at least 0"),
            Parameter(
                "std",
                NUMBER,
                "If given, the distribution is normal with this standard deviation before the cut",
                None,
                allowed="at most 16 times the radius",
            ),
        ),
        details=(
            "Uniform on the disk, or normal and cut at its edge. JAX's ``variance_scaling`` draws these for complex "
            "dtypes."
        ),
        command={"shape": "4096,4096", "radius": "0.02", "dtype": "complex64", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.disk((100, 100), 0.5, dtype="complex64")
>>> bool(abs(w).max() <= 0.500001)
True
""",
    ),
    Scheme(
        "orthogonal",
        "A random (semi-)orthogonal matrix, uniform by the Haar measure, times gain.",
        shape="at least 2 dimensions, and at most ``server_info().limits.max_orthogonal_elements`` elements",
        parameters=(
            Parameter("gain", NUMBER, "Factor", 1.0, allowed="at least 0"),
            Parameter("axis", AXIS, "The axis of the rows: 0 as in torch; -1 for what JAX and Keras call columns", 0),
        ),
        details="One axis indexes the rows of the matrix; all other axes together index its columns.",
        source=(
            "Saxe et al., “Exact solutions to the nonlinear dynamics of learning in deep linear neural networks” (2013)"
        ),
        command={"shape": "4096,4096", "seed": "7"},
        example=r"""
>>> import numpy as np, seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.orthogonal((3, 5), dtype="float64")
>>> np.allclose(w @ w.T, np.eye(3))
True
""",
    ),
    Scheme(
        "delta_orthogonal",
        "A convolution kernel that is 0 except at its centre, which is an orthogonal matrix times gain.",
        shape=(
            "``(out_channels, in_channels, kernel...)`` unless the axes say otherwise; 3 to 5 dimensions, at "
            "least as many outputs as inputs"
        ),
        parameters=(
            Parameter("gain", NUMBER, "Factor", 1.0, allowed="at least 0"),
            Parameter("out_axis", AXIS, "The axis of the outputs: 0 as in torch, -1 as in JAX", 0),
            Parameter("in_axis", AXIS, "The axis of the inputs: 1 as in torch, -2 as in JAX", 1),
        ),
        source="Xiao et al., “Dynamical isometry and a mean field theory of CNNs” (2018)",
        command={"shape": "64,64,3,3", "seed": "7"},
        example=r"""
>>> import numpy as np, seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.delta_orthogonal((5, 3, 3), dtype="float64")
>>> np.allclose(w[:, :, 1].T @ w[:, :, 1], np.eye(3)), bool(w[:, :, ::2].any())
(True, False)
""",
    ),
    Scheme(
        "sparse",
        "Normal with mean 0, with ceil(sparsity * rows) elements of each column set to 0.",
        shape="2 dimensions",
        parameters=(
            Parameter("sparsity", NUMBER, "The fraction of each column that is 0", allowed="in [0, 1]"),
            Parameter("std", NUMBER, "Standard deviation of the other elements", 0.01, allowed="at least 0"),
        ),
        source="Martens, “Deep learning via Hessian-free optimization” (2010)",
        command={"shape": "512,512", "sparsity": "0.9", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.sparse((10, 4), sparsity=0.3)
>>> (w == 0).sum(axis=0).tolist()
[3, 3, 3, 3]
""",
    ),
    Scheme(
        "variance_scaling",
        "Variance gain^2 * scale / n, where n is a fan: ``jax.nn.initializers.variance_scaling``.",
        shape="in JAX's order ``(..., in, out)`` unless the axes say otherwise",
        parameters=(
            Parameter("scale", NUMBER, "Factor on the variance", allowed="at least 0"),
            Parameter(
                "mode",
                FAN_MODE,
                ('The fan n: "fan_in", "fan_out", "fan_avg" (their mean) or "fan_geo_avg" (their geometric mean)'),
            ),
            Parameter(
                "distribution",
                DISTRIBUTION,
                (
                    '"uniform", "normal", or "truncated_normal" (cut at two standard deviations, widened so that '
                    "the variance is right after the cut)"
                ),
            ),
            Parameter("in_axis", AXES, "Input axis or axes", -2),
            Parameter("out_axis", AXES, "Output axis or axes", -1),
            Parameter("batch_axis", AXES, "Axes that count towards neither the fans nor the receptive field", ()),
            Parameter(
                "gain",
                NUMBER,
                "Factor on the standard deviation, for depth or width scaling",
                1.0,
                allowed="at least 0",
                is_keyword_only=True,
            ),
        ),
        details=(
            "JAX's and Keras's other initialisers are special cases, by ``(scale, mode)``: lecun is "
            '``(1, "fan_in")``, he is ``(2, "fan_in")``, glorot is ``(1, "fan_avg")``. The distribution of their '
            '``*_normal`` is "truncated_normal", that of ``*_uniform`` is "uniform".'
        ),
        command={"shape": "768,3072", "scale": "1", "mode": "fan_in", "distribution": "truncated_normal", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     lecun_normal = client.variance_scaling((400, 300), 1.0, "fan_in", "truncated_normal")
>>> round(float(lecun_normal.std()), 3)
0.05
""",
    ),
    Scheme(
        "permutation",
        "The numbers 0 .. n - 1 in random order, where n is the number of elements.",
        command={"shape": "50257", "seed": "7"},
        example=r"""
>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     order = client.permutation((2, 4), seed=7)
>>> sorted(order.ravel().tolist())
[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
""",
    ),
)

SCHEMES: Final = {scheme.name: scheme for scheme in _ALL}
"""All schemes by name, in the order in which they are listed."""
