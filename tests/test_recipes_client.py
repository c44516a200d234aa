"""The messages that Python makes of draws, literals and parts."""

import ml_dtypes
import numpy as np
import pytest
from google.protobuf import json_format

import seedbed
from seedbed import draw, literal, parts
from seedbed.v1 import DataType, Function, Region, TensorSpec, View

X = draw("normal", (4, 3))


def text(step) -> str:
    """A step as a line, such as ``multiply 0 1``."""
    kind = step.WhichOneof("value")
    value = getattr(step, kind)
    if kind == "function":
        words = Function.Name(value).removeprefix("FUNCTION_").lower()
    elif kind == "constant":
        words = f"{value:g}"
    elif kind == "recipe":
        words = f"{value.WhichOneof('scheme')}{list(value.shape) or ''}{value.stream}"
    elif kind == "view":
        words = f"view{list(value.shape)}{list(value.strides)}+{value.offset}"
    elif kind == "assembly":
        boxes = [f"{list(b.shape)}{list(b.strides)}+{b.offset}" for b in value.boxes]
        words = f"assembly{list(value.shape)} of {' '.join(boxes)};"
    elif kind == "reduction":
        p = f" p={value.p:g}" if value.HasField("p") else ""
        words = f"reduce {value.reducer}{list(value.axes)}{p}"
    else:
        words = f"cast {value}"
    return " ".join([words, *map(str, step.arguments)])


def steps(value, shape=None, **options) -> list[str]:
    return [text(step) for step in seedbed.spec(value, shape, **options).expression.steps]


def as_json(*args, **kwargs):
    return json_format.MessageToDict(seedbed.spec(*args, **kwargs), preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (seedbed.log(draw("uniform", a=1, b=16)), ["uniform", "log 0"]),
        (0.02 * draw("normal", stream="a"), ["0.02", "normala", "multiply 0 1"]),
        (X - 1, ["normal[4, 3]", "1", "subtract 0 1"]),
        (1 - X, ["1", "normal[4, 3]", "subtract 0 1"]),
        (2**-X, ["2", "normal[4, 3]", "negate 1", "power 0 2"]),
        (X > 0, ["0", "normal[4, 3]", "less 0 1"]),
        (X >= 0, ["0", "normal[4, 3]", "less_equal 0 1"]),
        (abs(X), ["normal[4, 3]", "absolute 0"]),
        (np.ones(3, np.float32) / X, ["literal[3]", "normal[4, 3]", "divide 0 1"]),
        (np.float64(3) * X, ["3", "normal[4, 3]", "multiply 0 1"]),
        (literal(3) * X, ["3", "normal[4, 3]", "multiply 0 1"]),
        (X.round(), ["normal[4, 3]", "round 0"]),
        (seedbed.clamp(X, -1, 1), ["normal[4, 3]", "-1", "1", "clamp 0 1 2"]),
        (seedbed.where(seedbed.equal(X, 0), 1, X), ["normal[4, 3]", "0", "equal 0 1", "1", "where 2 3 0"]),
        (X.T, ["normal[4, 3]", "view[3, 4][1, 3]+0 0"]),
        (X.transpose(1, 0), ["normal[4, 3]", "view[3, 4][1, 3]+0 0"]),
        (X[::-2, None, 1], ["normal[4, 3]", "view[2, 1][-6, 0]+10 0"]),
        (X[1, 2], ["normal[4, 3]", "view[][]+5 0"]),
        (X[..., -1:], ["normal[4, 3]", "view[4, 1][3, 1]+2 0"]),
        (X.reshape(2, -1), ["normal[4, 3]", "view[2, 6][6, 1]+0 0"]),
        (X[0].broadcast_to((2, 3)), ["normal[4, 3]", "view[3][1]+0 0", "view[2, 3][0, 1]+0 1"]),
        (draw("normal", ()) + 1, ["normal[1]", "view[][]+0 0", "1", "add 1 2"]),
        (X.sum(), ["normal[4, 3]", "reduce 1[] 0", "view[][]+0 1"]),
        (X.mean(-1), ["normal[4, 3]", "reduce 2[1] 0", "view[4][1]+0 1"]),
        (X.max((0, 1), keepdims=True), ["normal[4, 3]", "reduce 3[0, 1] 0"]),
        (X.norm(3, axis=0, keepdims=True), ["normal[4, 3]", "reduce 5[0] p=3 0"]),
        (X.astype("float16"), ["normal[4, 3]", "cast 2 0"]),
        (
            seedbed.concatenate([X, X[:1]]),
            ["normal[4, 3]", "view[1, 3][3, 1]+0 0", "assembly[5, 3] of [4, 3][3, 1]+0 [1, 3][3, 1]+12; 0 1"],
        ),
        (seedbed.stack([X, X], 1), ["normal[4, 3]", "assembly[4, 2, 3] of [4, 3][6, 1]+0 [4, 3][6, 1]+3; 0 0"]),
    ],
)
def test_steps_of_expressions(value, expected):
    got = steps(value, (4, 3) if value.shape is None else None)
    # The strides of axes of size 1 are arbitrary.
    assert [line.replace("[2, 1][-6, 1]", "[2, 1][-6, 0]") for line in got] == expected


