"""The page "Coming from torch, JAX, Keras": every row of its tables, called on both sides and compared.

A row has the peer's call with its defaults, and ours in the words of its parameters. Both are evaluated with the
defaults and with other values. What nothing is drawn for has to be equal; of what is drawn, the peer's values have to
follow the law that Seedbed resolves the call to: its distribution, its standard deviation, its bounds.
"""

import ast
import inspect
import math
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from pages import DOCS, blocks, tables
from scipy import stats

import seedbed
from seedbed._ask.table import NONLINEARITY
from seedbed._show import laws as _laws

PAGE = DOCS / "coming-from.md"
TABLES = tables(PAGE.read_text(encoding="utf-8"))
SAMPLES = 200_000  # at the least; a standard deviation that is 1 % off then is 6 standard errors off
MATRICES = 30  # of the orthogonal ones, which are slow to make
SURE = 1e-5  # a p-value that the 100 comparisons here do not meet by chance; all seeds are fixed

# keras.io/api/layers/initializers, which has these and no others.
KERAS = {
    "RandomNormal", "RandomUniform", "TruncatedNormal", "Zeros", "Ones", "GlorotNormal", "GlorotUniform", "HeNormal",
    "HeUniform", "Orthogonal", "Constant", "VarianceScaling", "LecunNormal", "LecunUniform", "Identity", "STFT",
}  # fmt: skip

MATRIX, KERNEL, TORCH_KERNEL = (300, 500), (3, 5, 24, 40), (40, 24, 3, 5)
FANS = [{"in_axis": 0, "out_axis": 1}, {"in_axis": (0, 1), "out_axis": 2, "batch_axis": -1}]
GAIN = [{"gain": 2.5}]
LAWS = ("uniform", "normal")

# Values beside the defaults, and the shapes; of what is not listed, the defaults and MATRIX.
VALUES = {
    "uniform_": [{"a": -0.3, "b": 0.1}],
    "normal_": [{"mean": 0.5, "std": 0.02}],
    "trunc_normal_": [{"mean": 0.1, "std": 0.5, "a": -0.2, "b": 1.5}],
    "constant_": [{"val": 0.5}, {"val": -3.0}],
    "dirac_": [{"groups": 2}],
    "xavier_uniform_": GAIN,
    "xavier_normal_": GAIN,
    "kaiming_uniform_": [{"a": 0.3, "mode": "fan_out"}, {"nonlinearity": "tanh"}],
    "kaiming_normal_": [{"a": 0.3, "mode": "fan_out"}, {"nonlinearity": "relu"}],
    "orthogonal_": GAIN,
    "sparse_": [{"sparsity": 0.9}, {"sparsity": 0.131, "std": 2.0}],
    "constant": [{"value": 0.5}],
    "uniform": [{"scale": 3.0}],
    "normal": [{"stddev": 2.0}],
    "truncated_normal": [{"stddev": 2.0, "lower": -0.5, "upper": 3.0}],
    "variance_scaling": [
        {"scale": scale, "mode": mode, "distribution": distribution, **axes}
        for scale, mode, distribution, axes in [
            (1.0, "fan_in", "truncated_normal", {}),
            (3.0, "fan_out", "normal", {}),
            (0.5, "fan_avg", "uniform", FANS[0]),
            (2.0, "fan_geo_avg", "uniform", FANS[1]),
        ]
    ],
    **{f"{paper}_{law}": FANS for paper in ("lecun", "glorot", "xavier", "he", "kaiming") for law in LAWS},
    "orthogonal": [{"scale": 2.5}, {"column_axis": 0}],
    "delta_orthogonal": [{"scale": 2.5}, {"column_axis": 0}],
    "Constant": [{"value": 0.5}],
    "Identity": GAIN,
    "RandomUniform": [{"minval": -0.3, "maxval": 0.1}],
    "RandomNormal": [{"mean": 0.5, "stddev": 0.02}],
    "TruncatedNormal": [{"mean": 0.5, "stddev": 0.02}],
    "VarianceScaling": [
        {"scale": 3.0, "mode": "fan_out", "distribution": "uniform"},
        {"scale": 0.5, "mode": "fan_avg", "distribution": "untruncated_normal"},
    ],
    "Orthogonal": GAIN,
}  # fmt: skip
SHAPES = {
    "dirac_": [(6, 4, 3), (6, 8, 3, 4), (8, 3, 2, 3, 5)],
    "eye_": [MATRIX, (5, 3)],
    "Identity": [MATRIX, (5, 3)],
    "sparse_": [MATRIX],
    "orthogonal_": [(30, 50), (50, 30), (50, 5, 6)],
    "orthogonal": [(30, 50), (50, 30), (3, 4, 20), (3, 4, 5)],
    "Orthogonal": [(30, 50), (50, 30), (3, 4, 20), (3, 4, 5)],
    "delta_orthogonal": [(3, 20, 20), (4, 3, 20, 20), (2, 3, 4, 5, 5)],
}


