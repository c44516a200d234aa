"""The evidence can be gathered, its checks fail where they should, and the document says what was found."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from click.testing import CliRunner
from evidence import (
    accuracy,
    distributions,
    elementary,
    fitting,
    kernels,
    laws,
    peers,
    plain,
    practrand,
    reference,
    tables,
    testu01,
    words,
)
from evidence.__main__ import main

from seedbed.v1 import (
    Assembly,
    Constant,
    DataType,
    Expression,
    Function,
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
    TruncNormal,
    Uniform,
    View,
)
from seedbed_server import engine
from seedbed_server.engine import constants, functions
from seedbed_server.engine.parameters import parameters_of

ROOT = Path(__file__).resolve().parent.parent
FLOAT32, FLOAT64 = DataType.DATA_TYPE_FLOAT32, DataType.DATA_TYPE_FLOAT64
IMPOSSIBLE = 1e-9
NEEDS_LONG_DOUBLE = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no floats of 80 bits here")


def run(*arguments, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "evidence", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def served(**fields):
    description = engine.describe(TensorSpec(**fields))
    out = np.empty(description.element_count, engine.numpy_dtype(description.spec.dtype))
    engine.open_backend("numba", threads=1).fill(description, 0, out)
    return out


# The words are those that are served.


def top_bits(seed, name, count):
    uniforms = served(name=name, seed=seed, shape=[count], uniform=Uniform())
    return (uniforms.astype(np.float64) * 2**24).astype(np.uint32)


def test_straight_words_are_those_of_the_served_tensor():
    taken = next(words.straight())[:1000]
    assert np.array_equal(taken >> 8, top_bits(words.SEED, words.names()[0], 1000))


def test_interleaved_words_go_over_all_tensors_before_the_next_element():
    by_name = next(words.over_names()).reshape(-1, words.STREAMS)
    by_seed = next(words.over_seeds()).reshape(-1, words.STREAMS)
    for column in (0, 1, 4095):
        assert np.array_equal(by_name[:40, column] >> 8, top_bits(words.SEED, words.names()[column], 40))
        assert np.array_equal(by_seed[:40, column] >> 8, top_bits(column, words.names()[0], 40))


def test_interleaved_words_go_on_where_the_last_buffer_ended():
    buffers = words.over_seeds()
    first, second = (next(buffers).reshape(-1, words.STREAMS) for _ in range(2))
    both = np.concatenate([first, second])[:, 7] >> 8
    assert np.array_equal(both, top_bits(7, words.names()[0], len(both)))


def test_first_blocks_are_those_of_successive_seeds():
    blocks = next(words.first_blocks()).reshape(-1, 4)
    for seed in (0, 1, 1000):
        assert np.array_equal(blocks[seed] >> 8, top_bits(seed, words.names()[0], 4))


def test_packed_uniforms_lose_no_bit():
    packed = next(words.uniforms())
    bytes_of_draws = packed.astype("<u4").view(np.uint8)[:3000].reshape(-1, 3)
    draws = bytes_of_draws.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
    assert np.array_equal(draws, top_bits(words.SEED, "w", 1000))


def test_ten_rounds_of_the_control_are_the_engines():
    assert np.array_equal(next(words.few_rounds(10)), next(words.straight()))
    assert not np.array_equal(next(words.few_rounds(9)), next(words.straight()))


# The batteries.


@pytest.mark.nightly
@pytest.mark.skipif(not testu01.is_installed(), reason="TestU01 is not installed")
def test_small_crush_passes_the_engine_and_fails_randu(tmp_path):
    done = run("bits", "seeds", "randu", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "bits.json").read_text(encoding="utf-8"))
    good, bad = results["seeds smallcrush"], results["randu smallcrush"]
    assert good["statistics"] == bad["statistics"] == 15
    assert good["bytes"] > 2**29
    assert (good["failures"], len(bad["failures"]) > 5) == ([], True)
    assert "Generator" in (tmp_path / "seeds.smallcrush.txt").read_text(encoding="utf-8")


def test_a_missing_battery_is_reported_with_the_remedy(tmp_path):
    done = run("bits", "straight", "--out", tmp_path, environment={"TESTU01_LIBRARY": "/nowhere/libtestu01.so"})
    assert done.returncode == 1
    assert "apt-get install libtestu01-0" in done.stderr
    done = run("bits", "straight", "--battery", "practrand", "--out", tmp_path, environment={"PRACTRAND": "/nowhere"})
    assert done.returncode == 1
    assert "PRACTRAND" in done.stderr
    assert not (tmp_path / "bits.json").exists()


PRACTRAND_REPORT = """\
rng=RNG_stdin32, seed=unknown
length= 128 megabytes (2^27 bytes), time= 1.0 seconds
  no anomalies in 150 test result(s)

