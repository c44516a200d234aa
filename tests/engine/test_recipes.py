"""Recipes: parts, literals and expressions, against the same computation in NumPy."""

from __future__ import annotations

import itertools
import time

import ml_dtypes
import numpy as np
import pytest

from seedbed.v1 import (
    Assembly,
    Constant,
    DataType,
    Expression,
    Function,
    Literal,
    Normal,
    Part,
    Parts,
    Permutation,
    Recipe,
    Reducer,
    Reduction,
    Region,
    Sparse,
    Step,
    TensorSpec,
    Uniform,
    View,
)
from seedbed_server import engine
from seedbed_server.engine import functions

from .conftest import sample

FLOAT32, FLOAT16 = DataType.DATA_TYPE_FLOAT32, DataType.DATA_TYPE_FLOAT16
BFLOAT16, FLOAT64 = DataType.DATA_TYPE_BFLOAT16, DataType.DATA_TYPE_FLOAT64
NUMPY = {FLOAT32: np.float32, FLOAT16: np.float16, BFLOAT16: ml_dtypes.bfloat16, FLOAT64: np.float64}


def region(*bounds: tuple[int, int]) -> Region:
    return Region(start=[low for low, _ in bounds], stop=[high for _, high in bounds])


def normal(stream: str = "", **fields) -> Recipe:
    return Recipe(stream=stream, normal=Normal(), **fields)


def constant(value: float) -> Recipe:
    return Recipe(constant=Constant(val=value))


def parts(*placed: Part, shape, **fields) -> TensorSpec:
    return TensorSpec(name="w", shape=shape, parts=Parts(parts=placed), **fields)


def tensor(name: str, shape, dtype=FLOAT32, **scheme) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, **(scheme or {"normal": Normal()}))


def apply(name: str, *arguments: int) -> Step:
    return Step(function=Function.Value(f"FUNCTION_{name.upper()}"), arguments=arguments)


def expression(*steps: Step, shape, **fields) -> TensorSpec:
    return TensorSpec(name="w", shape=shape, expression=Expression(steps=steps), **fields)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether all bits are equal."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# Streams.

FUSED = parts(
    Part(region=region((0, 4), (0, 6)), recipe=normal("wq")),
    Part(region=region((4, 6), (0, 6)), recipe=normal("wk")),
    Part(region=region((6, 8), (0, 6)), recipe=normal("wv")),
    shape=[8, 6],
)


@pytest.mark.parametrize("dtype", NUMPY)
def test_fused_equals_unfused(backend, dtype) -> None:
    FUSED.dtype = dtype
    rows = [sample(backend, tensor(name, [size, 6], dtype)) for name, size in (("wq", 4), ("wk", 2), ("wv", 2))]
    expected = np.concatenate(rows)
    assert equal(sample(backend, FUSED), expected)
    assert equal(sample(backend, FUSED, ([3, 1], [7, 5]), chunk=3), expected[3:7, 1:5])


def test_interleaved_equals_separate(backend) -> None:
    """Two matrices with interleaved rows, like the gates of some fused layers."""
    rows = View(shape=[4, 6], strides=[12, 1])
    odd = View(shape=[4, 6], strides=[12, 1], offset=6)
    fused = sample(
        backend, parts(Part(view=rows, recipe=normal("a")), Part(view=odd, recipe=normal("b")), shape=[8, 6])
    )
    assert equal(fused[::2].copy(), sample(backend, tensor("a", [4, 6])))
    assert equal(fused[1::2].copy(), sample(backend, tensor("b", [4, 6])))


@pytest.mark.parametrize("scheme", [{"normal": Normal()}, {"permutation": Permutation()}, {"sparse": Sparse()}])
def test_a_stream_is_the_name_that_is_hashed(backend, scheme) -> None:
    named = TensorSpec(name="x", shape=[9, 5], **scheme)
    copy = TensorSpec(name="y", stream="x", shape=[9, 5], **scheme)
    assert equal(sample(backend, copy), sample(backend, named))
    assert engine.describe(copy).stream == engine.describe(named).stream