class Recorder(seedbed.Schemes):
    """A client that makes the values and keeps what they resolve to."""

    def __init__(self, client, seed):
        self.client, self.seed, self.descriptions = client, seed, []

    def _run(self, spec, **call):
        spec.seed = self.seed
        self.descriptions.append(self.client.describe(spec))
        return self.client.init(spec, **call)

    def calculate_gain(self, *arguments):
        return self.client.calculate_gain(*arguments)


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


def torch_peer():
    torch = pytest.importorskip("torch")

    def call(code, shape, values, seed):
        torch.manual_seed(seed)
        result = eval(code, {"w": torch.empty(shape), **vars(torch.nn.init)}, dict(values))
        return result if isinstance(result, float) else result.numpy()

    def find(name):
        return getattr(torch.nn.init, name)

    return SimpleNamespace(call=call, find=find, kernel=TORCH_KERNEL, left_out={"generator", "tensor"})


def jax_peer():
    jax = pytest.importorskip("jax")

    def call(code, shape, values, seed):
        made = eval(code, vars(jax.nn.initializers) | {}, dict(values))
        return np.asarray(made(jax.random.key(seed), shape, "float32"))

    def find(name):
        return getattr(jax.nn.initializers, name)

    return SimpleNamespace(call=call, find=find, kernel=KERNEL, left_out={"dtype"})


def keras_peer():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")

    def call(code, shape, values, seed):
        keras.utils.set_random_seed(seed)
        return np.asarray(eval(code, vars(keras.initializers) | {}, dict(values))(shape))

    def find(name):
        return getattr(keras.initializers, name)

    return SimpleNamespace(call=call, find=find, kernel=KERNEL, left_out={"seed", "input_axes", "output_axes"})


PEERS = {"torch.nn.init": torch_peer, "jax.nn.initializers": jax_peer, "keras.initializers": keras_peer}
ROWS = [
    pytest.param(peer, *row, id=f"{peer}.{row[0].partition('(')[0]}")
    for peer in PEERS
    for row in TABLES[peer]
    if not row[1].startswith("none") and not row[0].startswith("calculate_gain")
]


def parameters(code):
    """The initialiser's name, the names of its parameters, and the defaults on the page."""
    call = ast.parse(code, mode="eval").body
    if isinstance(call, ast.Name):
        return call.id, [], {}
    defaults = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    positional = [argument.id for argument in call.args if argument.id != "w"]
    return call.func.id, [*positional, *defaults], defaults


def as_call(code):
    """The peer's code with its parameters by their names, so that they take the values given."""
    name, names, _ = parameters(code)
    if "(" not in code:
        return name
    first = ["w"] if re.search(r"\(w\b", code) else []
    return f"{name}({', '.join(first + [f'{n}={n}' for n in names])})"


def own_functions():
    """What the page defines beside the requests."""
    namespace = {}
    for block in blocks(PAGE):
        exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("peer", PEERS)