@pytest.mark.parametrize("number", [number for number in Function.values() if number])
def test_every_function_of_the_contract_has_a_python_function(number):
    x = draw("normal")
    name = Function.Name(number).removeprefix("FUNCTION_").lower()
    said = {
        "add": lambda: x + x, "subtract": lambda: x - x, "multiply": lambda: x * x, "divide": lambda: x / x,
        "negate": lambda: -x, "absolute": lambda: abs(x), "less": lambda: x < x, "less_equal": lambda: x <= x,
        "power": lambda: x**x, "round": x.round,
        **{two: lambda two=two: getattr(seedbed, two)(x, x) for two in ("minimum", "maximum", "equal")},
        **{three: lambda three=three: getattr(seedbed, three)(x, x, x) for three in ("clamp", "where")},
    }  # fmt: skip
    value = said.get(name, lambda: getattr(seedbed, name)(x))()
    assert seedbed.spec(value, (2,)).expression.steps[-1].function == number


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: (draw("normal", std=2.0, stream="s"), (4, 3)), {"stream": "s", "normal": {"mean": 0.0, "std": 2.0}}),
        (lambda: (X,), {"normal": {"std": 1.0}}),
        (lambda: (draw("permutation"), (4, 3)), {"permutation": {}}),
        (lambda: (1, (4, 3)), {"constant": {"val": 1.0}}),
        (lambda: (seedbed.spec("normal", (4, 3), name="a", seed=7),), {"stream": "a", "normal": {"std": 1.0}}),
        (
            lambda: (draw("normal", (3,)), (4, 3)),
            {"expression": {"steps": [{"recipe": {"shape": ["3"], "normal": {"std": 1.0}}}]}},
        ),
    ],
)
def test_single_draws_are_plain_schemes(made, expected):
    got = as_json(*made(), name="w", seed=7)
    common = {"name": "w", "shape": ["4", "3"], "dtype": "DATA_TYPE_FLOAT32", "seed": "7"}
    message = json_format.ParseDict({**common, **expected}, TensorSpec())
    assert json_format.ParseDict(got, TensorSpec()) == message


def test_a_draw_keeps_its_dtype_unless_another_is_given():
    x = draw("normal", dtype="float64")
    assert seedbed.spec(x, (2,)).dtype == DataType.DATA_TYPE_FLOAT64
    narrow = seedbed.spec(x, (2,), dtype="bfloat16")
    assert narrow.dtype == DataType.DATA_TYPE_BFLOAT16
    assert narrow.expression.steps[0].recipe.dtype == DataType.DATA_TYPE_FLOAT64


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0.1, 0.2]), "float64"),
        (np.array([0.1], np.float32), "float32"),
        (np.array([0.1], np.float16), "float16"),
        (np.array([0.1], ml_dtypes.bfloat16), "bfloat16"),
        (np.array([0.1], ">f8"), "float64"),
        ([True, False], "float32"),
        (np.arange(4), "float32"),
        ([2**24 + 1], "float64"),
        ([2**63 - 1], "float64"),
        (np.zeros((0, 3), np.int8), "float32"),
        (np.arange(6.0).reshape(2, 3).T, "float64"),
    ],
)
def test_literals(array, dtype):
    spec = seedbed.spec(literal(array), name="t")
    assert seedbed.dtypes.name_of(spec.dtype) == dtype
    assert tuple(spec.shape) == np.shape(array)
    assert spec.literal.data == np.asarray(array).astype(seedbed.dtypes.numpy_dtype(spec.dtype)).tobytes()