def test_random_recipes_are_numbered(reference) -> None:
    """The first uses the tensor's stream; recipes without draws or with an explicit stream are not counted."""
    recipes = [constant(3.0), normal(), normal("own"), constant(0.0), normal(), normal()]
    rows = [Part(region=region((row, row + 1), (0, 5)), recipe=recipe) for row, recipe in enumerate(recipes)]
    values = sample(reference, parts(*rows, shape=[6, 5]))
    for row, name in ((1, "w"), (2, "own"), (4, "w#1"), (5, "w#2")):
        assert equal(values[row : row + 1], sample(reference, tensor(name, [1, 5]))), name
    made = sample(reference, parts(*rows, shape=[6, 5], stream="x"))
    assert equal(made[4:5], sample(reference, tensor("x#1", [1, 5])))


def test_streams_within_a_stream_are_numbered_from_it(reference) -> None:
    pair = [Part(region=region((row, row + 1), (0, 5)), recipe=normal()) for row in range(2)]
    inner = Recipe(stream="pair", parts=Parts(parts=pair))
    whole = parts(Part(region=region((0, 2), (0, 5)), recipe=inner),
                  Part(region=region((2, 3), (0, 5)), recipe=normal()), shape=[3, 5])  # fmt: skip
    values = sample(reference, whole)
    for row, name in enumerate(("pair", "pair#1", "w")):
        assert equal(values[row : row + 1], sample(reference, tensor(name, [1, 5])))


# Parts.


def test_a_padding_row_changes_no_other_element(backend) -> None:
    padded = parts(
        Part(recipe=normal()), Part(region=region((2, 3), (0, 7)), recipe=constant(0.0)), shape=[5, 7], seed=3
    )
    plain = sample(backend, TensorSpec(name="w", shape=[5, 7], seed=3, normal=Normal()))
    plain[2] = 0
    assert equal(sample(backend, padded), plain)


def test_the_last_of_overlapping_parts_counts_and_gaps_are_0(backend) -> None:
    spec = parts(
        Part(region=region((1, 4), (1, 4)), recipe=constant(1.0)),
        Part(region=region((2, 5), (2, 5)), recipe=constant(2.0)),
        Part(view=View(shape=[2], strides=[8], offset=7), recipe=constant(3.0)),
        shape=[6, 6],
    )
    expected = np.zeros((6, 6), np.float32)
    expected[1:4, 1:4], expected[2:5, 2:5] = 1, 2
    expected.reshape(-1)[[7, 15]] = 3
    assert equal(sample(backend, spec), expected)
    assert equal(sample(backend, parts(shape=[2, 3])), np.zeros((2, 3), np.float32))