def test_the_defaults_are_the_peer_s(peer):
    side = PEERS[peer]()
    for code, _ in TABLES[peer]:
        name, names, defaults = parameters(code)
        if "(" not in code:
            continue  # itself the function that others return
        signature = inspect.signature(side.find(name)).parameters
        own = {n: p.default for n, p in signature.items() if n not in side.left_out}
        assert list(own) == names, name
        assert {n: default for n, default in own.items() if default is not inspect.Parameter.empty} == defaults, name


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "theirs", "ours"), ROWS)
def test_the_law_is_the_peer_s(peer, theirs, ours, client):
    side = PEERS[peer]()
    name, names, defaults = parameters(theirs)
    given = [defaults] if set(names) <= set(defaults) else []
    for values in [*given, *({**defaults, **values} for values in VALUES.get(name, []))]:  # type: ignore[attr-defined]
        assert set(values) == set(names)
        for shape in SHAPES.get(name, [MATRIX, side.kernel] if values.get("batch_axis") != -1 else [side.kernel]):  # type: ignore[attr-defined]
            if name == "dirac_" and shape[0] % values["groups"]:
                continue
            compare(side, as_call(theirs), ours, shape, values, client)


def compare(side, theirs, ours, shape, values, client):
    where = f"{theirs} {values} {shape}"
    mine, peers, laws = [], [], []
    for seed in range(max(1, math.ceil(SAMPLES / math.prod(shape)))):
        recorder = Recorder(client, seed)
        our_values = translated(values)
        mine.append(eval(ours, {**own_functions(), "client": recorder, "shape": shape}, our_values))
        peers.append(side.call(theirs, shape, values, seed))
        laws.append(recorder.descriptions)
        assert mine[-1].shape == peers[-1].shape == tuple(shape), where
        kind = laws[-1][-1].law.WhichOneof("law")
        if kind in ("constant", "eye", "dirac"):
            assert (mine[-1] == peers[-1]).all(), where
            return
        if kind in ("orthogonal", "parts") and seed == MATRICES - 1:
            break
    CHECKS[kind](np.array(mine), np.array(peers), laws[-1][-1], where)


def translated(values):
    """The values in Seedbed's words."""
    return {name: "normal" if value == "untruncated_normal" else value for name, value in values.items()}


def check_drawn(mine, peers, description, where):
    law = description.law
    mean, std = _laws.moments(description)
    for sample in (mine.ravel(), peers.ravel()):
        assert stats.ks_1samp(sample, distribution(law).cdf).pvalue > SURE, where
        assert abs(sample.mean() - mean) < 5 * std / math.sqrt(sample.size), where
        # A standard error is at most that of the normal law, whose kurtosis is the largest here.
        assert abs(sample.std() / std - 1) < 5 / math.sqrt(2 * sample.size), where
    if law.WhichOneof("law") == "normal":
        return
    bounds = getattr(law, law.WhichOneof("law"))
    reach = (bounds.b - bounds.a) / 1000
    assert bounds.a - 1e-6 * std <= peers.min() < bounds.a + reach, where
    assert bounds.b - reach < peers.max() <= bounds.b + 1e-6 * std, where


def distribution(law):
    match law.WhichOneof("law"):
        case "uniform":
            return stats.uniform(law.uniform.a, law.uniform.b - law.uniform.a)
        case "normal":
            return stats.norm(law.normal.mean, law.normal.std)
        case "trunc_normal":
            bell = law.trunc_normal
            a, b = ((end - bell.mean) / bell.std for end in (bell.a, bell.b))
            return stats.truncnorm(a, b, bell.mean, bell.std)
    raise AssertionError(law)


def check_sparse(mine, peers, description, where):
    assert ((mine == 0).sum(axis=1) == (peers == 0).sum(axis=1)[:1]).all(), where
    for sample in (mine[mine != 0], peers[peers != 0]):
        assert stats.kstest(sample, stats.norm(0, description.law.sparse.std).cdf).pvalue > SURE, where


def check_orthogonal(mine, peers, description, where):
    law = description.law  # of delta_orthogonal, parts
    gain = (law.parts.parts[0].recipe if law.HasField("parts") else law).orthogonal.gain
    # The matrices are orthogonal along the same axes, at least one ...
    for one, other in zip(mine, peers, strict=True):
        along = [is_orthogonal(one, axis, gain) for axis in range(one.ndim)]
        assert along == [is_orthogonal(other, axis, gain) for axis in range(one.ndim)], where
        assert any(along), where
    # ... the zeros around a kernel's centre are in the same places, and the values of the same distribution.
    assert ((mine == 0).all(axis=0) == (peers == 0).all(axis=0)).all(), where
    assert stats.ks_2samp(mine[mine != 0], peers[peers != 0]).pvalue > SURE, where