rng=RNG_stdin32, seed=unknown
length= 256 megabytes (2^28 bytes), time= 2.0 seconds
  Test Name                         Raw       Processed     Evaluation
  [Low8/32]Gap-16:B                 R=  +4.3  p =  1.3e-3   unusual
  {anomaly}
  ...and 160 test result(s) without anomalies
"""


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script")
@pytest.mark.parametrize(("source", "fails"), [("straight", False), ("straight", True), ("rounds-2", True)])
def test_practrand_reads_our_words_and_its_verdict_counts(source, fails, tmp_path):
    """A stand-in that keeps what it reads."""
    anomaly = "BCFN(2+0,13-3,T)                  R>+99999  p = 0           FAIL !!!!!!!!" if fails else ""
    program = tmp_path / "RNG_test"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(tmp_path / 'read')!r}, 'wb').write(sys.stdin.buffer.read(1 << 20))\n"
        f"print({PRACTRAND_REPORT.format(anomaly=anomaly)!r})\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    arguments = ("bits", source, "--battery", "practrand", "--minutes", 1, "--out", tmp_path)
    done = run(*arguments, environment={"PRACTRAND": str(program)})
    assert done.returncode == (1 if fails and source == "straight" else 0), done.stdout + done.stderr
    expected = np.concatenate([part for part, _ in zip(words.SOURCES[source].buffers(), range(2), strict=False)])
    assert (tmp_path / "read").read_bytes() == expected.astype("<u4").tobytes()[: 1 << 20]
    result = json.loads((tmp_path / "bits.json").read_text(encoding="utf-8"))[f"{source} practrand"]
    assert result["bytes"] == 2**28
    assert result["statistics"] == 161 + fails
    assert len(result["failures"]) == fails
    assert [anomaly["name"] for anomaly in result["suspect"]] == ["[Low8/32]Gap-16:B"]


def test_practrand_that_tells_nothing_is_an_error():
    with pytest.raises(RuntimeError, match=r"without a result: .*killed"):
        practrand.parsed([(0.0, "killed")])


# The references.


def test_an_error_is_found_wherever_it_is():
    """A reference that agrees with everything would agree with the engine, too."""
    truncation = reference.Truncation.of(0.0, 1.0, -2.0, 2.0)
    for draw in (0, 1 << 20, (1 << 52) + 1, (1 << 53) - 1):
        exact = float(reference.exact_truncated(truncation, draw, 53))
        u, v = float(2 * draw + 1) * 2.0**-54, float(2 * (2**53 - 1 - draw) + 1) * 2.0**-54
        for ulps in (0, 100, -1000):
            x = exact + ulps * math.ulp(max(abs(exact), 0.25))
            of_one = [np.array([value]) for value in (u, v, x)]
            error = accuracy._truncated_chunk(
                *of_one, 0.0, 1.0, *truncation[4:], *reference.tables(), 53, accuracy.NEAR_ZERO
            )[0]
            assert error == pytest.approx(abs(ulps), abs=0.51)


def test_the_worst_normal_that_is_known():
    parameters = parameters_of(engine.describe(TensorSpec(name="k", shape=[4], normal=Normal())))
    error = accuracy._normal32_error(parameters, 1.0, 0, (4277813509, 2240285957, 1))
    assert 3.1 < error < accuracy.NORMAL_ULP


def test_the_worst_truncated_normal_that_is_known():
    std = 0.028284271247461905
    truncation = reference.Truncation.of(0.0, std, -std, 0.06 * 2**0.5)
    exact = float(reference.exact_truncated(truncation, 3610905941, 32))
    value = kernels.float32_law(accuracy._truncated_parameters(truncation, FLOAT32), np.full(4, 3610905941, np.uint32))
    error = abs(float(value[0]) - exact) / accuracy._unit32(exact, 0.0, std)
    assert 5.6 < error < accuracy.TRUNCATED_ULP["far"]


def test_the_kernels_compute_what_is_served():
    spec = TensorSpec(name="k", shape=[4000], normal=Normal(std=0.3))
    description = engine.describe(spec)
    taken = next(words.interleaved([0], ["k"])).reshape(-1)[:4000]
    mine = kernels.float32_law(parameters_of(description), taken)
    assert np.array_equal(mine, served(name="k", shape=[4000], normal=Normal(std=0.3)))
    spec = TensorSpec(name="k", shape=[2000], dtype=FLOAT64, trunc_normal=TruncNormal())
    of_64_bits = taken[::2].astype(np.uint64) | (taken[1::2].astype(np.uint64) << np.uint64(32))
    mine = kernels.of_draws(parameters_of(engine.describe(spec)), of_64_bits >> np.uint64(11))
    assert np.array_equal(mine, served(name="k", shape=[2000], dtype=FLOAT64, trunc_normal=TruncNormal()))
    spec = TensorSpec(name="k", shape=[2000], dtype=FLOAT64, normal=Normal())
    mine = kernels.float64_law(parameters_of(engine.describe(spec)), of_64_bits)
    assert np.array_equal(mine, served(name="k", shape=[2000], dtype=FLOAT64, normal=Normal()))


def test_rounding_that_truncates_is_found(monkeypatch):
    low, high = accuracy.halves_table(bfloat16=True)
    assert accuracy._halves_chunk(np.uint64(0x3F800000), 1 << 16, np.uint64(1), low, high, True) == 0
    shifted = np.roll(low, 1), np.roll(high, 1)
    assert accuracy._halves_chunk(np.uint64(0x3F800000), 1 << 16, np.uint64(1), *shifted, True) > 1 << 15


# The functions of expressions.


@pytest.mark.parametrize("name", elementary.EXACT)
def test_functions_are_within_the_ulp_that_is_claimed(name):
    arguments = elementary.inputs(name, 200)
    got = getattr(functions, name)(*arguments)
    row = elementary.row(name, arguments, got)
    assert row["inputs"] >= 200
    assert row["largest_ulp"] <= elementary.CLAIMED, row


@pytest.mark.parametrize("ulps", [-2, 2])
def test_a_function_that_is_off_is_found_where_it_is(ulps):
    arguments = elementary.inputs("tanh", 50)
    got = functions.tanh(*arguments)
    got[17] += ulps * math.ulp(got[17])
    row = elementary.row("tanh", arguments, got)
    assert row["largest_ulp"] > 1.4
    assert row["at"] == [float(arguments[0][17]).hex()]


def test_mpmath_finds_the_same_inverse():
    with mpmath.workprec(elementary.BITS):
        for x in (1e-300, -1e-9, 0.3, 0.5, -0.77, 0.9999):
            exact = mpmath.erfinv(mpmath.mpf(x))
            assert abs(elementary._erfinv(mpmath.mpf(x)) / exact - 1) < 1e-40


# Recipes, beside those in plain Python.


def region(start, stop):
    return Region(start=start, stop=stop)


def normal(**fields):
    return Recipe(normal=Normal(), **fields)


def applied(name, *arguments):
    return Step(function=Function.Value(f"FUNCTION_{name.upper()}"), arguments=arguments)


def reduced(name, argument, **fields):
    reducer = Reducer.Value(f"REDUCER_{name.upper()}")
    return Step(reduction=Reduction(reducer=reducer, **fields), arguments=[argument])


def plainly(spec):
    """The same as `served`, from plain Python."""
    values = plain.tensor(spec)
    kept = np.array(values).astype(engine.numpy_dtype(spec.dtype or FLOAT32))
    assert np.array_equal(kept.astype(np.float64), values)
    return kept


NESTED = Parts(
    parts=[
        Part(recipe=normal()),
        Part(region=region([1, 0], [2, 6]), recipe=Recipe(uniform=Uniform(a=-1.0, b=1.0))),
        Part(view=View(shape=[2, 2], strides=[7, -1], offset=3), recipe=normal(stream="own", dtype=FLOAT64)),
    ]
)
BOXES = Parts(
    parts=[
        Part(recipe=normal(shape=[9, 1])),
        Part(region=region([0, 2], [3, 8]), recipe=Recipe(parts=NESTED)),
        Part(region=region([2, 0], [9, 5]), recipe=Recipe(sparse=Sparse(sparsity=0.4), stream="mask")),
        Part(region=region([4, 2], [7, 8]), recipe=Recipe(stream="inner", parts=NESTED)),
        Part(view=View(shape=[8], strides=[-9], offset=71), recipe=Recipe(constant=Constant(val=0.1), dtype=FLOAT64)),
        Part(region=region([8, 6], [9, 8]), recipe=normal()),
    ]
)
STEPS = Expression(
    steps=[
        Step(recipe=normal()),
        Step(recipe=Recipe(uniform=Uniform(a=0.5, b=2.0), shape=[8])),
        Step(constant=0.1),
        applied("multiply", 0, 1),
        applied("divide", 3, 2),
        reduced("mean", 4, axes=[1]),
        reduced("norm", 4, axes=[0]),
        applied("subtract", 4, 5),
        applied("divide", 7, 6),
        Step(cast=DataType.DATA_TYPE_BFLOAT16, arguments=[8]),
        Step(view=View(shape=[8, 9], strides=[1, 8]), arguments=[9]),
        applied("less", 0, 2),
        applied("where", 11, 8, 1),
        reduced("maximum", 12),
        Step(assembly=Assembly(shape=[9, 8], boxes=[View(shape=[9, 8], strides=[8, 1]),
                                                    View(shape=[3, 2], strides=[16, 3], offset=9)]),
             arguments=[12, 13]),
        Step(view=View(shape=[9, 8], strides=[1, 9]), arguments=[10]),
        applied("clamp", 15, 2, 13),
        applied("add", 14, 16),
    ]
)  # fmt: skip
DTYPES = [value for value in DataType.values() if value not in (0, DataType.DATA_TYPE_COMPLEX64)]


@pytest.mark.parametrize("dtype", DTYPES, ids=DataType.Name)
@pytest.mark.parametrize("scheme", [{"parts": BOXES}, {"expression": STEPS}], ids=["parts", "expression"])
def test_recipes_are_those_of_plain_python(scheme, dtype):
    for names in ({"name": "w"}, {"name": "w", "stream": "other", "seed": 2**63 + 5}):
        spec = TensorSpec(shape=[9, 8], dtype=dtype, **names, **scheme)
        assert plainly(spec).tobytes() == served(shape=[9, 8], dtype=dtype, **names, **scheme).tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 9, 100, 1025])
def test_permutations_are_those_of_plain_python(count):
    fields = {"name": "p", "seed": 2**40 + 7, "shape": [count], "permutation": Permutation()}
    places = plainly(TensorSpec(**fields))
    assert places.tobytes() == served(**fields).tobytes()
    assert sorted(places) == list(range(count))


ARITY = {"clamp": 3, "where": 3} | dict.fromkeys(
    ("add", "subtract", "multiply", "divide", "minimum", "maximum", "less", "less_equal", "equal", "power"), 2
)


@pytest.mark.parametrize("name", plain.FUNCTIONS)
def test_functions_are_those_of_plain_python(name):
    """Within 1 ulp, or to the bit where IEEE 754 defines the result."""
    draws = [Step(recipe=Recipe(uniform=Uniform(a=a, b=a + 0.4))) for a in (0.5, 0.3, 0.6)][: ARITY.get(name, 1)]
    steps = [*draws, applied(name, *range(len(draws)))]
    fields = {"name": "f", "shape": [40], "dtype": FLOAT64, "expression": Expression(steps=steps)}
    got, expected = served(**fields), plainly(TensorSpec(**fields))
    assert (np.abs(got - expected) <= (np.spacing(np.abs(expected)) if name in elementary.EXACT else 0)).all()


def test_every_function_has_its_plain_one():
    names = {Function.Name(value).removeprefix("FUNCTION_").lower() for value in Function.values() if value}
    assert plain.FUNCTIONS.keys() == names


# The constants.

LARGEST_ERRORS = {
    "LOG32": 2**-25.3, "SIN32": 2**-28, "COS32": 2**-31, "LOG64": 2**-54.9, "SIN64": 2**-56.7, "COS64": 2**-55.1,
    "MIDDLE32": 0.5, "NEAR32": 0.2, "FAR32": 0.4,
}  # fmt: skip
"""Those in engine/constants.py."""


@pytest.mark.parametrize("name", fitting.NAMES)
def test_the_constants_are_as_exact_as_they_are_said_to_be(name):
    assert fitting.error(name, getattr(constants, name)) <= LARGEST_ERRORS[name] * 1.01


@pytest.mark.parametrize("name", [name for name in fitting.NAMES if name.endswith("64")])
def test_the_constants_of_float64_are_what_is_fitted(name):
    assert fitting.fitted(name) == getattr(constants, name)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in fitting.NAMES if name.endswith("32")])
def test_those_of_float32_are_as_good_as_what_is_fitted(name):
    """Another library of linear algebra may round otherwise, and find other last bits."""
    found = fitting.error(name, fitting.fitted(name))
    assert fitting.error(name, getattr(constants, name)) <= found * 1.1


# The distributions.


@pytest.mark.parametrize(
    ("wrong", "shows"),
    [
        (distributions.Law(distributions.NORMAL, 0.0, 1.0), False),
        (distributions.Law(distributions.NORMAL, 0.0, 1.02), True),
        (distributions.Law(distributions.NORMAL, 0.02, 1.0), True),
        (distributions.Law(distributions.TRUNCATED, 0.0, 1.0, -3.0, 3.0), True),
    ],
)
def test_a_wrong_law_shows(wrong, shows):
    case = distributions.Case("normal", FLOAT32, {"normal": Normal()}, wrong)
    row = distributions._continuous_row(case, *distributions._counted(case, 1 << 18, 1))
    smallest = min(row["anderson_darling_p"], row["chi2_p"])
    largest = max(map(abs, row["moment_scores"]))
    assert (smallest < IMPOSSIBLE) == shows
    assert (largest > 7) == shows


def test_the_moments_of_truncated_laws_are_mpmaths():
    for a, b in ((-2.0, 2.0), (6.0, 10.0), (-0.001, 0.001), (0.5, math.inf)):
        law = distributions.Law(distributions.TRUNCATED, 0.0, 1.0, a, b)
        with mpmath.workdps(40):
            mass = mpmath.quad(mpmath.npdf, [a, min(b, 40)])
            for k, moment in enumerate(law.moments(6), 1):
                by_integral = mpmath.quad(lambda x, k=k: x**k * mpmath.npdf(x), [a, min(b, 40)]) / mass
                assert moment == pytest.approx(float(by_integral), rel=1e-9, abs=1e-12)


def test_halves_of_another_std_show():
    counts = np.zeros(1 << 16, np.int64)
    values = served(name="h", shape=[1 << 18], dtype=DataType.DATA_TYPE_FLOAT16, normal=Normal())
    distributions._count_codes(values.view(np.uint16), counts)
    for std, shows in ((1.0, False), (1.1, True)):
        law = distributions.Law(distributions.NORMAL, 0.0, std)
        row = distributions._discrete_chi2(counts, DataType.DATA_TYPE_FLOAT16, law)
        assert (row["chi2_p"] < IMPOSSIBLE) == shows


# The peers' judge.


def judged(values, law, dtype="float32"):
    return peers.judged(peers.Case(dtype, law), np.asarray(values, peers.DTYPES[dtype]))


def test_the_judge_sees_what_is_wrong():
    law = distributions.Law(distributions.TRUNCATED, 0.0, 1.0, -2.0, 2.0)
    case = peers.Case("float32", law)
    good = peers._seedbed(case, 1 << 16)
    row = judged(good, law)
    assert row["outside"] == 0
    assert row["chi2_p"] > IMPOSSIBLE
    assert abs(row["std_error"]) < 5 * row["std_error_by_chance"]

    spoilt = good.copy()
    spoilt[:3] = math.inf, math.nan, 2.5
    spoilt[3:500] = -2.0
    row = judged(spoilt, law)
    assert row["outside"] == 3
    assert row["at_bounds"] == [497, 0]
    assert row["chi2_p"] < IMPOSSIBLE
    assert judged(good * np.float32(0.9), law)["std_error"] == pytest.approx(-0.1, abs=0.02)


@pytest.mark.parametrize("dtype", peers.DTYPES)
@pytest.mark.parametrize("case", peers.CASES, ids=lambda case: case.name)
def test_cells_hold_all_and_follow_the_law(case, dtype):
    case = case._replace(dtype=dtype)
    if dtype == "float16" and case.law.std < 1e-7:
        return
    borders, expected = peers.cells(case, 1 << 16)
    assert expected.sum() == pytest.approx(1 << 16)
    assert (np.diff(borders) > 0).all()
    assert (expected >= 20).all() or len(expected) == 2


# The commands.


def hold_as_claimed(rows):
    """What is said of normals and truncated normals, of what was found."""
    for row in rows:
        if row["dtype"] == "float32" and row["law"] == "normal, std 1":
            assert row["largest_ulp"] <= accuracy.NORMAL_ULP, row
        if row["dtype"] == "float32" and row["law"].startswith("trunc_normal"):
            formula = "near" if "std 1," in row["law"] else row.get("formula")
            bound = accuracy.TRUNCATED_ULP[formula] if "formula" in row else 0.6
            assert row["largest_ulp"] <= bound, row
        assert row.get("outside", 0) == row.get("falls", 0) == 0, row


@pytest.mark.nightly
@NEEDS_LONG_DOUBLE
def test_the_laws_run_and_hold(tmp_path):
    sizes = ["--tiny", "--set", "sample=100"]
    done = run("laws", *sizes, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "laws.json").read_text(encoding="utf-8"))
    results = {key.removesuffix(f" {' '.join(sizes)}"): result for key, result in results.items()}
    assert results.keys() == laws.PARTS.keys()
    for part, bound in (("functions", 2), ("uniforms", 1.3), ("normals", 5)):
        for row in results[part]["rows"]:
            assert row["largest_ulp"] < bound, row
            assert row["largest_disagreement_ulp"] < 2e-3, row
    hold_as_claimed(results["normals"]["rows"] + results["truncated"]["rows"])
    for row in results["truncated"]["rows"]:
        assert row["largest_in_std"] < 3e-14 or row["dtype"] == "float32", row
        assert row["largest_disagreement_ulp"] < 2e-3, row
    for row in results["references"]["rows"]:
        assert row["largest_error_ulp"] < 2e-3, row
        assert row["inputs"] >= 20
    assert all(row["not_nearest"] == 0 for row in results["rounding"]["rows"])
    assert all(not row["asymmetries"] for row in results["quantile"]["rows"])
    assert all(row["falls"] == 0 for row in results["quantile"]["rows"] if row["dtype"] == "float32")
    assert all(row["largest_ulp"] < 4 for row in results["schemes"]["rows"])
    assert all(row["largest_ulp"] <= row["claimed_ulp"] for row in results["elementary"]["rows"])
    for row in results["distributions"]["rows"] + results["built"]["rows"]:
        assert min(row["chi2_p"], row["anderson_darling_p"]) > IMPOSSIBLE, row
        assert max(map(abs, row["moment_scores"])) < 7, row
    assert all(row["chi2_p"] > IMPOSSIBLE and row["impossible"] == 0 for row in results["halves"]["rows"])
    for row in results["complex"]["rows"]:
        assert min(row["modulus_p"], row["angle_p"], row["both_p"]) > IMPOSSIBLE, row
        assert row["law"] == "normal" or row["largest_modulus"] <= int(row["law"][13]) * (1 + 2**-22), row
    assert all(row["columns_with_another_number_of_zeros"] == 0 for row in results["sparse"]["rows"])
    assert results["orthogonal"]["rows"][0]["determinant_p"] > IMPOSSIBLE


@pytest.mark.nightly
def test_the_peers_run_and_seedbed_holds(tmp_path):
    done = run("peers", "--tiny", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["peers"]
    ours = [row for row in result["rows"] if row["peer"] == "Seedbed"]
    assert [row["case"] for row in ours] == [case.name for case in peers.CASES]
    for row in ours:
        assert row["outside"] == 0, row
        assert row["chi2_p"] > IMPOSSIBLE, row
        assert abs(row["std_error"]) < 6 * row["std_error_by_chance"], row


def test_bad_arguments_are_refused_with_the_remedy():
    for arguments, message in (
        (("bits", "nonsense"), "no 'nonsense'; use one of straight"),
        (("bits", "--battery", "dieharder"), "use one of smallcrush"),
        (("laws", "nonsense"), "use one of references"),
        (("laws", "--set", "nonsense=1"), "no size 'nonsense'"),
        (("laws", "--set", "words=1000"), "not a power of 2"),
        (("peers", "--set", "peers=-1"), "not a positive whole number"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2, arguments
        assert message in " ".join(done.output.split()), done.output


# The document.


def test_the_document_says_what_the_published_results_say():
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert tables.filled(text, tables.published()) == text, "run python -m evidence tables"
    blocks = {match["name"] for match in tables._BLOCK.finditer(text)}
    assert blocks == tables.TABLES.keys()
    assert "Not measured yet" not in text


def test_what_is_published_was_measured_in_full():
    for results in tables.published().values():
        for result in results.values():
            assert "--tiny" not in result["command"]
            assert "--set" not in result["command"].replace("--set seed=2", "")


def test_the_published_functions_are_as_exact_as_claimed():
    rows = tables.published()["laws"]["elementary"]["rows"]
    assert [row["function"] for row in rows] == list(elementary.EXACT)
    assert all(row["largest_ulp"] <= row["claimed_ulp"] == elementary.CLAIMED for row in rows)
    assert all(row["inputs"] >= 20_000 for row in rows)


def test_the_published_laws_are_as_exact_as_claimed():
    results = tables.published()["laws"]
    hold_as_claimed(results["normals"]["rows"] + results["truncated"]["rows"])
    all_draws = [row for row in results["quantile"]["rows"] if row["dtype"] == "float32"]
    assert all(row["words"] == 2**32 and row["falls"] == 0 and not row["asymmetries"] for row in all_draws)


def test_an_unknown_table_is_an_error():
    with pytest.raises(ValueError, match="no table 'x'"):
        tables.filled("<!-- table: x -->\n<!-- end of table -->", {})
