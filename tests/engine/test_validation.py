"""Invalid requests are refused before any work, and the error names the field."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seedbed.v1 import (
    Assembly,
    Axes,
    Constant,
    DataType,
    DeltaOrthogonal,
    Dirac,
    Disk,
    Expression,
    Eye,
    Function,
    Kaiming,
    Literal,
    Normal,
    Ones,
    Orthogonal,
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
    TruncNormal,
    Uniform,
    VarianceScaling,
    View,
    Xavier,
    Zeros,
)
from seedbed_server import engine
from seedbed_server.engine import recipes

COMPLEX64 = DataType.DATA_TYPE_COMPLEX64
HALF = DataType.DATA_TYPE_FLOAT16
NAN, INF = math.nan, math.inf


def tensor(shape=(4, 6), **fields) -> TensorSpec:
    return TensorSpec(shape=shape, **fields)


# (spec, field that the error names, a part of its description)
REFUSED = {
    "no scheme": (tensor(), "spec.scheme", "no scheme is set"),
    "negative dimension": (tensor((3, -1), ones=Ones()), "spec.shape[1]", "-1 is negative"),
    "65 dimensions": (tensor([1] * 65, ones=Ones()), "spec.shape", "65 dimensions are over the limit of 64"),
    "too many elements": (tensor((2**32, 2**31), ones=Ones()), "spec.shape", "2^63 - 1 elements"),
    "too many bytes": (tensor((2**61,), ones=Ones()), "spec.shape", "2^63 - 1 bytes"),
    "too many, but for a 0": (tensor((0, 2**62, 4), ones=Ones()), "spec.shape", "2^63 - 1 elements"),
    "unknown dtype": (tensor(dtype=9, ones=Ones()), "spec.dtype", "unknown dtype 9"),
    "unknown version": (tensor(algorithm_version=2, ones=Ones()), "spec.algorithm_version", "version 2"),
    "unknown nonlinearity": (
        tensor(kaiming_normal=Kaiming(nonlinearity=99)), "spec.kaiming_normal.nonlinearity",
        "Unsupported nonlinearity 99; use one of linear, identity",
    ),
    "unknown mode": (tensor(kaiming_uniform=Kaiming(mode=99)), "spec.kaiming_uniform.mode", "Mode 99 not supported"),
    "mode of variance_scaling": (
        tensor(kaiming_uniform=Kaiming(mode="FAN_MODE_FAN_AVG")), "spec.kaiming_uniform.mode",
        "Mode fan_avg not supported, please use one of ['fan_in', 'fan_out']",
    ),
    "unknown scaling mode": (
        tensor(variance_scaling=VarianceScaling(mode=99)), "spec.variance_scaling.mode", "Mode 99 not supported"
    ),
    "unknown distribution": (
        tensor(variance_scaling=VarianceScaling(distribution=99)), "spec.variance_scaling.distribution", "99"
    ),
    "unknown unit": (tensor(trunc_normal=TruncNormal(bounds=9)), "spec.trunc_normal.bounds", "9 is not a known unit"),
    "nan constant": (tensor(constant=Constant(val=NAN)), "spec.constant.val", "nan is not finite"),
    "infinite bound": (tensor(uniform=Uniform(b=INF)), "spec.uniform.b", "inf is not finite"),
    "nan mean": (tensor(normal=Normal(mean=NAN)), "spec.normal.mean", "nan is not finite"),
    "infinite std": (tensor(trunc_normal=TruncNormal(std=INF)), "spec.trunc_normal.std", "inf is not finite"),
    "nan gain": (tensor(xavier_normal=Xavier(gain=NAN)), "spec.xavier_normal.gain", "nan is not finite"),
    "nan slope": (tensor(kaiming_normal=Kaiming(a=NAN)), "spec.kaiming_normal.a", "nan is not finite"),
    "nan sparsity": (tensor(sparse=Sparse(sparsity=NAN)), "spec.sparse.sparsity", "nan is not finite"),
    "a > b": (tensor(uniform=Uniform(a=2.0, b=1.0)), "spec.uniform.a", "found a=2.0 > b=1.0"),
    "a > b, truncated": (tensor(trunc_normal=TruncNormal(a=3.0)), "spec.trunc_normal.a", "found a=3.0 > b=2.0"),
    "negative std": (tensor(normal=Normal(std=-1.0)), "spec.normal.std", "-1.0 is negative"),
    "negative std, truncated": (tensor(trunc_normal=TruncNormal(std=-1.0)), "spec.trunc_normal.std", "is negative"),
    "negative std, sparse": (tensor(sparse=Sparse(std=-1.0)), "spec.sparse.std", "-1.0 is negative"),
    "negative gain": (tensor(xavier_uniform=Xavier(gain=-1.0)), "spec.xavier_uniform.gain", "-1.0 is negative"),
    "negative gain, kaiming": (tensor(kaiming_normal=Kaiming(gain=-1.0)), "spec.kaiming_normal.gain", "negative"),
    "negative gain, orthogonal": (tensor(orthogonal=Orthogonal(gain=-1.0)), "spec.orthogonal.gain", "negative"),
    "negative scale": (tensor(variance_scaling=VarianceScaling(scale=-1.0)), "spec.variance_scaling.scale", "negative"),
    "sparsity over 1": (tensor(sparse=Sparse(sparsity=1.1)), "spec.sparse.sparsity", "1.1 is not a fraction"),
    "sparsity under 0": (tensor(sparse=Sparse(sparsity=-0.1)), "spec.sparse.sparsity", "-0.1 is not a fraction"),
    "no groups": (tensor((4, 2, 3), dirac=Dirac(groups=0)), "spec.dirac.groups", "0 is less than 1"),
    "negative groups": (tensor((4, 2, 3), dirac=Dirac(groups=-1)), "spec.dirac.groups", "-1 is less than 1"),
    "groups that do not divide": (
        tensor((4, 2, 3), dirac=Dirac(groups=3)), "spec.dirac.groups", "dim 0 must be divisible by groups"
    ),
    "fans of 1 dimension": (
        tensor((3,), xavier_normal=Xavier()), "spec.shape",
        "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions",
    ),
    "fans of a scalar": (tensor((), kaiming_normal=Kaiming()), "spec.shape", "fewer than 2 dimensions"),
    "scaling fans of 1 dimension": (tensor((3,), variance_scaling=VarianceScaling()), "spec.shape", "1 dimensions"),
    "an axis outside": (
        tensor(variance_scaling=VarianceScaling(in_axis=Axes(axes=[2]))), "spec.variance_scaling.in_axis", "axis 2"
    ),
    "an axis twice": (
        tensor(variance_scaling=VarianceScaling(in_axis=Axes(axes=[-1]))), "spec.variance_scaling.out_axis", "twice"
    ),
    "eye of 3 dimensions": (tensor((2, 2, 2), eye=Eye()), "spec.shape", "Only tensors with 2 dimensions"),
    "sparse of 1 dimension": (tensor((2,), sparse=Sparse()), "spec.shape", "Only tensors with 2 dimensions"),
    "dirac of 2 dimensions": (tensor((2, 2), dirac=Dirac()), "spec.shape", "Only tensors with 3, 4, or 5 dimensions"),
    "orthogonal of 1 dimension": (
        tensor((5,), orthogonal=Orthogonal()), "spec.shape", "Only tensors with 2 or more dimensions"
    ),
    "orthogonal's axis": (tensor(orthogonal=Orthogonal(axis=2)), "spec.orthogonal.axis", "axis 2 is outside"),
    "delta of 2 dimensions": (
        tensor(delta_orthogonal=DeltaOrthogonal()), "spec.shape", "Only tensors with 3, 4, or 5 dimensions"
    ),
    "delta of few outputs": (
        tensor((3, 4, 5), delta_orthogonal=DeltaOrthogonal()), "spec.shape", "4 inputs (axis 1) but only 3 outputs"
    ),
    "delta of one axis": (
        tensor((4, 4, 5), delta_orthogonal=DeltaOrthogonal(in_axis=-3)), "spec.delta_orthogonal.in_axis", "axis 0"
    ),
    "delta's axis": (
        tensor((4, 4, 5), delta_orthogonal=DeltaOrthogonal(out_axis=3)), "spec.delta_orthogonal.out_axis", "axis 3"
    ),
    "delta's gain": (
        tensor((4, 4, 5), delta_orthogonal=DeltaOrthogonal(gain=-1.0)), "spec.delta_orthogonal.gain", "negative"
    ),
    "delta too large": (
        tensor((8193, 8192, 3), delta_orthogonal=DeltaOrthogonal()), "spec.shape", "over orthogonal's limit"
    ),
    "a real disk": (tensor(disk=Disk()), "spec.disk", "a law of complex numbers; give dtype complex64"),
    "a negative radius": (tensor(dtype=COMPLEX64, disk=Disk(radius=-1.0)), "spec.disk.radius", "negative"),
    "a disk within a normal": (
        tensor(dtype=COMPLEX64, disk=Disk(radius=1.0, std=17.0)), "spec.disk.std", "almost uniform; omit std"
    ),
    "a disk beyond float": (tensor(dtype=COMPLEX64, disk=Disk(radius=1e39)), "spec.disk", "the radius 1e+39 is beyond"),
    "a complex mean": (
        tensor(dtype=COMPLEX64, normal=Normal(mean=1.0)), "spec.normal.mean", "is not 0, the only mean supported"
    ),
    "bounds of complex numbers": (
        tensor(dtype=COMPLEX64, trunc_normal=TruncNormal()), "spec.trunc_normal", "use variance_scaling or disk"
    ),
    **{
        f"{name} of complex numbers": (
            tensor(shape, dtype=COMPLEX64, **{name: {}}), f"spec.{name}", "is not offered in complex64; give a real"
        )
        for name, shape in {
            "orthogonal": (4, 6), "sparse": (4, 6), "permutation": (4, 6), "delta_orthogonal": (4, 4, 3)
        }.items()
    },
    "orthogonal too large": (tensor((8192, 8193), orthogonal=Orthogonal()), "spec.shape", "over orthogonal's limit"),
    "constant beyond half": (tensor(dtype=HALF, constant=Constant(val=1e6)), "spec.constant", "beyond 65504.0"),
    "bound beyond half": (tensor(dtype=HALF, uniform=Uniform(b=1e6)), "spec.uniform", "beyond 65504.0"),
    "trunc bound beyond half": (tensor(dtype=HALF, trunc_normal=TruncNormal(b=1e6)), "spec.trunc_normal", "65504.0"),
    "normal beyond half": (tensor(dtype=HALF, normal=Normal(std=2e4)), "spec.normal", "beyond 65504.0"),
    "width beyond float": (tensor(uniform=Uniform(a=-3e38, b=3e38)), "spec.uniform", "the width b - a"),
    "no value between": (
        tensor(dtype=HALF, uniform=Uniform(a=1.0001, b=1.0002)), "spec.uniform", "no float16 lies between"
    ),
    "bounds too far": (tensor(trunc_normal=TruncNormal(std=0.002, a=1.0)), "spec.trunc_normal", "never within"),
    "infinite by its gain": (tensor(xavier_uniform=Xavier(gain=1e308)), "spec.xavier_uniform", "beyond"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    spec, field, text = REFUSED[name]
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(spec)
    assert refusal.value.field == field
    assert text in refusal.value.description
    assert str(refusal.value) == f"{field}: {refusal.value.description}"


NORMAL = Recipe(normal=Normal())
SUM = Reducer.REDUCER_SUM


def parts(*placed: Part, shape=(4, 6), **fields) -> TensorSpec:
    return tensor(shape, parts=Parts(parts=placed), **fields)


def expression(*steps: Step, shape=(4, 6), **fields) -> TensorSpec:
    return tensor(shape, expression=Expression(steps=steps), **fields)


def leaf(*shape: int) -> Step:
    return Step(recipe=Recipe(shape=shape, normal=Normal()))


def number(value: float = 1.0) -> Step:
    return Step(constant=value)


def apply(name: str, *arguments: int) -> Step:
    return Step(function=Function.Value(f"FUNCTION_{name}"), arguments=arguments)


def view(*arguments: int, shape=(), strides=(), offset=0) -> Step:
    return Step(view=View(shape=shape, strides=strides, offset=offset), arguments=arguments)


def reduction(*arguments: int, **fields) -> Step:
    return Step(reduction=Reduction(**{"reducer": SUM, **fields}), arguments=arguments)


def assembly(*arguments: int, shape=(2, 2), boxes=()) -> Step:
    return Step(assembly=Assembly(shape=shape, boxes=boxes), arguments=arguments)


def boxed(**fields) -> TensorSpec:
    return parts(Part(view=View(**fields), recipe=NORMAL))


def nested(depth: int) -> Recipe:
    recipe = Recipe(normal=Normal())
    for _ in range(depth):
        recipe = Recipe(parts=Parts(parts=[Part(recipe=recipe)]))
    return recipe


def literal(*values: float, kind: str = "<f4", **fields) -> TensorSpec:
    return tensor((2,), literal=Literal(data=np.array(values, kind).tobytes()), **fields)


PART, STEPS = "spec.parts.parts[0]", "spec.expression.steps"

REFUSED_RECIPES = {
    # Parts.
    "a part of no recipe": (parts(Part()), f"{PART}.recipe", "is missing; give the recipe of the part"),
    "a part of no scheme": (
        parts(Part(recipe=Recipe(stream="x"))), f"{PART}.recipe.scheme", "no scheme is set; set one"
    ),
    "a part outside": (
        parts(Part(region=Region(start=[0, 0], stop=[4, 7]), recipe=NORMAL)), f"{PART}.region.stop[1]",
        "7 is beyond the dimension's size 6",
    ),
    "a part of another rank": (
        parts(Part(region=Region(start=[0], stop=[4]), recipe=NORMAL)), f"{PART}.region.start", "has 1 dimensions"
    ),
    "a part that is refused": (
        parts(Part(recipe=NORMAL), Part(recipe=Recipe(normal=Normal(std=-1.0)))),
        "spec.parts.parts[1].recipe.normal.std", "-1.0 is negative",
    ),
    "a part of an unknown dtype": (
        parts(Part(recipe=Recipe(dtype=9, normal=Normal()))), f"{PART}.recipe.dtype", "unknown dtype 9"
    ),
    "a part of a negative shape": (
        parts(Part(recipe=Recipe(shape=[4, -6], normal=Normal()))), f"{PART}.recipe.shape[1]", "-6 is negative"
    ),
    "a part that is not broadcast": (
        parts(Part(recipe=Recipe(shape=[3, 6], normal=Normal()))), f"{PART}.recipe.shape",
        "[3, 6] cannot be broadcast to [4, 6], the shape of the part; give equal sizes or 1",
    ),
    "a part of more dimensions": (
        parts(Part(recipe=Recipe(shape=[1, 4, 6], normal=Normal()))), f"{PART}.recipe.shape", "cannot be broadcast"
    ),
    "a complex part of a real tensor": (
        parts(Part(recipe=Recipe(dtype=COMPLEX64, normal=Normal()))), f"{PART}.recipe.dtype",
        "the tensor's dtype is real",
    ),
    "a real part of a complex tensor": (
        parts(Part(recipe=Recipe(dtype=HALF, normal=Normal())), dtype=COMPLEX64), f"{PART}.recipe.dtype",
        "is real, but the tensor is complex64; omit the dtype",
    ),
    "a complex expression": (
        expression(leaf(), dtype=COMPLEX64), "spec.dtype", "is complex64, but expressions compute with real numbers"
    ),
    "a complex step": (
        expression(Step(recipe=Recipe(dtype=COMPLEX64, normal=Normal()))), f"{STEPS}[0].recipe.dtype", "complex64"
    ),
    "a complex cast": (expression(leaf(), Step(cast=COMPLEX64, arguments=[0])), f"{STEPS}[1].cast", "complex64"),
    "a complex literal of nan": (
        literal(1.0, NAN, 2.0, 3.0, dtype=COMPLEX64), "spec.literal.data", "element 0 is (1+nanj); give finite numbers"
    ),
    "a view outside": (boxed(shape=[5], strides=[6]), f"{PART}.view", "takes element 24, outside the tensor of 24"),
    "a view before": (boxed(shape=[2], strides=[-1]), f"{PART}.view", "takes element -1, outside"),
    "an offset outside": (boxed(offset=24), f"{PART}.view", "takes element 24, outside"),
    "a view of too few strides": (
        boxed(shape=[2, 2], strides=[1]), f"{PART}.view.strides", "has 1 numbers for 2 dimensions; give one stride"
    ),
    "a view of a negative size": (boxed(shape=[-2], strides=[1]), f"{PART}.view.shape[0]", "-2 is negative"),
    "a view too large": (boxed(shape=[2**40, 2**40], strides=[0, 0]), f"{PART}.view.shape", "2^63 - 1 elements"),
    "an element twice": (boxed(shape=[3, 3], strides=[1, 1]), f"{PART}.view", "may contain an element twice"),
    "an element repeated": (boxed(shape=[3], strides=[0]), f"{PART}.view", "may contain an element twice"),
    "too many parts": (parts(*[Part(recipe=NORMAL)] * 4097), "spec", "4097 parts, over the limit of 4096; use fewer"),
    "too deep": (parts(Part(recipe=nested(17))), "spec" + ".parts.parts[0].recipe" * 17, "17 recipes deep"),
    # Literals.
    "a literal too short": (literal(1.0), "spec.literal.data", "has 4 bytes, but shape [2] of float32 takes 8"),
    "a literal of another dtype": (literal(1.0, 2.0, dtype=HALF), "spec.literal.data", "float16 takes 4"),
    "a literal of nan": (literal(1.0, NAN), "spec.literal.data", "element 1 is nan; give finite numbers"),
    "a literal of inf": (literal(-INF, 1.0, kind="<f2", dtype=HALF), "spec.literal.data", "element 0 is -inf"),
    "a literal in a part": (
        parts(Part(recipe=Recipe(literal=Literal()))), f"{PART}.recipe.literal.data", "has 0 bytes"
    ),
    # Permutations.
    "a permutation beyond half": (
        tensor((2050,), dtype=HALF, permutation=Permutation()), "spec.permutation",
        "its largest value, 2049, is beyond 2048, the limit up to which float16 represents every integer",
    ),
    "a permutation beyond float": (tensor((2**25,), permutation=Permutation()), "spec.permutation", "16777216"),
    # Expressions.
    "no steps": (expression(), STEPS, "has no steps; give at least one"),
    "a step of no value": (expression(Step()), f"{STEPS}[0]", "has no value; set one"),
    "a loop": (
        expression(leaf(), apply("NEGATE", 1)), f"{STEPS}[1].arguments[0]",
        "is step 1, which does not come before step 1",
    ),
    "a step ahead": (expression(leaf(), apply("ADD", 0, 7)), f"{STEPS}[1].arguments[1]", "is step 7"),
    "too few arguments": (expression(leaf(), apply("ADD", 0)), f"{STEPS}[1].arguments", "add takes 2 arguments, not 1"),
    "too many arguments": (
        expression(leaf(), apply("EXP", 0, 0)), f"{STEPS}[1].arguments", "exp takes 1 argument, not 2"
    ),
    "arguments of a recipe": (
        expression(leaf(), Step(recipe=NORMAL, arguments=[0])), f"{STEPS}[1].arguments", "a recipe takes 0 arguments"
    ),
    "arguments of a constant": (
        expression(leaf(), Step(constant=1, arguments=[0])), f"{STEPS}[1].arguments", "a constant takes 0 arguments"
    ),
    "no argument of a view": (expression(view()), f"{STEPS}[0].arguments", "a view takes 1 argument, not 0"),
    "no argument of a reduction": (expression(reduction()), f"{STEPS}[0].arguments", "a reduction takes 1 argument"),
    "no argument of a cast": (expression(Step(cast=HALF)), f"{STEPS}[0].arguments", "a cast takes 1 argument"),
    "shapes that do not fit": (
        expression(leaf(4, 6), leaf(3), apply("ADD", 0, 1)), f"{STEPS}[2].arguments",
        "have shapes [4, 6] and [3], which cannot be broadcast",
    ),
    "a result that does not fit": (
        expression(leaf(3)), f"{STEPS}[0]", "[3] cannot be broadcast to [4, 6], the shape of the tensor"
    ),
    "an unknown function": (
        expression(leaf(), Step(function=99, arguments=[0])), f"{STEPS}[1].function", "99 is not a known function"
    ),
    "no function": (
        expression(leaf(), Step(function=0, arguments=[0])), f"{STEPS}[1].function", "0 is not a known function"
    ),
    "division by 0": (
        expression(leaf(), number(0.0), apply("DIVIDE", 0, 1)), f"{STEPS}[2].arguments[1]", "is the constant 0"
    ),
    "division by -0": (
        expression(leaf(), number(-0.0), apply("DIVIDE", 0, 1)), f"{STEPS}[2].arguments[1]", "is the constant 0"
    ),
    "a constant of nan": (expression(number(NAN)), f"{STEPS}[0].constant", "nan is not finite; give a finite number"),
    "a step that is refused": (
        expression(Step(recipe=Recipe(uniform=Uniform(a=2.0)))), f"{STEPS}[0].recipe.uniform.a", "found a=2.0 > b=1.0"
    ),
    "a step of no scheme": (expression(Step(recipe=Recipe())), f"{STEPS}[0].recipe.scheme", "no scheme is set"),
    "a view outside its argument": (
        expression(leaf(4), view(0, shape=[4], strides=[2])),
        f"{STEPS}[1].view",
        "takes element 6, outside the tensor of 4",
    ),
    "a step too large": (
        expression(number(), view(0, shape=[2**60], strides=[0])), f"{STEPS}[1]", "has more than 2^60 elements"
    ),
    "an unknown reducer": (
        expression(leaf(), reduction(0, reducer=99)), f"{STEPS}[1].reduction.reducer", "99 is not a known reducer"
    ),
    "no reducer": (
        expression(leaf(), reduction(0, reducer=0)), f"{STEPS}[1].reduction.reducer", "0 is not a known reducer"
    ),
    "an axis outside the argument": (
        expression(leaf(), reduction(0, axes=[2])), f"{STEPS}[1].reduction.axes", "axis 2 is outside a shape of 2"
    ),
    "an axis reduced twice": (
        expression(leaf(), reduction(0, axes=[1, -1])), f"{STEPS}[1].reduction.axes", "name an axis twice"
    ),
    "a norm of p = 0": (expression(leaf(), reduction(0, p=0.0)), f"{STEPS}[1].reduction.p", "0.0 is not a finite"),
    "a norm of nan": (expression(leaf(), reduction(0, p=NAN)), f"{STEPS}[1].reduction.p", "nan is not a finite"),
    "a norm of infinity": (expression(leaf(), reduction(0, p=INF)), f"{STEPS}[1].reduction.p", "reduce by a maximum"),
    "nothing to reduce": (
        expression(leaf(3, 0), reduction(0, axes=[1])), f"{STEPS}[1].reduction", "has no elements along axes [1]"
    ),
    "an unknown cast": (expression(leaf(), Step(cast=9, arguments=[0])), f"{STEPS}[1].cast", "unknown dtype 9"),
    "a cast to nothing": (expression(leaf(), Step(cast=0, arguments=[0])), f"{STEPS}[1].cast", "unknown dtype 0"),
    "boxes and arguments": (
        expression(leaf(), assembly(0, 0, boxes=[View()])), f"{STEPS}[1].arguments",
        "an assembly of 1 boxes takes 1 argument, not 2",
    ),
    "a negative assembly": (expression(assembly(shape=[-1])), f"{STEPS}[0].assembly.shape[0]", "-1 is negative"),
    "a box outside": (
        expression(number(), assembly(0, boxes=[View(offset=4)])), f"{STEPS}[1].assembly.boxes[0]", "takes element 4"
    ),
    "an element of a box twice": (
        expression(number(), assembly(0, boxes=[View(shape=[2], strides=[0])])), f"{STEPS}[1].assembly.boxes[0]",
        "may contain an element twice",
    ),
    "an argument that does not fit its box": (
        expression(leaf(3), assembly(0, boxes=[View(shape=[2], strides=[1])])), f"{STEPS}[1].arguments[0]",
        "[3] cannot be broadcast to [2], the shape of the box",
    ),
    "a huge assembly": (expression(assembly(shape=[2**62])), f"{STEPS}[0]", "has more than 2^60 elements"),
    "too many steps": (expression(*[number()] * 10_001), "spec", "10001 steps, over the limit of 10000; use fewer"),
    "too many steps within": (
        parts(*[Part(recipe=Recipe(expression=Expression(steps=[number()] * 5001)))] * 2),
        "spec.parts.parts[1].recipe", "10002 steps",
    ),
    "too many dimensions of a view": (
        expression(number(), view(0, shape=[1] * 65, strides=[0] * 65)), f"{STEPS}[1].view.shape", "65 dimensions"
    ),
    "too many dimensions of a box": (
        boxed(shape=[1] * 65, strides=[0] * 65), f"{PART}.view.shape", "65 dimensions"
    ),
    "too many dimensions of an assembly": (
        expression(assembly(shape=[1] * 65)), f"{STEPS}[0].assembly.shape", "65 dimensions"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_RECIPES)
def test_refused_recipes(name: str) -> None:
    spec, field, text = REFUSED_RECIPES[name]
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(spec)
    assert refusal.value.field == field
    assert text in refusal.value.description


def test_recipes_at_the_limits_are_served() -> None:
    assert engine.describe(parts(*[Part(recipe=NORMAL)] * 4096)).element_count == 24
    assert engine.describe(parts(Part(recipe=nested(16)))).element_count == 24
    assert engine.describe(expression(*[number()] * 10_000)).element_count == 24


def test_descriptions_that_share_a_law_are_independent() -> None:
    spec = tensor(name="a", seed=1, stream="s", normal=Normal())
    unchanged = spec.SerializeToString()
    first, second = engine.describe(spec), engine.describe(tensor(name="b", normal=Normal()))
    assert spec.SerializeToString() == unchanged
    assert (first.spec.name, first.spec.seed, first.spec.stream) == ("a", 1, "s")
    assert (second.spec.name, second.spec.seed, second.spec.stream) == ("b", 0, "")
    first.law.normal.std = 9.0
    assert engine.describe(spec).law.normal.std == 1.0


def test_a_recipe_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = []
    resolve = recipes.resolve
    monkeypatch.setattr(recipes, "resolve", lambda *args: resolved.append(args) or resolve(*args))
    description = engine.describe(parts(Part(recipe=NORMAL), name="resolved once"))
    engine.whole_elements(description)
    engine.open_backend("numpy").sampler(description)
    assert len(resolved) == 1


def test_a_prefix_names_the_tensor_of_a_model() -> None:
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(tensor(normal=Normal(std=-1.0)), prefix="tensors[3].")
    assert refusal.value.field == "tensors[3].spec.normal.std"


REGIONS = {
    "another rank": (Region(start=[0], stop=[4]), "region.start", "has 1 dimensions, but the shape has 2"),
    "no stop": (Region(start=[0, 0]), "region.stop", "has 0 dimensions"),
    "empty message": (Region(), "region.start", "has 0 dimensions"),
    "reversed": (Region(start=[3, 0], stop=[1, 6]), "region.start[0]", "start 3 is after stop 1"),
    "negative": (Region(start=[0, -1], stop=[1, 6]), "region.start[1]", "-1 is negative"),
    "outside": (Region(start=[0, 0], stop=[4, 7]), "region.stop[1]", "7 is beyond the dimension's size 6"),
}


@pytest.mark.parametrize("name", REGIONS)
def test_refused_regions(name: str) -> None:
    region, field, text = REGIONS[name]
    with pytest.raises(engine.InvalidSpec) as refusal:
        engine.describe(tensor(normal=Normal()), region)
    assert refusal.value.field == field
    assert text in refusal.value.description


@pytest.mark.parametrize(
    ("nonlinearity", "param", "text"), [(0, None, "Unsupported nonlinearity 0"), (12, NAN, "negative_slope nan")]
)
def test_refused_gains(nonlinearity, param, text) -> None:
    with pytest.raises(engine.InvalidSpec, match=text):
        engine.calculate_gain(nonlinearity, param)


@pytest.mark.parametrize(
    "spec",
    [
        tensor(()  , zeros=Zeros()),
        tensor((0,), normal=Normal()),
        tensor((0, 3), eye=Eye()),
        tensor((0, 1, 3), dirac=Dirac()),
        tensor((3, 0), sparse=Sparse(sparsity=0.5)),
        tensor((0, 3), orthogonal=Orthogonal()),
        tensor((2**62 - 1,), dtype=HALF, normal=Normal()),
        tensor([1] * 64, normal=Normal()),
        tensor(seed=2**64 - 1, normal=Normal()),
        tensor((5,), variance_scaling=VarianceScaling(in_axis=Axes(), out_axis=Axes(axes=[0]))),
    ],
    ids=str,
)  # fmt: skip
def test_served(spec: TensorSpec) -> None:
    description = engine.describe(spec)
    assert description.spec.algorithm_version == 1
    assert description.element_count == math.prod(spec.shape)


def test_unavailable_backends() -> None:
    with pytest.raises(ValueError, match="unknown backend 'tpu'; use one of auto, numpy, numba, cupy"):
        engine.open_backend("tpu")
    with pytest.raises(ValueError, match="threads: 0 is less than 1"):
        engine.open_backend("numpy", 0)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDBED_BACKEND", "numpy")
    monkeypatch.setenv("SEEDBED_THREADS", "3")
    backend = engine.open_backend()
    assert (backend.name, backend.threads) == ("numpy", 3)
    monkeypatch.setenv("SEEDBED_THREADS", "many")
    with pytest.raises(ValueError, match="SEEDBED_THREADS: 'many' is not an integer"):
        engine.open_backend()