def is_orthogonal(values, axis, gain):
    """Whether the slices along an axis, or those across it, are orthogonal and of length gain."""
    matrix = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64) / gain
    return any(abs(m @ m.T - np.eye(len(m))).max() < 1e-5 for m in (matrix, matrix.T))


CHECKS = {
    "uniform": check_drawn,
    "normal": check_drawn,
    "trunc_normal": check_drawn,
    "sparse": check_sparse,
    "orthogonal": check_orthogonal,
    "parts": check_orthogonal,
}


def test_the_comparison_notices_a_scale_that_is_one_per_cent_off(client):
    description = client.describe(seedbed.spec("normal", (SAMPLES,)))
    right = client.normal((SAMPLES,), seed=1)
    check_drawn(right, client.normal((SAMPLES,), seed=2), description, "")
    with pytest.raises(AssertionError):
        check_drawn(right, 1.01 * client.normal((SAMPLES,), seed=2), description, "")


def test_torch_s_initialisers_are_all_listed():
    torch = pytest.importorskip("torch")
    functions = {n for n, f in vars(torch.nn.init).items() if inspect.isfunction(f) and not n.startswith("_")}
    old = {n for n in functions if f"{n}_" in functions}
    assert "deprecated" in torch.nn.init.uniform.__doc__
    assert {parameters(row[0])[0] for row in TABLES["torch.nn.init"]} == functions - old


def test_jax_s_initialisers_are_all_listed():
    jax = pytest.importorskip("jax")
    public = {n for n in dir(jax.nn.initializers) if not n.startswith("_")} - {"Initializer"}
    assert {parameters(row[0])[0] for row in TABLES["jax.nn.initializers"]} == public


def test_keras_s_initialisers_are_all_listed():
    assert {parameters(row[0])[0] for row in TABLES["keras.initializers"]} == KERAS


def test_keras_has_no_others():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    initializers = pytest.importorskip("keras").initializers
    classes = {thing for thing in vars(initializers).values() if inspect.isclass(thing)} - {initializers.Initializer}
    assert {getattr(initializers, name) for name in KERAS} == classes


@pytest.mark.parametrize("param", [None, 0.3])
def test_the_gains_are_torch_s(param, client):
    init = pytest.importorskip("torch").nn.init
    names = [n for n in NONLINEARITY.choices if n != "identity"]
    assert len(names) == 12
    for name in names:
        assert client.calculate_gain(name, param) == pytest.approx(init.calculate_gain(name, param), rel=1e-15)


def test_what_torch_takes_is_refused(client):
    torch = pytest.importorskip("torch")
    init = torch.nn.init
    for theirs, ours in [
        (lambda: init.trunc_normal_(torch.empty(4, 4), std=-1.0), lambda: client.trunc_normal((4, 4), std=-1.0)),
        (lambda: init.sparse_(torch.empty(4, 4), 1.5), lambda: client.sparse((4, 4), 1.5)),
        (lambda: init.sparse_(torch.empty(4, 4), -0.5), lambda: client.sparse((4, 4), -0.5)),
        (lambda: init.dirac_(torch.empty(4, 4, 3), -1), lambda: client.dirac((4, 4, 3), -1)),
    ]:
        theirs()
        with pytest.raises(seedbed.InvalidRequest):
            ours()
    with pytest.warns(UserWarning, match="may be incorrect"):
        init.trunc_normal_(torch.empty(4, 4), a=8.0, b=9.0)


def test_keras_s_axes_are_jax_s_with_the_others_in_the_batch(client):
    side = keras_peer()
    theirs = "VarianceScaling(2.0, 'fan_in', 'uniform', None, (0,), (1, 2))"
    values = side.call(theirs, (400, 60, 70), {}, 1)
    spec = seedbed.spec(
        "variance_scaling", (400, 60, 70), scale=2.0, mode="fan_in", distribution="uniform", in_axis=0, out_axis=(1, 2)
    )
    description = client.describe(spec)
    check_drawn(client.init(spec), values, description, theirs)


def test_one_dimension_is_refused(client):
    with pytest.raises(seedbed.InvalidRequest):
        client.variance_scaling((400,), 1.0, "fan_in", "uniform")