def test_literals_are_rounded_to_the_tensors_dtype():
    values = np.linspace(-3, 3, 50)
    spec = seedbed.spec(literal(values), dtype="bfloat16")
    assert spec.literal.data == values.astype(ml_dtypes.bfloat16).tobytes()


def test_shared_values_are_computed_once():
    x = draw("normal", (2,))
    value = x
    for _ in range(100):
        value = value + value
    assert len(steps(value)) == 101


def test_values_may_be_deep_but_not_too_deep():
    value = draw("normal", (2,))
    for _ in range(9_999):
        value = -value
    assert len(steps(value)) == 10_000
    with pytest.raises(seedbed.InvalidRequest, match="more than 10000 steps"):
        seedbed.spec(-value)


def test_parts():
    wk = seedbed.spec("normal", (8, 8), std=0.5, name="wk", seed=7)
    view = View(shape=[2], strides=[3], offset=1)
    spec = seedbed.spec(
        parts(
            [
                (None, 1),
                (np.s_[:8], draw("normal", std=0.02, stream="wq")),
                (np.s_[8:], wk),
                (Region(start=[0, 0], stop=[1, 8]), np.float32([1] * 8)),
                (seedbed.box(np.s_[:, 1:], reshape=(4, 4, 8), permute=(2, 0, 1)), 2 * draw("uniform")),
                (view, draw("uniform", ())),
                (np.s_[:2], parts([(np.s_[1:], 3)])),
            ]
        ),
        (16, 8),
        name="wqkv",
        seed=7,
    )
    got = spec.parts.parts
    assert [part.WhichOneof("box") for part in got] == [None, "region", "region", "region", "view", "view", "region"]
    assert got[0].recipe.constant.val == 1
    assert (got[1].region.stop, got[1].recipe.stream, list(got[1].recipe.shape)) == ([8, 8], "wq", [])
    assert (got[2].region.start, got[2].recipe.stream, got[2].recipe.normal.std) == ([8, 0], "wk", 0.5)
    assert (got[2].recipe.dtype, got[2].recipe.shape) == (0, [])
    assert got[3].recipe.shape == [8]
    assert got[3].recipe.literal.data == np.ones(8, np.float32).tobytes()
    assert got[4].view == View(shape=[8, 3, 4], strides=[1, 32, 8], offset=32)
    assert [text(step) for step in got[4].recipe.expression.steps] == ["2", "uniform", "multiply 0 1"]
    assert got[5].view == view
    assert got[5].recipe.shape == [1]
    assert got[6].recipe.parts.parts[0].region == Region(start=[1, 0], stop=[2, 8])


def test_parts_keep_the_dtype_of_their_content():
    half = seedbed.spec("normal", (4,), name="a", dtype="float16")
    spec = seedbed.spec(parts([(None, half), (np.s_[:2], np.zeros(2))]), (4,), dtype="float64", stream="s")
    assert [part.recipe.dtype for part in spec.parts.parts] == [DataType.DATA_TYPE_FLOAT16, 0]
    assert spec.stream == "s"


def test_comparing_for_identity():
    assert X == X
    assert draw("normal", (4, 3)) != X
    assert len({X, X}) == 1
    with pytest.raises(TypeError):
        bool(X < 1)
    with pytest.raises(TypeError):
        iter(X)
    with pytest.raises(AttributeError):
        X._shape = ()