VIEWS = {
    "transposed": (View(shape=[6, 4], strides=[1, 6]), lambda a: a.T),
    "flipped": (View(shape=[4, 6], strides=[-6, -1], offset=23), lambda a: a[::-1, ::-1]),
    "stepped": (View(shape=[2, 2], strides=[12, 3], offset=1), lambda a: a[::2, 1::3]),
    "diagonal": (View(shape=[4], strides=[7]), lambda a: a.reshape(-1)[::7]),
    "reshaped": (View(shape=[2, 2, 3, 2], strides=[12, 6, 2, 1]), lambda a: a.reshape(2, 2, 3, 2)),
    "one element": (View(offset=5), lambda a: a.reshape(-1)[5].reshape(())),
    "nothing": (View(shape=[0, 3], strides=[1, 1]), lambda a: a[:0, :3]),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_part_may_be_any_view(name, backend) -> None:
    view, of = VIEWS[name]
    at = of(np.arange(24).reshape(4, 6))
    expected = np.zeros(24, np.float32)
    expected[at.reshape(-1)] = sample(backend, tensor("w", list(view.shape))).reshape(-1)
    assert equal(sample(backend, parts(Part(view=view, recipe=normal()), shape=[4, 6])), expected.reshape(4, 6))


@pytest.mark.parametrize("name", VIEWS)
def test_a_step_may_be_any_view(name, backend) -> None:
    view, of = VIEWS[name]
    spec = expression(Step(recipe=normal(shape=[4, 6])), Step(view=view, arguments=[0]), shape=list(view.shape))
    assert equal(sample(backend, spec), np.array(of(sample(backend, tensor("w", [4, 6]))), order="C"))


def test_a_view_may_repeat_elements(backend) -> None:
    windows = View(shape=[4, 3, 2], strides=[1, 1, 0])
    spec = expression(Step(recipe=normal(shape=[6])), Step(view=windows, arguments=[0]), shape=[4, 3, 2])
    base = sample(backend, tensor("w", [6]))
    assert equal(sample(backend, spec), base[np.add.outer(np.arange(4), np.arange(3))].repeat(2).reshape(4, 3, 2))


def test_a_recipe_is_broadcast_to_its_box(backend) -> None:
    spec = parts(Part(region=region((1, 4), (0, 5)), recipe=normal(shape=[3, 1])), shape=[4, 5])
    expected = np.zeros((4, 5), np.float32)
    expected[1:] = sample(backend, tensor("w", [3, 1]))
    assert equal(sample(backend, spec), expected)


@pytest.mark.parametrize(("inner", "outer"), list(itertools.product(NUMPY, NUMPY)))
def test_a_recipe_of_another_dtype_is_rounded_once(inner, outer, reference) -> None:
    spec = parts(Part(recipe=normal(dtype=inner)), shape=[999], dtype=outer)
    exact = sample(reference, tensor("w", [999], inner)).astype(np.float64)
    assert equal(sample(reference, spec), rounded_once(exact, outer))


# Literals and permutations.


@pytest.mark.parametrize("dtype", NUMPY)
def test_a_literal_has_its_values(dtype, backend) -> None:
    values = (np.arange(12) / 7 - 0.5).astype(NUMPY[dtype]).reshape(3, 4)
    spec = TensorSpec(shape=[3, 4], dtype=dtype, literal=Literal(data=values.tobytes()))
    assert equal(sample(backend, spec), values)
    assert equal(sample(backend, spec, ([1, 1], [3, 3]), chunk=3), np.ascontiguousarray(values[1:3, 1:3]))


@pytest.mark.parametrize("shape", [[1], [2], [7], [8], [5, 9], [4, 4, 4], [1000]])
def test_a_permutation_contains_each_number_once(shape, backend) -> None:
    values = sample(backend, TensorSpec(name="p", shape=shape, permutation=Permutation()))
    assert sorted(values.reshape(-1).tolist()) == list(range(values.size))


# Expressions.


def rounded_once(values: np.ndarray, dtype: int) -> np.ndarray:
    """To nearest even, by comparing with both neighbours."""
    kind = NUMPY[dtype]
    if dtype in (FLOAT32, FLOAT64):
        return values.astype(kind)
    near = values.astype(kind)
    candidates = np.stack([near, np.nextafter(near, kind(np.inf)), np.nextafter(near, kind(-np.inf))])
    distance = np.abs(candidates.astype(np.float64) - values)
    is_odd = candidates.view(np.uint16) & 1
    best = np.lexsort((is_odd, distance), axis=0)[0]
    return np.take_along_axis(candidates, best[None], 0)[0]


@pytest.mark.parametrize("dtype", NUMPY)
def test_an_expression_is_float64_arithmetic_rounded_once(dtype, backend) -> None:
    spec = expression(
        Step(recipe=normal("a")), Step(recipe=Recipe(stream="b", uniform=Uniform(b=2.0))), Step(constant=0.1),
        apply("exp", 0), apply("multiply", 3, 1), apply("add", 4, 2), apply("tanh", 5), shape=[60, 50], dtype=dtype,
    )  # fmt: skip
    inner = FLOAT64 if dtype == FLOAT64 else FLOAT32
    a = sample(backend, tensor("a", [60, 50], inner)).astype(np.float64)
    b = sample(backend, tensor("b", [60, 50], inner, uniform=Uniform(b=2.0))).astype(np.float64)
    expected = functions.tanh(functions.exp(a) * b + 0.1)
    assert equal(sample(backend, spec), rounded_once(expected, dtype))


@pytest.mark.parametrize(("dtype", "middle"), [(FLOAT16, 1 + 2.0**-11), (BFLOAT16, 1 + 2.0**-8)])
def test_16_bits_are_not_rounded_twice(dtype, middle, backend) -> None:
    """Float32 would round to the midpoint of two values, and a second time to the even one."""
    spec = expression(Step(constant=middle + 2.0**-40), shape=[3], dtype=dtype)
    assert (sample(backend, spec).astype(np.float64) > 1).all()
    spec.expression.steps[0].constant = middle
    assert (sample(backend, spec).astype(np.float64) == 1).all()


def test_arguments_are_broadcast(backend) -> None:
    spec = expression(
        Step(recipe=normal("a", shape=[4, 1])), Step(recipe=normal("b", shape=[3, 1, 5])), apply("add", 0, 1),
        shape=[2, 3, 4, 5], dtype=FLOAT64,
    )  # fmt: skip
    a, b = sample(backend, tensor("a", [4, 1], FLOAT64)), sample(backend, tensor("b", [3, 1, 5], FLOAT64))
    assert equal(sample(backend, spec), np.broadcast_to(a + b, (2, 3, 4, 5)).copy())


def test_steps_are_shared(backend) -> None:
    """A step is one value, however often it is used."""
    spec = expression(Step(recipe=normal()), apply("subtract", 0, 0), shape=[30])
    assert not sample(backend, spec).any()
    doubled = expression(Step(recipe=normal()), *(apply("add", n, n) for n in range(20)), shape=[30])
    assert equal(sample(backend, doubled), sample(backend, tensor("w", [30])) * np.float32(2**20))


def test_an_assembly_puts_arguments_together(backend) -> None:
    boxes = [View(shape=[2, 5], strides=[5, 1]), View(shape=[3, 2], strides=[5, 1], offset=6)]
    spec = expression(
        Step(recipe=normal(shape=[2, 5])), Step(constant=7.0),
        Step(assembly=Assembly(shape=[4, 5], boxes=boxes), arguments=[0, 1]), shape=[4, 5],
    )  # fmt: skip
    expected = np.zeros((4, 5), np.float32)
    expected[:2] = sample(backend, tensor("w", [2, 5]))
    expected[1:4, 1:3] = 7
    assert equal(sample(backend, spec), expected)


def test_a_cast_rounds_between_steps(backend) -> None:
    spec = expression(Step(recipe=normal()), Step(cast=BFLOAT16, arguments=[0]), shape=[99], dtype=FLOAT64)
    exact = sample(backend, tensor("w", [99], FLOAT64))
    assert equal(sample(backend, spec), rounded_once(exact, BFLOAT16).astype(np.float64))


def added_up(values: np.ndarray) -> float:
    total = float(values[0])
    for value in values[1:].tolist():
        total += value
    return total


@pytest.mark.parametrize("count", [1, 2, 1000, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 50_000])
def test_sums_add_in_order(count, backend) -> None:
    """From the first element, not from 0; also across tiles."""
    base = sample(backend, tensor("w", [count], FLOAT64))
    reduced = Step(reduction=Reduction(reducer=Reducer.REDUCER_SUM), arguments=[0])
    spec = expression(Step(recipe=normal(shape=[count])), reduced, shape=[1], dtype=FLOAT64)
    assert sample(backend, spec)[0] == added_up(base)
    negative = expression(Step(constant=-0.0), reduced, shape=[], dtype=FLOAT64)
    assert np.signbit(sample(backend, negative))


@pytest.mark.parametrize("axes", [[], [0], [1], [2], [0, 2], [2, 0], [-1, -2]])
def test_reductions_of_axes_go_in_row_major_order(axes, backend) -> None:
    reduced = Step(reduction=Reduction(reducer=Reducer.REDUCER_MEAN, axes=axes), arguments=[0])
    base = sample(backend, tensor("w", [4, 5, 6], FLOAT64))
    gone = sorted(axis % 3 for axis in axes) or [0, 1, 2]
    shape = [1 if axis in gone else size for axis, size in enumerate((4, 5, 6))]
    kept = [axis for axis in range(3) if axis not in gone]
    rows = base.transpose(kept + gone).reshape(-1, np.prod([base.shape[axis] for axis in gone]))
    expected = np.array([added_up(row) / len(row) for row in rows]).reshape(shape)
    spec = expression(Step(recipe=normal(shape=[4, 5, 6])), reduced, shape=shape, dtype=FLOAT64)
    assert equal(sample(backend, spec), expected)


REDUCERS = {
    "maximum": (Reduction(reducer=Reducer.REDUCER_MAXIMUM, axes=[1]), lambda row: row.max()),
    "minimum": (Reduction(reducer=Reducer.REDUCER_MINIMUM, axes=[1]), lambda row: row.min()),
    "norm": (Reduction(reducer=Reducer.REDUCER_NORM, axes=[1]), lambda row: np.sqrt(added_up(row * row))),
    "1-norm": (Reduction(reducer=Reducer.REDUCER_NORM, axes=[1], p=1.0), lambda row: added_up(np.abs(row))),
    "3-norm": (
        Reduction(reducer=Reducer.REDUCER_NORM, axes=[1], p=3.0),
        lambda row: functions.power(
            np.array(added_up(functions.power(np.abs(row), np.array(3.0)))), np.array(1 / 3)
        ).item(),
    ),
}


@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.parametrize("columns", [7, 20_000])
def test_reducers(name, columns, backend) -> None:
    reduction, of = REDUCERS[name]
    spec = expression(
        Step(recipe=normal(shape=[3, columns])), Step(reduction=reduction, arguments=[0]), shape=[3, 1], dtype=FLOAT64
    )
    base = sample(backend, tensor("w", [3, columns], FLOAT64))
    assert sample(backend, spec).reshape(-1).tolist() == [float(of(row)) for row in base]


# Cost, errors, cancellation.

HUGE = 2**20
FAR = ([HUGE - 2, HUGE - 3], [HUGE, HUGE])


def test_a_few_elements_of_huge_parts_are_fast(backend) -> None:
    half = HUGE // 2
    spec = parts(
        Part(recipe=normal("a")),
        Part(view=View(shape=[HUGE, half], strides=[1, 2 * HUGE]), recipe=normal("b")),
        shape=[HUGE, HUGE],
    )
    begin = time.thread_time()
    values = sample(backend, spec, FAR)
    assert time.thread_time() - begin < 1
    expected = sample(backend, tensor("a", [HUGE, HUGE]), FAR)
    expected[0] = sample(backend, tensor("b", [HUGE, half]), ([HUGE - 3, half - 1], [HUGE, half]))[:, 0]
    assert equal(values, expected)


def test_a_few_elements_of_a_huge_expression_are_fast(backend) -> None:
    spec = expression(
        Step(recipe=normal("a")), Step(view=View(shape=[HUGE, HUGE], strides=[1, HUGE]), arguments=[0]),
        apply("add", 0, 1), shape=[HUGE, HUGE], dtype=FLOAT64,
    )  # fmt: skip
    begin = time.thread_time()
    values = sample(backend, spec, FAR)
    assert time.thread_time() - begin < 1
    a = tensor("a", [HUGE, HUGE], FLOAT64)
    mirrored = sample(backend, a, tuple(bound[::-1] for bound in FAR))
    assert equal(values, sample(backend, a, FAR) + mirrored.T)


def test_a_value_that_is_not_finite_is_named(backend) -> None:
    flat = Literal(data=np.float32([1, 2, 3, 4, 0, 6]).tobytes())
    spec = expression(Step(recipe=Recipe(literal=flat)), apply("log", 0), shape=[2, 3])
    with pytest.raises(engine.InvalidSpec, match=r"element \(1, 1\) of tensor 'w' is -inf") as refusal:
        sample(backend, spec)
    assert refusal.value.field == "spec.expression"
    assert sample(backend, spec, ([0, 0], [1, 3])).shape == (1, 3)
    too_large = expression(Step(constant=1e6), shape=[2], dtype=FLOAT16)
    with pytest.raises(engine.InvalidSpec, match=r"element \(0,\)"):
        sample(backend, too_large)


def test_a_part_beyond_the_dtype_is_refused(backend) -> None:
    wide = Recipe(constant=Constant(val=1e6), dtype=FLOAT32)
    with pytest.raises(engine.InvalidSpec, match="of tensor 'w' is inf"):
        sample(backend, parts(Part(recipe=wide), shape=[2], dtype=FLOAT16))


@pytest.mark.parametrize(
    "spec",
    [
        expression(Step(recipe=normal()), *(apply("sin", n) for n in range(50)), shape=[1 << 22]),
        parts(Part(recipe=normal("a")), Part(recipe=normal("b")), shape=[1 << 22]),
    ],
    ids=["expression", "parts"],
)
def test_work_ends_soon_after_it_is_cancelled(spec, backend) -> None:
    polls = itertools.count()
    description = engine.describe(spec)
    out = np.empty(description.element_count, np.float32)
    begin = time.thread_time()
    with pytest.raises(engine.Cancelled):
        backend.fill(description, 0, out, lambda: next(polls) > 0)
    assert time.thread_time() - begin < 1