@pytest.mark.parametrize(
    ("call", "field", "words"),
    [
        (lambda: X + np.zeros(4), "spec.expression", r"\(4, 3\) and \(4,\) cannot be broadcast"),
        (lambda: X / 0, "spec.expression", "constant 0"),
        (lambda: draw("normal").T, "spec.expression", r"give draw\(\) a shape"),
        (lambda: draw("normal").sum(), "spec.expression", r"give draw\(\) a shape"),
        (lambda: X.reshape(5), "spec.expression", "cannot reshape"),
        (lambda: X.transpose(0, 0), "spec.expression", "repeated axis"),
        (lambda: X[4], "spec.expression", "out of bounds"),
        (lambda: X[::0], "spec.expression", "step"),
        (lambda: X[[0, 1]], "spec.expression", "cannot index"),
        (lambda: X[True], "spec.expression", "cannot index"),
        (lambda: X.broadcast_to((4, 4)), "spec.expression", "broadcast"),
        (lambda: X.sum(2), "spec.expression", "does not name axes"),
        (lambda: X.sum((0, -2)), "spec.expression", "does not name axes"),
        (lambda: X.norm(0), "spec.expression", "a positive, finite number"),
        (lambda: X + "a", "spec.expression", "is not a value"),
        (lambda: X + None, "spec.expression", "is not a value"),
        (lambda: X.astype("int8"), "spec.dtype", "dtype int8 is not supported"),
        (lambda: seedbed.concatenate([]), "spec.expression", "no values"),
        (lambda: seedbed.concatenate([X, X.T]), "spec.expression", "differ"),
        (lambda: seedbed.stack([X, X.T]), "spec.expression", "differ"),
        (lambda: literal([1j]), "spec.literal", "does not hold real numbers"),
        (lambda: literal("text"), "spec.literal", "does not hold real numbers"),
        (lambda: literal([np.inf]), "spec.literal", "not finite"),
        (lambda: seedbed.spec(literal([1e300]), dtype="float16"), "spec.literal", "not finite"),
        (lambda: seedbed.spec(X * 2, (3, 4)), "spec.expression", "cannot be broadcast to"),
        (lambda: seedbed.spec(X, (3, 4)), "spec.shape", "cannot be broadcast to"),
        (lambda: seedbed.spec(draw("normal") + literal([1, 2]), (3,)), "spec.expression", "broadcast together"),
        (lambda: seedbed.spec(draw("normal")), "spec.shape", "give it"),
        (lambda: seedbed.spec(parts([]), (-1,)), "spec.shape", "negative"),
        (lambda: seedbed.spec(parts([(np.s_[5:], 1)]), (4,)), "spec.parts[0].region", "outside"),
        (lambda: seedbed.spec(parts([(None, 1), (np.s_[:2], X)]), (4, 3)), "spec.parts[1].shape", "broadcast to"),
        (lambda: seedbed.spec(parts([(seedbed.box(reshape=(3,)), 1)]), (4,)), "spec.parts[0].view", "reshape"),
        (lambda: seedbed.spec(parts([(seedbed.box(permute=(1, 1)), 1)]), (4, 3)), "spec.parts[0].view", "axis"),
        (lambda: seedbed.spec(parts([(seedbed.box(np.s_[5:]), 1)]), (4,)), "spec.parts[0].region", "outside"),
        (lambda: parts([1]), "spec.parts[0]", "not a pair"),
        (lambda: parts([(None, 1)] * 4097), "spec.parts", "4096"),
        (lambda: parts([(None, TensorSpec(name="a"))]), "spec.scheme", "no scheme"),
        (lambda: parts([(None, seedbed.spec("normal", (4,)))]), "spec.name", "give it one"),
        (
            lambda: seedbed.spec(parts([(None, seedbed.spec("normal", (4,), name="a", seed=1))]), (4,), seed=2),
            "spec.parts[0].seed",
            "seed 1, the tensor made of it 2",
        ),
        (
            lambda: seedbed.spec(2 * X + seedbed.spec("normal", (3,), name="a", algorithm_version=1)),
            "spec.algorithm_version",
            "version 1",
        ),
    ],
)
def test_refusals(call, field, words):
    with pytest.raises(seedbed.InvalidRequest, match=words) as caught:
        call()
    assert caught.value.field == field


def test_unknown_arguments():
    with pytest.raises(TypeError, match="give it to spec"):
        draw("normal", seed=1)
    with pytest.raises(TypeError, match="sdt"):
        draw("normal", sdt=1)
    with pytest.raises(TypeError, match="std"):
        seedbed.spec(X * 2, std=1)
